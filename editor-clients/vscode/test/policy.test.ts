import assert from "node:assert/strict";
import { test } from "node:test";
import { offReason, type Place, type Wishes } from "../src/policy";

const PLACE: Place = { languageId: "python", scheme: "file", path: "/a/b.py", isInDiff: false };
const WISHES: Wishes = { enabled: true, languages: { "*": true, markdown: false }, snoozedUntilMs: 0 };

function check(
  expected: string | undefined,
  { place = {}, wishes = {}, isInvoked = false }: { place?: Partial<Place>; wishes?: Partial<Wishes>; isInvoked?: boolean },
) {
  assert.equal(offReason({ ...PLACE, ...place }, { ...WISHES, ...wishes }, 1000, isInvoked), expected);
}

for (const scheme of ["file", "untitled", "vscode-notebook-cell"]) {
  test(`suggests in ${scheme}:`, () => {
    check(undefined, { place: { scheme } });
  });
}
for (const scheme of ["git", "output", "vscode-scm", "vscode-notebook-cell-output", "comment", "search-editor"]) {
  test(`is quiet in ${scheme}:`, () => {
    check("not a file, an untitled text or a notebook's cell", { place: { scheme } });
  });
}
for (const path of ["/a/.env", "/a/.env.local", "/a/ID_RSA", "/a/server.pem", "/.npmrc", "/a/secrets.yaml"]) {
  test(`is quiet in ${path}`, () => {
    check("a file whose name says that it holds secrets", { place: { path } });
  });
}
for (const path of ["/a/env.py", "/.env/main.py", "/a/pem.py", "/a/key.go", "/a/npmrc"]) {
  test(`suggests in ${path}`, () => {
    check(undefined, { place: { path } });
  });
}
test("is quiet in a diff", () => {
  check("a diff", { place: { isInDiff: true } });
});
test("is quiet where all is turned off, asked or not", () => {
  check("turned off", { wishes: { enabled: false } });
  check("turned off", { wishes: { enabled: false }, isInvoked: true });
});
test("in a language that is turned off it answers who asks", () => {
  check("turned off for markdown", { place: { languageId: "markdown" } });
  check(undefined, { place: { languageId: "markdown" }, isInvoked: true });
});
test("a named language wins over the star", () => {
  check(undefined, { wishes: { languages: { "*": false, python: true } } });
  check("turned off for go", { place: { languageId: "go" }, wishes: { languages: { "*": false, python: true } } });
});
test("a language nobody named is on", () => {
  check(undefined, { wishes: { languages: {} } });
});
test("snoozing holds back what appears by itself", () => {
  check("snoozing for 2 more minutes", { wishes: { snoozedUntilMs: 1000 + 61_000 } });
  check("snoozing for 1 more minute", { wishes: { snoozedUntilMs: 1001 } });
  check(undefined, { wishes: { snoozedUntilMs: 1000 } });
  check(undefined, { wishes: { snoozedUntilMs: 1000 + 61_000 }, isInvoked: true });
});
