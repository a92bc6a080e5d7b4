import assert from "node:assert/strict";
import { test } from "node:test";
import { oneAtATime, unawaited } from "../src/promises";

test("work is not begun again while it is under way", async () => {
  const begun: { resolve: (result: string) => void; reject: (error: Error) => void }[] = [];
  const work = oneAtATime(() => new Promise<string>((resolve, reject) => begun.push({ resolve, reject })));
  const both = [work(), work()];
  assert.equal(begun.length, 1);
  begun[0]?.resolve("done");
  assert.deepEqual(await Promise.all(both), ["done", "done"]);
  const third = work();
  assert.equal(begun.length, 2);
  begun[1]?.reject(new Error("failed"));
  await assert.rejects(third, /failed/);
  void work();
  assert.equal(begun.length, 3);
});
test("what goes wrong unawaited is logged", async () => {
  const told = await new Promise<string>((resolve) => {
    unawaited(Promise.reject(new Error("files in use")), { error: resolve });
  });
  assert.equal(told, "Error: files in use");
});
