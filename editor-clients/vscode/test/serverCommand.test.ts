import assert from "node:assert/strict";
import { test } from "node:test";
import { findServer, inEnvironment, type Machine } from "../src/serverCommand";

function machine(path: string, files: string[], platform: NodeJS.Platform = "linux"): Machine {
  return { platform, path, isFile: (file) => files.includes(file) };
}
const INSTALLED = "/storage/server/bin/keystate";

test("a setting wins, with its own arguments", () => {
  const found = findServer(["/x/keystate", "serve", "-v"], INSTALLED, machine("/bin", ["/bin/keystate", INSTALLED]));
  assert.deepEqual(found, { command: "/x/keystate", args: ["serve", "-v"], from: "setting" });
});
for (const setting of [[], [""]]) {
  test(`then the PATH, after ${JSON.stringify(setting)}`, () => {
    const found = findServer(setting, INSTALLED, machine("/usr/bin:/opt/bin", ["/opt/bin/keystate", INSTALLED]));
    assert.deepEqual(found, { command: "/opt/bin/keystate", args: ["serve"], from: "path" });
  });
}
test("then what was installed", () => {
  const found = findServer([], INSTALLED, machine("/bin", [INSTALLED]));
  assert.deepEqual(found, { command: INSTALLED, args: ["serve"], from: "installed" });
});
test("else nothing", () => {
  assert.equal(findServer([], INSTALLED, machine("/bin", [])), undefined);
  assert.equal(findServer([], undefined, machine("/bin", [])), undefined);
});
test("folders of the PATH that depend on the open folder are passed over", () => {
  const everywhere: Machine = { platform: "linux", path: ".:bin::/opt/bin", isFile: () => true };
  assert.equal(findServer([], undefined, everywhere)?.command, "/opt/bin/keystate");
});
test("on Windows", () => {
  const file = "C:\\Tools\\keystate.exe";
  const found = findServer([], undefined, machine("bin;C:\\Windows;C:\\Tools", [file], "win32"));
  assert.equal(found?.command, file);
  assert.equal(inEnvironment("C:\\s", "keystate", "win32"), "C:\\s\\Scripts\\keystate.exe");
});
