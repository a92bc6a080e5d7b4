/** The latency of the last suggestions, as text. */

/** One answer, as `keystate/lastTimings` has it. */
export interface Timing {
  readonly id: number | string;
  readonly uri: string;
  readonly stop: string;
  readonly timings_ms: Readonly<Record<string, number>>;
  readonly tokens?: { readonly prompt?: number; readonly recomputed?: number; readonly generated?: number };
  readonly passes?: unknown;
  readonly prompt_kind?: string;
}

/** What is kept to look at. */
export const KEPT = 256;

/** The value below which a share of the values lies; `sorted` ascends and is not empty. */
function percentile(sorted: readonly number[], share: number): number {
  const index = Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1));
  return sorted[index] ?? 0;
}

function row(cells: readonly string[], widths: readonly number[]): string {
  return cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join("  ");
}

/** A page about answers, oldest first: percentiles by stage, then the newest answers. */
export function latencyPage(timings: readonly Timing[], heading: string): string {
  const answered = timings.filter((timing) => timing.stop !== "loading");
  const lines = [heading, ""];
  if (answered.length === 0) {
    return [...lines, "No suggestion was asked for yet.", ""].join("\n");
  }
  lines.push(`The last ${answered.length} answers, in milliseconds inside the server:`, "");
  const stages = new Map<string, number[]>();
  for (const timing of answered) {
    for (const [stage, ms] of Object.entries(timing.timings_ms)) {
      stages.set(stage, [...(stages.get(stage) ?? []), ms]);
    }
  }
  const stageWidths = [Math.max(5, ...[...stages.keys()].map((stage) => stage.length)), 8, 8, 8];
  lines.push(row(["stage", "p50", "p95", "max"], stageWidths));
  for (const [stage, values] of stages) {
    const sorted = values.toSorted((a, b) => a - b);
    const figures = [percentile(sorted, 0.5), percentile(sorted, 0.95), sorted[sorted.length - 1] ?? 0];
    lines.push(row([stage, ...figures.map((figure) => figure.toFixed(1))], stageWidths));
  }
  lines.push("", "The newest first:", "");
  const widths = [8, 6, 9, 10, 12];
  lines.push(row(["total", "kind", "prompt", "recomputed", "stop"], widths));
  for (const timing of answered.toReversed()) {
    const total = timing.timings_ms["total"] ?? 0;
    const cells = [
      total.toFixed(1).padStart(8),
      timing.prompt_kind ?? "",
      String(timing.tokens?.prompt ?? ""),
      String(timing.tokens?.recomputed ?? ""),
      timing.stop,
    ];
    lines.push(row(cells, widths));
  }
  return [...lines, ""].join("\n");
}
