/** Requests for suggestions: where they are made, and what becomes of their answers. */

import * as vscode from "vscode";
import { type InlineCompletionItem, InlineCompletionRequest, type LanguageClient } from "vscode-languageclient/node";
import { offReason, type Place, type Wishes } from "./policy";
import { ShownSuggestion } from "./shownSuggestion";

type Answer = vscode.InlineCompletionItem[] | vscode.InlineCompletionList | null;

/** What the item in the status bar does not flicker for. */
const SHORT_MS = 150;

/** Where a document stands in the editor. */
export function placeOf(document: vscode.TextDocument): Place {
  const { scheme, path } = document.uri;
  return { languageId: document.languageId, scheme, path, isInDiff: isInDiff(document.uri) };
}

function isInDiff(uri: vscode.Uri): boolean {
  const input = vscode.window.tabGroups.activeTabGroup.activeTab?.input;
  const sides = input instanceof vscode.TabInputTextDiff ? [input.original, input.modified] : [];
  return sides.some((side) => side.toString() === uri.toString());
}

/** Asks for suggestions, and tells the server which were seen and which were taken in part. */
export class Suggestions implements vscode.Disposable {
  private readonly shown = new ShownSuggestion<InlineCompletionItem>();
  private readonly changed = new vscode.EventEmitter<void>();
  private nUnderWay = 0;
  private timer: NodeJS.Timeout | undefined;
  private readonly subscriptions: { dispose(): unknown }[];

  /** Fires when `isThinking` may have changed. */
  readonly onDidChange = this.changed.event;
  /** Whether a request has been under way for longer than a moment. */
  isThinking = false;

  constructor(
    private readonly wishes: () => Wishes,
    private readonly client: () => LanguageClient | undefined,
  ) {
    this.subscriptions = [
      this.changed,
      vscode.workspace.onDidChangeTextDocument((event) => {
        this.edited(event);
      }),
    ];
  }

  /** Answer the editor. An error is an answer of nothing: whoever types is not told of it. */
  async provide(
    document: vscode.TextDocument,
    position: vscode.Position,
    context: vscode.InlineCompletionContext,
    token: vscode.CancellationToken,
  ): Promise<Answer> {
    const client = this.client();
    const isInvoked = context.triggerKind === vscode.InlineCompletionTriggerKind.Invoke;
    const off = offReason(placeOf(document), this.wishes(), Date.now(), isInvoked);
    if (client === undefined || off !== undefined) {
      return null;
    }
    this.count(1);
    try {
      const params = client.code2ProtocolConverter.asInlineCompletionParams(document, position, context);
      const { version } = document;
      const result = await client.sendRequest(InlineCompletionRequest.type, params, token);
      if (token.isCancellationRequested || result === null) {
        return null;
      }
      const items = Array.isArray(result) ? result : result.items;
      // Once the editor has the answer.
      setTimeout(() => {
        if (!token.isCancellationRequested && document.version === version) {
          this.show(client, document, position, items[0]);
        }
      }, 0);
      return (await client.protocol2CodeConverter.asInlineCompletionResult(result, token)) ?? null;
    } catch (error) {
      if (!token.isCancellationRequested) {
        client.warn("A suggestion failed.", error, false);
      }
      return null;
    } finally {
      this.count(-1);
    }
  }

  dispose(): void {
    clearTimeout(this.timer);
    vscode.Disposable.from(...this.subscriptions).dispose();
  }

  private show(
    client: LanguageClient,
    document: vscode.TextDocument,
    position: vscode.Position,
    item: InlineCompletionItem | undefined,
  ): void {
    if (item === undefined || typeof item.insertText !== "string") {
      this.shown.clear();
      return;
    }
    const start = item.range === undefined ? position : client.protocol2CodeConverter.asPosition(item.range.start);
    const typed = document.getText(new vscode.Range(start, position));
    const inserted = item.insertText.startsWith(typed) ? typed.length : 0;
    const offset = document.offsetAt(start);
    if (this.shown.show(document.uri.toString(), offset, item.insertText, inserted, item)) {
      this.tell(client, "textDocument/didShowCompletion", { item });
    }
  }

  private edited(event: vscode.TextDocumentChangeEvent): void {
    const edits = event.contentChanges.map((change) => ({
      offset: change.rangeOffset,
      removed: change.rangeLength,
      text: change.text,
    }));
    const client = this.client();
    const accepted = this.shown.edited(event.document.uri.toString(), edits);
    if (client !== undefined && accepted !== undefined) {
      this.tell(client, "textDocument/didPartiallyAcceptCompletion", accepted);
    }
  }

  private tell(client: LanguageClient, method: string, params: object): void {
    // A server that is going down has no use for it.
    client.sendNotification(method, params).catch(() => undefined);
  }

  private count(change: 1 | -1): void {
    this.nUnderWay += change;
    clearTimeout(this.timer);
    this.timer = setTimeout(
      () => {
        const isThinking = this.nUnderWay > 0;
        if (isThinking !== this.isThinking) {
          this.isThinking = isThinking;
          this.changed.fire();
        }
      },
      this.nUnderWay > 0 ? SHORT_MS : 0,
    );
  }
}
