/** The page about latency: a text that is made anew each time it is asked for. */

import * as vscode from "vscode";
import { KEPT, latencyPage, type Timing } from "./latency";
import type { Server } from "./server";

const SCHEME = "keystate-latency";
const URI = vscode.Uri.from({ scheme: SCHEME, path: "/keystate latency.txt" });

export class LatencyView implements vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<vscode.Uri>();
  private readonly registration: vscode.Disposable;
  private timings: Timing[] = [];

  constructor(private readonly server: Server) {
    this.registration = vscode.workspace.registerTextDocumentContentProvider(SCHEME, {
      onDidChange: this.changed.event,
      provideTextDocumentContent: () => latencyPage(this.timings, this.heading()),
    });
  }

  /** Fetch what is new and show the page. */
  async show(): Promise<void> {
    const { client } = this.server;
    if (client !== undefined) {
      // The server forgets what it has told.
      this.timings.push(...(await client.sendRequest<Timing[]>("keystate/lastTimings")));
      this.timings.splice(0, this.timings.length - KEPT);
    }
    this.changed.fire(URI);
    await vscode.window.showTextDocument(await vscode.workspace.openTextDocument(URI), { preview: true });
  }

  dispose(): void {
    this.registration.dispose();
    this.changed.dispose();
  }

  private heading(): string {
    const { model, device, kind, message } = this.server.status;
    const about = [model, device].filter((word) => word !== undefined).join(" on ");
    return `keystate: ${about === "" ? (message ?? kind) : about}`;
  }
}
