import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { isSecret } from "../src/secrets";

const server = readFileSync("../../lsp_server/private_files.py", "utf8");

/** A list of the server's. */
function listed(name: string): string[] {
  const list = new RegExp(`^${name} = \\(([^)]*)\\)`, "m").exec(server)?.[1] ?? "";
  return [...list.matchAll(/"([^"]+)"/g)].map((found) => found[1] ?? "");
}

const patterns = listed("SECRET_NAMES");
const folders = listed("SECRET_FOLDERS");

test("the server's lists are found", () => {
  assert.ok(patterns.length >= 30, String(patterns.length));
  assert.ok(folders.length >= 5, String(folders.length));
});
for (const pattern of patterns) {
  test(`what the server keeps away from is not told to it: ${pattern}`, () => {
    assert.ok(isSecret(`/home/me/${pattern.replaceAll("*", "x")}`));
    assert.ok(isSecret(`/home/me/${pattern.replaceAll("*", "")}`));
  });
}
for (const folder of folders) {
  test(`nor what is in a folder: ${folder}`, () => {
    assert.ok(isSecret(`/home/me/${folder}/some/config`));
    assert.ok(!isSecret(`/home/me/${folder}`));
  });
}
for (const path of ["/a/environment.ts", "/a/secret.go", "/a/Secret.java", "/a/ssh/config", "/a/xenv", "/a/tokens.py"]) {
  test(`what only looks like it is told: ${path}`, () => {
    assert.ok(!isSecret(path));
  });
}
