/** Which Python the server can be installed with, and what pip is doing. */

/** The oldest Python the server runs on. */
export const MIN_PYTHON: readonly [number, number] = [3, 11];

/** A way to call Python. */
export type Python = readonly [command: string, ...args: string[]];

/** What to try, in this order; a setting is tried alone. */
export function candidates(setting: string, platform: NodeJS.Platform): Python[] {
  if (setting !== "") {
    return [[setting]];
  }
  if (platform === "win32") {
    return [["py", "-3"], ["python"]];
  }
  return [["python3"], ["python3.13"], ["python3.12"], ["python3.11"], ["python"]];
}

/** Whether what `--version` prints is a Python new enough. */
export function isNewEnough(output: string): boolean {
  const found = /^Python (\d+)\.(\d+)/.exec(output.trim());
  if (found === null) {
    return false;
  }
  const [major, minor] = [Number(found[1]), Number(found[2])];
  return major > MIN_PYTHON[0] || (major === MIN_PYTHON[0] && minor >= MIN_PYTHON[1]);
}

/** A line of pip's as a short word on what it does; undefined for lines that say nothing new. */
export function pipProgress(line: string): string | undefined {
  const collecting = /^\s*Collecting ([\w.-]+)/.exec(line);
  if (collecting !== null) {
    return `looking for ${collecting[1] ?? ""}`;
  }
  const downloading = /^\s*Downloading (?:\S*\/)?([\w.]+?)-\d\S*(?: \(([^)]+)\))?/.exec(line);
  if (downloading !== null) {
    const size = downloading[2];
    return `downloading ${downloading[1] ?? ""}${size === undefined ? "" : ` (${size})`}`;
  }
  return line.startsWith("Installing collected packages") ? "unpacking, which takes minutes" : undefined;
}
