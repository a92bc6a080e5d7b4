/** What the server logs to its stderr, as lines of the extension's own log. */

export type Level = "debug" | "info" | "warn" | "error";

const LINE = /^\d{4}-\d\d-\d\d [\d:,.]+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) (.*)$/;
const LEVELS: Record<string, Level> = { DEBUG: "debug", INFO: "info", WARNING: "warn" };

/** Takes the server's lines one by one; what is no line of its log belongs to the one before. */
export function serverLog(write: (level: Level, text: string) => void): (line: string) => void {
  // What comes before any is from Python, and says why there is no server.
  let level: Level = "error";
  return (line) => {
    const found = LINE.exec(line);
    if (found !== null) {
      level = LEVELS[found[1] ?? ""] ?? "error";
    }
    write(level, found?.[2] ?? line);
  };
}
