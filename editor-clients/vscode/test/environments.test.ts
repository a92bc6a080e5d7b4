import assert from "node:assert/strict";
import fs from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { test, type TestContext } from "node:test";
import { addEnvironment, currentEnvironment, currentStamp, removeOldEnvironments } from "../src/environments";

const STAMP = { source: "keystate.whl", bundledIn: "1.0.0" };
const DAY_MS = 24 * 3_600_000;

async function storage(t: TestContext): Promise<string> {
  const folder = await fs.mkdtemp(join(tmpdir(), "keystate-"));
  t.after(() => fs.rm(folder, { recursive: true }));
  // VS Code makes the folder of an extension no sooner than it is needed.
  return join(folder, "storage");
}
const fill = (folder: string) => fs.writeFile(join(folder, "python"), "");
const breakDown = async (folder: string) => {
  await fill(folder);
  throw new Error("no network");
};

test("nothing is there before the first", async (t) => {
  const inside = await storage(t);
  assert.equal(currentEnvironment(inside), undefined);
  assert.equal(currentStamp(inside), undefined);
  assert.deepEqual(await removeOldEnvironments(inside, Date.now()), []);
});
test("one counts once it is complete", async (t) => {
  const inside = await storage(t);
  await addEnvironment(inside, STAMP, async (folder) => {
    await fill(folder);
    assert.equal(currentEnvironment(inside), undefined);
  });
  assert.equal(currentEnvironment(inside), join(inside, "server"));
  assert.deepEqual(currentStamp(inside), STAMP);
});
test("the one before is whole while another is made, and removed afterwards", async (t) => {
  const inside = await storage(t);
  await addEnvironment(inside, STAMP, fill);
  await addEnvironment(inside, { source: "newer.whl" }, async (folder) => {
    await fill(folder);
    assert.deepEqual(await fs.readdir(join(inside, "server")), ["installed.json", "python"]);
    assert.equal(currentEnvironment(inside), join(inside, "server"));
    assert.deepEqual(await removeOldEnvironments(inside, Date.now()), []);
  });
  assert.equal(currentStamp(inside)?.source, "newer.whl");
  await removeOldEnvironments(inside, Date.now());
  assert.deepEqual(await fs.readdir(inside), ["server-2"]);
});
test("numbers are compared as numbers", async (t) => {
  const inside = await storage(t);
  for (let i = 0; i < 10; i++) {
    await addEnvironment(inside, STAMP, fill);
  }
  assert.equal(basename(currentEnvironment(inside) ?? ""), "server-10");
});
test("a failure leaves the one before as it was, and nothing of its own", async (t) => {
  const inside = await storage(t);
  await addEnvironment(inside, STAMP, fill);
  await assert.rejects(addEnvironment(inside, { source: "newer.whl" }, breakDown), /no network/);
  assert.deepEqual(await fs.readdir(inside), ["server"]);
  assert.deepEqual(await fs.readdir(join(inside, "server")), ["installed.json", "python"]);
  assert.deepEqual(currentStamp(inside), STAMP);
});
test("a failure is told even where its files are in use", async (t) => {
  const inside = await storage(t);
  const inUse = t.mock.method(fs, "rm", () => Promise.reject(new Error("EBUSY")));
  await assert.rejects(addEnvironment(inside, STAMP, breakDown), /no network/);
  assert.equal(inUse.mock.callCount(), 1);
  assert.equal(currentEnvironment(inside), undefined);
  inUse.mock.restore();
  // The next one does not write into what is left.
  await addEnvironment(inside, STAMP, async (folder) => {
    assert.deepEqual(await fs.readdir(folder), []);
  });
});
test("two windows that install do not meet", async (t) => {
  const inside = await storage(t);
  await addEnvironment(inside, STAMP, async (folder) => {
    await fill(folder);
    await addEnvironment(inside, { source: "the other window's" }, fill);
    await removeOldEnvironments(inside, Date.now());
    assert.deepEqual(await fs.readdir(folder), ["python"]);
  });
  assert.equal(currentStamp(inside)?.source, "the other window's");
});
test("what a crash left is removed a day later", async (t) => {
  const inside = await storage(t);
  await fs.mkdir(join(inside, "server"), { recursive: true });
  await fs.mkdir(join(inside, "something else"));
  const nowMs = Date.now();
  await removeOldEnvironments(inside, nowMs);
  assert.deepEqual(await fs.readdir(inside), ["server", "something else"]);
  await removeOldEnvironments(inside, nowMs + DAY_MS + 1000);
  assert.deepEqual(await fs.readdir(inside), ["something else"]);
});
test("an old one whose files are in use is told of, and keeps no other", async (t) => {
  const inside = await storage(t);
  for (const source of ["one", "two", "three"]) {
    await addEnvironment(inside, { source }, fill);
  }
  const { rm } = fs;
  t.mock.method(fs, "rm", (folder: string, options: object) =>
    basename(folder) === "server" ? Promise.reject(new Error("EBUSY")) : rm(folder, options),
  );
  assert.match(String(await removeOldEnvironments(inside, Date.now())), /EBUSY/);
  assert.deepEqual(await fs.readdir(inside), ["server", "server-3"]);
});
test("a stamp that cannot be read says nothing", async (t) => {
  const inside = await storage(t);
  await addEnvironment(inside, STAMP, fill);
  await fs.writeFile(join(inside, "server", "installed.json"), "{");
  assert.equal(currentStamp(inside), undefined);
});
