import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { run } from "../src/processes";

function node(script: string, ...args: string[]): [string, ...string[]] {
  return [process.execPath, "-e", script, ...args];
}

test("lines of both streams, one by one", async () => {
  const lines: string[] = [];
  await run(node("console.log('a\\nb'); console.error('c')"), (line) => lines.push(line));
  assert.deepEqual(lines.sort(), ["a", "b", "c"]);
});
test("a failure says what the program said last", async () => {
  await assert.rejects(
    run(node("console.error('no space left'); process.exit(2)"), () => undefined),
    /no space left/,
  );
});
test("a program that is not there", async () => {
  await assert.rejects(
    run(["/nowhere/python"], () => undefined),
    /ENOENT/,
  );
});
test("one that is aborted has ended when that is told", { skip: process.platform === "win32" }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "keystate-"));
  t.after(() => {
    rmSync(folder, { recursive: true });
  });
  const written = join(folder, "last");
  const aborting = new AbortController();
  const script = `
    process.on("SIGTERM", () => { require("fs").writeFileSync(process.argv[1], ""); process.exit(0); });
    setInterval(() => {}, 1000);
    console.log("ready");`;
  await assert.rejects(
    run(
      node(script, written),
      () => {
        aborting.abort();
      },
      aborting.signal,
    ),
    /aborted/,
  );
  assert.equal(existsSync(written), true);
});
