/** Which documents the server is told of: none whose name says that it holds secrets. */

import type { Uri } from "vscode";
import type { Middleware } from "vscode-languageclient/node";
import { isSecret } from "./secrets";

/** Passes on what is said of documents and notebooks, where the server may know it. */
export const documents: Middleware = {
  didOpen: async (document, next) => unlessSecret(document.uri, () => next(document)),
  didChange: async (event, next) => unlessSecret(event.document.uri, () => next(event)),
  didClose: async (document, next) => unlessSecret(document.uri, () => next(document)),
  didSave: async (document, next) => unlessSecret(document.uri, () => next(document)),
  notebooks: {
    didOpen: async (notebook, cells, next) => unlessSecret(notebook.uri, () => next(notebook, cells)),
    didChange: async (event, next) => unlessSecret(event.notebook.uri, () => next(event)),
    didClose: async (notebook, cells, next) => unlessSecret(notebook.uri, () => next(notebook, cells)),
    didSave: async (notebook, next) => unlessSecret(notebook.uri, () => next(notebook)),
  },
};

/** Tell it, unless the file holds secrets. */
async function unlessSecret(uri: Uri, tell: () => Promise<void>): Promise<void> {
  if (!isSecret(uri.path)) {
    await tell();
  }
}
