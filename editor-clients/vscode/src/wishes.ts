/** What the user wants: the settings about suggestions, and snoozing, which ends with the window. */

import * as vscode from "vscode";
import { isLanguageOn, type Wishes } from "./policy";

const SNOOZE_MS = 5 * 60_000;

export class UserWishes implements vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<void>();
  private readonly subscription: vscode.Disposable;
  private snoozedUntilMs = 0;
  private timer: NodeJS.Timeout | undefined;

  /** Fires when `current()` may say something else. */
  readonly onDidChange = this.changed.event;

  constructor() {
    this.subscription = vscode.workspace.onDidChangeConfiguration((event) => {
      if (event.affectsConfiguration("keystate")) {
        this.changed.fire();
      }
    });
  }

  current(): Wishes {
    const settings = vscode.workspace.getConfiguration("keystate");
    return {
      enabled: settings.get("enabled", true),
      languages: settings.get<Record<string, boolean> | null>("languages") ?? {},
      snoozedUntilMs: this.snoozedUntilMs,
    };
  }

  isOn(languageId: string): boolean {
    return isLanguageOn(languageId, this.current().languages);
  }

  /** Turn suggestions on or off, in the user's settings. */
  async toggle(): Promise<void> {
    const settings = vscode.workspace.getConfiguration("keystate");
    await settings.update("enabled", !this.current().enabled, target(settings, "enabled"));
  }

  /** The same for one language. */
  async toggleLanguage(languageId: string): Promise<void> {
    const settings = vscode.workspace.getConfiguration("keystate");
    const where = target(settings, "languages");
    const found = settings.inspect<Record<string, boolean>>("languages");
    const languages = where === vscode.ConfigurationTarget.Workspace ? found?.workspaceValue : found?.globalValue;
    await settings.update("languages", { ...languages, [languageId]: !this.isOn(languageId) }, where);
  }

  /** Let nothing appear by itself for a while; a second time ends that. */
  snooze(): void {
    clearTimeout(this.timer);
    if (this.snoozedUntilMs > Date.now()) {
      this.snoozedUntilMs = 0;
    } else {
      this.snoozedUntilMs = Date.now() + SNOOZE_MS;
      this.timer = setTimeout(() => {
        this.snoozedUntilMs = 0;
        this.changed.fire();
      }, SNOOZE_MS);
    }
    this.changed.fire();
  }

  dispose(): void {
    clearTimeout(this.timer);
    this.subscription.dispose();
    this.changed.dispose();
  }
}

/** Where a setting must be written to take effect: a workspace's value hides the user's. */
function target(settings: vscode.WorkspaceConfiguration, key: string): vscode.ConfigurationTarget {
  return settings.inspect(key)?.workspaceValue === undefined
    ? vscode.ConfigurationTarget.Global
    : vscode.ConfigurationTarget.Workspace;
}
