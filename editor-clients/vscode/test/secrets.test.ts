import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { isSecret } from "../src/secrets";

const server = readFileSync("../../lsp_server/private_files.py", "utf8");
const patterns = [...(/SECRET_NAMES = \(([^)]*)\)/.exec(server)?.[1] ?? "").matchAll(/"([^"]+)"/g)].map((found) => found[1] ?? "");

test("the server's list is found", () => {
  assert.ok(patterns.length >= 15, String(patterns.length));
});
for (const pattern of patterns) {
  test(`what the server keeps away from is not told to it: ${pattern}`, () => {
    assert.ok(isSecret(`/home/me/${pattern.replace("*", "x")}`));
  });
}
