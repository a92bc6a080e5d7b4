import assert from "node:assert/strict";
import { test } from "node:test";
import { CursorMoves, endOf, type Position } from "../src/cursorMoves";

const A = "file:///a.py";
const at = (line: number, character: number): Position => ({ line, character });

function watch(t: { mock: { timers: { enable(options: { apis: ["setTimeout"] }): void } } }) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const told: [string, Position][] = [];
  return { told, moves: new CursorMoves((uri, position) => told.push([uri, position]), 80) };
}

test("tells where the cursor rests, once", (t) => {
  const { told, moves } = watch(t);
  moves.moved(A, at(1, 0));
  t.mock.timers.tick(79);
  moves.moved(A, at(2, 0));
  t.mock.timers.tick(79);
  assert.deepEqual(told, []);
  t.mock.timers.tick(1);
  moves.moved(A, at(2, 0));
  t.mock.timers.tick(80);
  assert.deepEqual(told, [[A, at(2, 0)]]);
});
test("the cursor behind what was typed is no news", (t) => {
  const { told, moves } = watch(t);
  moves.edited(A, { start: at(3, 4), text: "x" });
  moves.moved(A, at(3, 5));
  t.mock.timers.tick(80);
  assert.deepEqual(told, []);
});
test("elsewhere after an edit is", (t) => {
  const { told, moves } = watch(t);
  moves.edited(A, { start: at(3, 4), text: "()" });
  moves.moved(A, at(3, 5));
  t.mock.timers.tick(80);
  assert.deepEqual(told, [[A, at(3, 5)]]);
});
test("an edit takes back what was to be told", (t) => {
  const { told, moves } = watch(t);
  moves.moved(A, at(1, 0));
  moves.edited(A, { start: at(1, 0), text: "x" });
  t.mock.timers.tick(80);
  assert.deepEqual(told, []);
});
test("the same position of another document is news", (t) => {
  const { told, moves } = watch(t);
  moves.edited(A, { start: at(3, 4), text: "x" });
  moves.moved("file:///b.py", at(3, 5));
  t.mock.timers.tick(80);
  assert.deepEqual(told, [["file:///b.py", at(3, 5)]]);
});
for (const [text, end] of [
  ["", at(3, 4)],
  ["ab", at(3, 6)],
  ["a\nbc", at(4, 2)],
  ["a\r\n\r\n", at(5, 0)],
  ["😀", at(3, 6)],
] as const) {
  test(`${JSON.stringify(text)} put in at 3:4 ends at ${end.line}:${end.character}`, () => {
    assert.deepEqual(endOf({ start: at(3, 4), text }), end);
  });
}
