/** Programs that are run to their end. */

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

/**
 * Run a program, line by line; rejects if it fails, with what it said last, or is aborted.
 *
 * Either way it is over then, with all that it started: nothing writes any more.
 */
export function run(
  command: readonly [string, ...string[]],
  onLine: (line: string) => void,
  signal?: AbortSignal,
): Promise<void> {
  const [program, ...args] = command;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], ...(signal && { signal }) });
    const last: string[] = [];
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        last.push(line);
        last.splice(0, last.length - 5);
        onLine(line);
      });
    }
    let failure: Error | undefined;
    child.on("error", (error) => {
      failure = error;
      if (child.pid === undefined) {
        reject(error);
      }
    });
    child.on("close", (code) => {
      if (failure !== undefined) {
        reject(failure);
      } else if (code === 0) {
        resolve();
      } else {
        reject(new Error(last.join(" ").trim() || `${program} ended with ${code ?? "a signal"}`));
      }
    });
  });
}
