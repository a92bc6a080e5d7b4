/** How the server is started: from a setting, the PATH, or what this extension installed. */

/** A command and its arguments. */
export interface Command {
  readonly command: string;
  readonly args: readonly string[];
  /** Where it was found, for the log. */
  readonly from: "setting" | "path" | "installed";
}

/** What the search needs to know of the machine. */
export interface Machine {
  readonly platform: NodeJS.Platform;
  readonly path: string;
  isFile(path: string): boolean;
}

/** The server's command; undefined where there is none. `installed` is where one would be. */
export function findServer(
  setting: readonly string[],
  installed: string | undefined,
  machine: Machine,
): Command | undefined {
  const [command, ...args] = setting;
  if (command !== undefined && command !== "") {
    return { command, args, from: "setting" };
  }
  const onPath = findOnPath("keystate", machine);
  if (onPath !== undefined) {
    return { command: onPath, args: ["serve"], from: "path" };
  }
  if (installed !== undefined && machine.isFile(installed)) {
    return { command: installed, args: ["serve"], from: "installed" };
  }
  return undefined;
}

/** The first file of a name in the PATH's folders. */
export function findOnPath(name: string, machine: Machine): string | undefined {
  const isWindows = machine.platform === "win32";
  const separator = isWindows ? "\\" : "/";
  // A relative folder would be looked up in whatever folder is open, which may be anybody's.
  const isAbsolute = (folder: string) => (isWindows ? /^([a-z]:)?[\\/]/i : /^\//).test(folder);
  return machine.path
    .split(isWindows ? ";" : ":")
    .filter(isAbsolute)
    .map((folder) => `${folder}${separator}${name}${isWindows ? ".exe" : ""}`)
    .find((file) => machine.isFile(file));
}

/** A program of a virtual environment. */
export function inEnvironment(folder: string, name: string, platform: NodeJS.Platform): string {
  return platform === "win32" ? `${folder}\\Scripts\\${name}.exe` : `${folder}/bin/${name}`;
}
