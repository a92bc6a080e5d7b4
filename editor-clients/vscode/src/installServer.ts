/** Installs the server into a virtual environment of the extension's own. */

import { readdirSync, readFileSync, statSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as vscode from "vscode";
import { run } from "./processes";
import { candidates, isNewEnough, MIN_PYTHON, pipProgress, type Python } from "./pythons";
import { inEnvironment, type Machine } from "./serverCommand";

/** This machine, for `findServer`. */
export const machine: Machine = {
  platform: process.platform,
  path: process.env["PATH"] ?? "",
  isFile: (path) => statSync(path, { throwIfNoEntry: false })?.isFile() === true,
};

function folder(context: vscode.ExtensionContext): string {
  return join(context.globalStorageUri.fsPath, "server");
}

/** Written last, so that what was interrupted counts as nothing. */
function stampFile(context: vscode.ExtensionContext): string {
  return join(folder(context), "installed.json");
}

/** The server that was installed here; undefined where there is none. */
export function installedServer(context: vscode.ExtensionContext): string | undefined {
  return machine.isFile(stampFile(context))
    ? inEnvironment(folder(context), "keystate", process.platform)
    : undefined;
}

/** Whether the installed server came inside another version of this extension. */
export function isOutdated(context: vscode.ExtensionContext): boolean {
  try {
    const stamp = JSON.parse(readFileSync(stampFile(context), "utf8")) as { bundledIn?: string };
    return stamp.bundledIn !== undefined && stamp.bundledIn !== version(context);
  } catch {
    return false;
  }
}

/** Install it, with progress. Gives whether it is there; what went wrong is shown and logged. */
export async function installServer(
  context: vscode.ExtensionContext,
  log: vscode.LogOutputChannel,
): Promise<boolean> {
  const settings = vscode.workspace.getConfiguration("keystate");
  const given = settings.get<string>("serverSource", "");
  const source = given === "" ? bundledWheel(context) : given;
  if (source === undefined) {
    void vscode.window.showErrorMessage(
      "This build of keystate's extension has no server inside. Name a wheel or a checkout in the setting keystate.serverSource.",
    );
    return false;
  }
  const python = await findPython(settings.get<string>("python", ""));
  if (python === undefined) {
    void vscode.window.showErrorMessage(
      `keystate's server needs Python ${MIN_PYTHON.join(".")} or newer, and none was found. Install one, or name it in the setting keystate.python.`,
    );
    return false;
  }
  const pipArguments = settings.get<string[]>("pipArguments", []);
  if (!(await isWanted(pipArguments))) {
    return false;
  }
  return vscode.window.withProgress(
    { location: vscode.ProgressLocation.Notification, title: "Installing keystate's server", cancellable: true },
    async (progress, token) => {
      const aborting = new AbortController();
      token.onCancellationRequested(() => {
        aborting.abort();
      });
      const onLine = (line: string) => {
        log.info(line);
        const message = pipProgress(line);
        if (message !== undefined) {
          progress.report({ message });
        }
      };
      const target = folder(context);
      try {
        await rm(target, { recursive: true, force: true });
        await mkdir(context.globalStorageUri.fsPath, { recursive: true });
        progress.report({ message: "making a virtual environment" });
        await run([...python, "-m", "venv", target], onLine, aborting.signal);
        const pip: [string, ...string[]] = [
          inEnvironment(target, "python", process.platform),
          ...["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"],
          ...pipArguments,
          source,
        ];
        await run(pip, onLine, aborting.signal);
        const stamp = given === "" ? { source, bundledIn: version(context) } : { source };
        await writeFile(stampFile(context), JSON.stringify(stamp));
        return true;
      } catch (error) {
        await rm(target, { recursive: true, force: true });
        if (!token.isCancellationRequested) {
          log.error(String(error));
          void tellFailure(String(error), log);
        }
        return false;
      }
    },
  );
}

async function tellFailure(error: string, log: vscode.LogOutputChannel): Promise<void> {
  // Debian and Ubuntu keep what `venv` needs in a package of its own.
  const remedy = error.includes("ensurepip") ? " Install the package python3-venv first." : "";
  const message = `keystate's server could not be installed.${remedy} ${error.slice(0, 300)}`;
  if ((await vscode.window.showErrorMessage(message, "Show Log")) === "Show Log") {
    log.show();
  }
}

async function findPython(setting: string): Promise<Python | undefined> {
  for (const python of candidates(setting, process.platform)) {
    let output = "";
    try {
      await run([...python, "--version"], (line) => (output += line));
    } catch {
      continue;
    }
    if (isNewEnough(output)) {
      return python;
    }
  }
  return undefined;
}

/** Whether to go on: on Linux pip's usual PyTorch brings CUDA, which not everybody wants. */
async function isWanted(pipArguments: readonly string[]): Promise<boolean> {
  if (pipArguments.length > 0 || process.platform !== "linux" || process.arch !== "x64") {
    return true;
  }
  const chosen = await vscode.window.showInformationMessage(
    "keystate's server computes with PyTorch. pip's usual build of it brings NVIDIA's libraries: several GB on the disk. For a build for the processor alone (about 1 GB), have the setting keystate.pipArguments name its index, as PyTorch's own page about installing has it.",
    { modal: true },
    "Install",
    "Open Settings",
  );
  if (chosen === "Open Settings") {
    void vscode.commands.executeCommand("workbench.action.openSettings", "keystate.pipArguments");
  }
  return chosen === "Install";
}

function bundledWheel(context: vscode.ExtensionContext): string | undefined {
  const inside = context.asAbsolutePath("server");
  try {
    const wheel = readdirSync(inside).find((name) => name.endsWith(".whl"));
    return wheel === undefined ? undefined : join(inside, wheel);
  } catch {
    return undefined;
  }
}

function version(context: vscode.ExtensionContext): string {
  return (context.extension.packageJSON as { version: string }).version;
}
