/** What VS Code calls: parts are made here and told of one another. */

import * as vscode from "vscode";
import { CursorMoves } from "./cursorMoves";
import { installedServer, installServer, isOutdated, removeOldServers } from "./installServer";
import { LatencyView } from "./latencyView";
import { offReason, SCHEMES } from "./policy";
import { oneAtATime, unawaited } from "./promises";
import { isSecret } from "./secrets";
import { Server } from "./server";
import { showMenu, StatusBar } from "./statusBar";
import { placeOf, Suggestions } from "./suggestions";
import { UserWishes } from "./wishes";

let running: Server | undefined;

export function activate(context: vscode.ExtensionContext): void {
  const log = vscode.window.createOutputChannel("keystate", { log: true });
  const wishes = new UserWishes();
  const server: Server = new Server(context, log, () => suggestions);
  const suggestions = new Suggestions(
    () => wishes.current(),
    () => server.client,
  );
  const latency = new LatencyView(server);
  running = server;
  context.subscriptions.push(log, wishes, server, suggestions, latency, new StatusBar(server, suggestions, wishes));
  context.subscriptions.push(watchCursor(server));

  const command = (name: string, work: () => unknown) => {
    context.subscriptions.push(vscode.commands.registerCommand(`keystate.${name}`, work));
  };
  let isOffered = false;
  const install = oneAtATime(async () => {
    // Whoever installs need not be asked.
    isOffered = true;
    if (await installServer(context, log)) {
      await server.restart();
      await removeOldServers(context, log);
    }
  });
  /** An offer may be accepted hours later, when another window has done it. */
  const installIfNeeded = () =>
    installedServer(context) === undefined || isOutdated(context) ? install() : server.restart();
  command("showMenu", () => showMenu(server, wishes));
  command("toggle", () => wishes.toggle());
  command("toggleLanguage", async () => {
    const languageId = vscode.window.activeTextEditor?.document.languageId;
    if (languageId !== undefined) {
      await wishes.toggleLanguage(languageId);
    }
  });
  command("snooze", () => {
    wishes.snooze();
  });
  command("showLatency", () => latency.show());
  command("showLog", () => {
    log.show();
  });
  command("restart", () => server.restart());
  command("installServer", install);
  command("openSettings", () =>
    vscode.commands.executeCommand("workbench.action.openSettings", `@ext:${context.extension.id}`),
  );

  /** The server costs memory: it starts when there is something to suggest in. */
  const startWhereWanted = async () => {
    const document = vscode.window.activeTextEditor?.document;
    const awake = { ...wishes.current(), snoozedUntilMs: 0 };
    if (document === undefined || offReason(placeOf(document), awake, Date.now(), false) !== undefined) {
      return;
    }
    await server.ensureStarted();
    if (server.isMissing && !isOffered) {
      isOffered = true;
      await offerInstallation(installIfNeeded);
    }
  };
  const maybeStart = () => {
    unawaited(startWhereWanted(), log);
  };
  context.subscriptions.push(
    vscode.window.onDidChangeActiveTextEditor(maybeStart),
    vscode.workspace.onDidOpenTextDocument(maybeStart),
    wishes.onDidChange(maybeStart),
    vscode.workspace.onDidChangeConfiguration((event) => {
      if (event.affectsConfiguration("keystate")) {
        unawaited(server.configurationChanged(event), log);
      }
    }),
  );
  if (isOutdated(context)) {
    log.info("the installed server came with another version of this extension");
    unawaited(offerUpdate(installIfNeeded), log);
  }
  unawaited(removeOldServers(context, log), log);
  maybeStart();
}

export async function deactivate(): Promise<void> {
  await running?.stop();
}

async function offerInstallation(install: () => Promise<void>): Promise<void> {
  const chosen = await vscode.window.showInformationMessage(
    "keystate makes suggestions with a server, which is not installed. It needs Python 3.11 or newer and downloads PyTorch. Nothing you write leaves this machine.",
    "Install",
    "Open Settings",
  );
  if (chosen === "Install") {
    await install();
  } else if (chosen === "Open Settings") {
    await vscode.commands.executeCommand("workbench.action.openSettings", "keystate.serverCommand");
  }
}

async function offerUpdate(install: () => Promise<void>): Promise<void> {
  const chosen = await vscode.window.showInformationMessage(
    "keystate's server is of another version than its extension.",
    "Update",
  );
  if (chosen === "Update") {
    await install();
  }
}

/** Tells the server where the cursor went without an edit, so that it reads ahead to there. */
function watchCursor(server: Server): vscode.Disposable {
  const isTold = ({ uri }: vscode.TextDocument) => SCHEMES.includes(uri.scheme) && !isSecret(uri.path);
  const moves = new CursorMoves((uri, position) => {
    // A server that is going down has no use for it.
    server.client
      ?.sendNotification("keystate/cursorMoved", { textDocument: { uri }, position })
      .catch(() => undefined);
  });
  return vscode.Disposable.from(
    moves,
    vscode.workspace.onDidChangeTextDocument(({ document, contentChanges: [change] }) => {
      if (isTold(document)) {
        moves.edited(document.uri.toString(), change && { start: change.range.start, text: change.text });
      }
    }),
    vscode.window.onDidChangeTextEditorSelection(({ textEditor, selections: [selection] }) => {
      if (selection !== undefined && isTold(textEditor.document)) {
        const { line, character } = selection.active;
        moves.moved(textEditor.document.uri.toString(), { line, character });
      }
    }),
  );
}
