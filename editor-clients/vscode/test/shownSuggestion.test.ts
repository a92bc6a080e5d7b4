import assert from "node:assert/strict";
import { test } from "node:test";
import { ShownSuggestion } from "../src/shownSuggestion";

const A = "file:///a.py";

function shown(text: string, offset = 10) {
  const suggestion = new ShownSuggestion<string>();
  suggestion.show(A, offset, text, 0, "item");
  return suggestion;
}
const insert = (offset: number, text: string) => [{ offset, removed: 0, text }];

test("a word, then a line are accepted; lengths add up", () => {
  const suggestion = shown("range(10):\n    print(i)");
  assert.deepEqual(suggestion.edited(A, insert(10, "range")), { item: "item", acceptedLength: 5 });
  assert.deepEqual(suggestion.edited(A, insert(15, "(10):")), { item: "item", acceptedLength: 10 });
});
test("typing along is not accepting, and counts as inserted", () => {
  const suggestion = shown("range(10)");
  assert.equal(suggestion.edited(A, insert(10, "r")), undefined);
  assert.deepEqual(suggestion.edited(A, insert(11, "ange")), { item: "item", acceptedLength: 5 });
});
test("accepting all of it is not told here", () => {
  const suggestion = shown("range(10)");
  assert.equal(suggestion.edited(A, insert(10, "range(10)")), undefined);
  assert.equal(suggestion.edited(A, insert(19, "ra")), undefined);
});
for (const [name, edits] of Object.entries({
  "other text": insert(10, "xy"),
  "another place": insert(12, "ra"),
  "a replacement": [{ offset: 10, removed: 1, text: "ra" }],
  "a deletion": [{ offset: 9, removed: 1, text: "" }],
  "two cursors": [...insert(10, "ra"), ...insert(40, "ra")],
  "no edit": [],
})) {
  test(`${name} ends it`, () => {
    const suggestion = shown("range(10)");
    assert.equal(suggestion.edited(A, edits), undefined);
    assert.equal(suggestion.edited(A, insert(10, "range")), undefined);
  });
}
test("an edit of another document leaves it alone", () => {
  const suggestion = shown("range(10)");
  assert.equal(suggestion.edited("file:///b.py", insert(10, "xy")), undefined);
  assert.deepEqual(suggestion.edited(A, insert(10, "range")), { item: "item", acceptedLength: 5 });
});
test("the rest of what was seen is not another suggestion", () => {
  const suggestion = new ShownSuggestion<string>();
  assert.equal(suggestion.show(A, 10, "range(10)", 0, "one"), true);
  assert.equal(suggestion.show(A, 10, "range(10)", 0, "same"), false);
  suggestion.edited(A, insert(10, "r"));
  assert.equal(suggestion.show(A, 11, "ange(10)", 0, "rest"), false);
  assert.equal(suggestion.show(A, 10, "range(10)", 1, "rest, from its start"), false);
  assert.equal(suggestion.show(A, 11, "ange(11)", 0, "other"), true);
  assert.equal(suggestion.show("file:///b.py", 11, "ange(11)", 0, "elsewhere"), true);
  suggestion.clear();
  assert.equal(suggestion.show("file:///b.py", 11, "ange(11)", 0, "again"), true);
});
test("lengths count what stood there before the cursor", () => {
  const suggestion = new ShownSuggestion<string>();
  suggestion.show(A, 8, "in range(10)", 2, "item");
  assert.deepEqual(suggestion.edited(A, insert(10, " range")), { item: "item", acceptedLength: 8 });
});
for (const [text, key] of [
  ["\n    return 1", "\n    "],
  ["\r\n\treturn 1", "\r\n\t"],
  ["\n    \n} else {", "\n    \n"],
  ["    return 1", "    "],
  ["(): pass", "()"],
  ["{} or 1", "{}"],
  ['"", 1', '""'],
  ["😀 = 1", "😀"],
] as const) {
  test(`one key puts in ${JSON.stringify(key)}: that is typing`, () => {
    const suggestion = shown(text);
    assert.equal(suggestion.edited(A, insert(10, key)), undefined);
    const acceptedLength = text.length - 1;
    const rest = text.slice(key.length, acceptedLength);
    assert.deepEqual(suggestion.edited(A, insert(10 + key.length, rest)), { item: "item", acceptedLength });
  });
}
for (const text of ["()[", "re", "\n  x", "):"]) {
  test(`no one key puts in ${JSON.stringify(text)}: that is accepting`, () => {
    const suggestion = shown(`${text} and more`);
    assert.deepEqual(suggestion.edited(A, insert(10, text)), { item: "item", acceptedLength: text.length });
  });
}
