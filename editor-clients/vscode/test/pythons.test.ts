import assert from "node:assert/strict";
import { test } from "node:test";
import { candidates, isNewEnough, pipProgress } from "../src/pythons";

for (const [output, expected] of [
  ["Python 3.11.2\n", true],
  ["Python 3.14.0rc1", true],
  ["Python 4.0.0", true],
  ["Python 3.10.9", false],
  ["Python 3.9.9", false],
  ["Python 2.7.18", false],
  ["zsh: not found", false],
  ["", false],
] as const) {
  test(`${JSON.stringify(output)} is ${expected ? "" : "not "}new enough`, () => {
    assert.equal(isNewEnough(output), expected);
  });
}
test("a setting is tried alone", () => {
  assert.deepEqual(candidates("/opt/python", "linux"), [["/opt/python"]]);
  assert.deepEqual(candidates("", "win32")[0], ["py", "-3"]);
});
for (const [line, expected] of [
  ["Collecting torch>=2.7 (from keystate==0.1.0)", "looking for torch"],
  ["  Downloading torch-2.9.0-cp311-none-linux_x86_64.whl.metadata (30 kB)", "downloading torch (30 kB)"],
  ["Downloading https://host/whl/torch-2.9.0-cp311.whl (180.1 MB)", "downloading torch (180.1 MB)"],
  ["Downloading tree_sitter-0.25.2-cp311.whl", "downloading tree_sitter"],
  ["Installing collected packages: a, b", "unpacking, which takes minutes"],
  ["Requirement already satisfied: torch", undefined],
] as const) {
  test(`pip: ${line}`, () => {
    assert.equal(pipProgress(line), expected);
  });
}
