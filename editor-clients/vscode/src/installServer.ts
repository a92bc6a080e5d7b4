/** Installs the server into a virtual environment of the extension's own. */

import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import * as vscode from "vscode";
import { addEnvironment, currentEnvironment, currentStamp, removeOldEnvironments } from "./environments";
import { run } from "./processes";
import { unawaited } from "./promises";
import { candidates, isNewEnough, MIN_PYTHON, pipProgress, type Python } from "./pythons";
import { inEnvironment, type Machine } from "./serverCommand";
import { listSetting } from "./settings";

/** This machine, for `findServer`. */
export const machine: Machine = {
  platform: process.platform,
  path: process.env["PATH"] ?? "",
  isFile: (path) => statSync(path, { throwIfNoEntry: false })?.isFile() === true,
};

function storage(context: vscode.ExtensionContext): string {
  return context.globalStorageUri.fsPath;
}

/** The server that was installed here; undefined where there is none. */
export function installedServer(context: vscode.ExtensionContext): string | undefined {
  const folder = currentEnvironment(storage(context));
  return folder && inEnvironment(folder, "keystate", process.platform);
}

/** Whether the installed server came inside another version of this extension. */
export function isOutdated(context: vscode.ExtensionContext): boolean {
  const bundledIn = currentStamp(storage(context))?.bundledIn;
  return bundledIn !== undefined && bundledIn !== version(context);
}

/** Remove what the installed server has replaced. */
export async function removeOldServers(context: vscode.ExtensionContext, log: vscode.LogOutputChannel): Promise<void> {
  for (const error of await removeOldEnvironments(storage(context), Date.now())) {
    log.warn(`an old server could not be removed: ${String(error)}`);
  }
}

/**
 * Install it beside the one that is there, with progress. Gives whether it is there; if not, the one
 * before still is. What went wrong is shown and logged.
 */
export async function installServer(
  context: vscode.ExtensionContext,
  log: vscode.LogOutputChannel,
): Promise<boolean> {
  const aborting = new AbortController();
  try {
    return await install(context, log, aborting);
  } catch (error) {
    if (!aborting.signal.aborted) {
      log.error(String(error));
      unawaited(tellFailure(error instanceof Error ? error.message : String(error), log), log);
    }
    return false;
  }
}

async function install(
  context: vscode.ExtensionContext,
  log: vscode.LogOutputChannel,
  aborting: AbortController,
): Promise<boolean> {
  const settings = vscode.workspace.getConfiguration("keystate");
  const given = settings.get<string>("serverSource", "");
  const source = given === "" ? bundledWheel(context) : given;
  if (source === undefined) {
    throw new Error(
      "this build of the extension has none inside. Name a wheel or a checkout in the setting keystate.serverSource.",
    );
  }
  const python = await findPython(settings.get<string>("python", ""));
  if (python === undefined) {
    throw new Error(
      `it needs Python ${MIN_PYTHON.join(".")} or newer, and none was found. Install one, or name it in the setting keystate.python.`,
    );
  }
  const pipArguments = listSetting((key) => settings.get(key), "pipArguments");
  if (!(await isWanted(pipArguments))) {
    return false;
  }
  const stamp = given === "" ? { source, bundledIn: version(context) } : { source };
  await vscode.window.withProgress(
    { location: vscode.ProgressLocation.Notification, title: "Installing keystate's server", cancellable: true },
    async (progress, token) => {
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
      await addEnvironment(storage(context), stamp, async (folder) => {
        progress.report({ message: "making a virtual environment" });
        await run([...python, "-m", "venv", folder], onLine, aborting.signal);
        const pip: [string, ...string[]] = [
          inEnvironment(folder, "python", process.platform),
          ...["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"],
          ...pipArguments,
          source,
        ];
        await run(pip, onLine, aborting.signal);
      });
    },
  );
  return true;
}

async function tellFailure(error: string, log: vscode.LogOutputChannel): Promise<void> {
  // Debian and Ubuntu keep what `venv` needs in a package of its own.
  const remedy = error.includes("ensurepip") ? " (install the package python3-venv first)" : "";
  const message = `keystate's server could not be installed${remedy}: ${error.slice(-300)}`;
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
    await vscode.commands.executeCommand("workbench.action.openSettings", "keystate.pipArguments");
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
