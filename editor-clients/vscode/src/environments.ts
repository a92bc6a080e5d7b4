/**
 * The virtual environments that the server is installed in.
 *
 * None is ever changed: another version goes into a folder beside the one that works, which is
 * removed once the new one is complete. So a failed installation loses nothing, and windows that
 * install at the same time do not meet.
 */

import { readdirSync, readFileSync, statSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** What is noted of an installation. */
export interface Stamp {
  readonly source: string;
  /** The extension's version that the server came in; undefined where it came from elsewhere. */
  readonly bundledIn?: string;
}

interface Environment {
  readonly folder: string;
  readonly number: number;
  readonly isComplete: boolean;
}

/** "server", then "server-2" and so on: short, as paths on Windows are at most 260 characters. */
const NAME = /^server(?:-(\d+))?$/;
/** Written last, so that what was interrupted counts as nothing. */
const STAMP = "installed.json";
/** No installation takes longer: an incomplete folder of this age is nobody's any more. */
const ABANDONED_MS = 24 * 3_600_000;
/** A scanner or a server on its way out may hold files for a moment. */
const PATIENTLY = { recursive: true, force: true, maxRetries: 5 };

function environments(storage: string): Environment[] {
  let names: string[];
  try {
    names = readdirSync(storage);
  } catch {
    // Nothing was installed yet.
    return [];
  }
  return names.flatMap((name) => {
    const found = NAME.exec(name);
    if (found === null) {
      return [];
    }
    const folder = join(storage, name);
    const isComplete = statSync(join(folder, STAMP), { throwIfNoEntry: false })?.isFile() === true;
    return [{ folder, number: Number(found[1] ?? 1), isComplete }];
  });
}

/** The folder of the newest complete environment; undefined where there is none. */
export function currentEnvironment(storage: string): string | undefined {
  const complete = environments(storage).filter(({ isComplete }) => isComplete);
  return complete.sort((a, b) => b.number - a.number)[0]?.folder;
}

/** What was noted of it; undefined where there is none, or it cannot be read. */
export function currentStamp(storage: string): Partial<Stamp> | undefined {
  const folder = currentEnvironment(storage);
  if (folder === undefined) {
    return undefined;
  }
  try {
    return JSON.parse(readFileSync(join(folder, STAMP), "utf8")) as Partial<Stamp>;
  } catch {
    return undefined;
  }
}

/** Have `fill` make an environment in a new folder, which is the current one from then on. */
export async function addEnvironment(
  storage: string,
  stamp: Stamp,
  fill: (folder: string) => Promise<void>,
): Promise<void> {
  await mkdir(storage, { recursive: true });
  const number = 1 + Math.max(0, ...environments(storage).map((known) => known.number));
  const folder = join(storage, number === 1 ? "server" : `server-${number}`);
  // Fails where another window has just taken the number.
  await mkdir(folder);
  try {
    await fill(folder);
    await writeFile(join(folder, STAMP), JSON.stringify(stamp));
  } catch (error) {
    // What cannot be removed now is removed by `removeOldEnvironments`.
    await rm(folder, PATIENTLY).catch(() => undefined);
    throw error;
  }
}

/**
 * Remove environments that a newer one replaces, and what a crash has left.
 *
 * Gives what went wrong, such as files in use; it is tried again at the next call.
 */
export async function removeOldEnvironments(storage: string, nowMs: number): Promise<unknown[]> {
  const current = currentEnvironment(storage);
  const old = environments(storage).filter(({ folder, isComplete }) =>
    isComplete
      ? folder !== current
      : nowMs - (statSync(folder, { throwIfNoEntry: false })?.mtimeMs ?? nowMs) > ABANDONED_MS,
  );
  const results = await Promise.allSettled(old.map(({ folder }) => rm(folder, PATIENTLY)));
  return results.flatMap((result) => (result.status === "rejected" ? [result.reason as unknown] : []));
}
