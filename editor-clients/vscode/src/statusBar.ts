/** The item in the status bar, and the menu behind it. */

import * as vscode from "vscode";
import { offReason } from "./policy";
import type { Server } from "./server";
import { statusView } from "./status";
import { placeOf, type Suggestions } from "./suggestions";
import type { UserWishes } from "./wishes";

/** Shows how things stand where the user is. */
export class StatusBar implements vscode.Disposable {
  private readonly item = vscode.window.createStatusBarItem("keystate.status", vscode.StatusBarAlignment.Right, 100);
  private readonly subscriptions: { dispose(): unknown }[];

  constructor(
    private readonly server: Server,
    private readonly suggestions: Suggestions,
    private readonly wishes: UserWishes,
  ) {
    this.item.name = "keystate";
    this.item.command = "keystate.showMenu";
    const update = () => {
      this.update();
    };
    this.subscriptions = [
      this.item,
      server.onDidChange(update),
      suggestions.onDidChange(update),
      wishes.onDidChange(update),
      vscode.window.onDidChangeActiveTextEditor(update),
      vscode.window.tabGroups.onDidChangeTabs(update),
      // A document that is given another language is closed and opened again.
      vscode.workspace.onDidOpenTextDocument(update),
    ];
    this.update();
    this.item.show();
  }

  dispose(): void {
    vscode.Disposable.from(...this.subscriptions).dispose();
  }

  private update(): void {
    const document = vscode.window.activeTextEditor?.document;
    const off = document && offReason(placeOf(document), this.wishes.current(), Date.now(), false);
    const view = statusView(this.server.status, off, this.suggestions.isThinking);
    this.item.text = view.text;
    const tooltip = new vscode.MarkdownString();
    view.tooltip.forEach((line, i) => {
      tooltip.appendText(line).appendMarkdown(i < view.tooltip.length - 1 ? "\n\n" : "");
    });
    this.item.tooltip = tooltip;
    this.item.accessibilityInformation = { label: view.tooltip.join(" "), role: "button" };
    this.item.backgroundColor = view.isError
      ? new vscode.ThemeColor("statusBarItem.warningBackground")
      : undefined;
  }
}

/** What one can do about suggestions, as a list to pick from. */
export async function showMenu(server: Server, wishes: UserWishes): Promise<void> {
  const languageId = vscode.window.activeTextEditor?.document.languageId;
  const { enabled } = wishes.current();
  const isSnoozing = wishes.current().snoozedUntilMs > Date.now();
  const entry = (icon: string, label: string, command: string) => ({ label: `$(${icon}) ${label}`, command });
  const entries = [
    ...(server.isMissing ? [entry("cloud-download", "Install Server", "keystate.installServer")] : []),
    entry(enabled ? "circle-slash" : "check", `Turn suggestions ${enabled ? "off" : "on"}`, "keystate.toggle"),
    ...(languageId === undefined || !enabled
      ? []
      : [
          entry(
            "code",
            `Turn suggestions ${wishes.isOn(languageId) ? "off" : "on"} for ${languageId}`,
            "keystate.toggleLanguage",
          ),
        ]),
    entry("bell-slash", isSnoozing ? "Wake up" : "Snooze for 5 minutes", "keystate.snooze"),
    entry("dashboard", "Show latency of the last suggestions", "keystate.showLatency"),
    entry("output", "Show log", "keystate.showLog"),
    entry("debug-restart", "Restart server", "keystate.restart"),
    entry("gear", "Open settings", "keystate.openSettings"),
  ];
  const chosen = await vscode.window.showQuickPick(entries, { title: "keystate" });
  if (chosen !== undefined) {
    await vscode.commands.executeCommand(chosen.command);
  }
}
