import assert from "node:assert/strict";
import { test } from "node:test";
import { documents } from "../src/documents";

/** What is passed on, of all that can be said of a document and of a notebook of this name. */
async function told(path: string): Promise<string[]> {
  const names: string[] = [];
  const say = async (where: string, hooks: object, document: object) => {
    for (const [name, hook] of Object.entries(hooks)) {
      if (typeof hook === "function") {
        const next = () => {
          names.push(`${where}.${name}`);
          return Promise.resolve();
        };
        const takesCells = where === "notebooks" && (name === "didOpen" || name === "didClose");
        await (hook as (...given: unknown[]) => Promise<void>)(document, ...(takesCells ? [[]] : []), next);
      }
    }
  };
  const uri = { path };
  await say("documents", documents, { uri, document: { uri } });
  await say("notebooks", documents.notebooks ?? {}, { uri, notebook: { uri } });
  return names;
}

const WHAT = ["didOpen", "didChange", "didClose", "didSave"];

test("what holds secrets is not told of, as a text or as a notebook", async () => {
  assert.deepEqual(await told("/home/me/credentials.ipynb"), []);
  assert.deepEqual(await told("/home/me/.ssh/notes"), []);
});
test("everything else is", async () => {
  const all = ["documents", "notebooks"].flatMap((where) => WHAT.map((name) => `${where}.${name}`));
  assert.deepEqual(await told("/home/me/notes.ipynb"), all);
});
