import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { listSetting, serverSettings, START_KEYS } from "../src/settings";

interface Manifest {
  capabilities: { untrustedWorkspaces: { restrictedConfigurations: string[] } };
  contributes: {
    commands: { command: string }[];
    configuration: { properties: Record<string, { scope: string; default: unknown; description?: string; markdownDescription?: string }> }[];
  };
}
const manifest = JSON.parse(readFileSync("package.json", "utf8")) as Manifest;
const properties = Object.assign({}, ...manifest.contributes.configuration.map((part) => part.properties)) as Manifest["contributes"]["configuration"][0]["properties"];

test("what is empty is left to the server", () => {
  const values: Record<string, unknown> = { model: "", device: "auto", threads: null, deadlineMs: 300, saveStates: false };
  assert.deepEqual(serverSettings((key) => values[key]), { device: "auto", deadlineMs: 300, saveStates: false });
});
test("nothing of the client's own goes to the server", () => {
  assert.equal("serverCommand" in serverSettings(() => 1), false);
  for (const key of Object.keys(serverSettings(() => 1))) {
    assert.ok(`keystate.${key}` in properties, `keystate.${key} is no setting`);
  }
});
test("what a workspace must not set is machine-scoped, and restricted", () => {
  const restricted = manifest.capabilities.untrustedWorkspaces.restrictedConfigurations.toSorted();
  const machine = Object.keys(properties).filter((name) => properties[name]?.scope === "machine");
  assert.deepEqual(machine.toSorted(), restricted);
  for (const name of ["serverCommand", "python", "serverSource", "pipArguments", "model", "readWorkspace"]) {
    assert.ok(restricted.includes(`keystate.${name}`), name);
  }
});
test("what a start takes, no workspace sets", () => {
  for (const key of START_KEYS) {
    assert.equal(properties[`keystate.${key}`]?.scope, "machine", key);
  }
});
test("whether to share an engine is left to the server, which is told so", () => {
  assert.equal(properties["keystate.shareEngine"]?.default, "auto");
  const values: Record<string, unknown> = { shareEngine: "auto" };
  assert.deepEqual(serverSettings((key) => values[key]), { shareEngine: "auto" });
  assert.ok(START_KEYS.includes("shareEngine"));
});
test("every setting has a description", () => {
  for (const [name, property] of Object.entries(properties)) {
    assert.ok((property.description ?? property.markdownDescription ?? "").length > 20, name);
  }
});
test("lists of strings are taken as they are, and empty where nothing is set", () => {
  assert.deepEqual(listSetting(() => ["/x/keystate", "serve"], "serverCommand"), ["/x/keystate", "serve"]);
  assert.deepEqual([undefined, null, []].map((value) => listSetting(() => value, "serverCommand")), [[], [], []]);
});
for (const value of ["/x/keystate serve", ["keystate", 1], { command: "keystate" }, true]) {
  test(`${JSON.stringify(value)} is no list of strings, and the message says so`, () => {
    assert.throws(
      () => listSetting(() => value, "serverCommand"),
      ({ message }: Error) =>
        message.includes(`keystate.serverCommand is ${JSON.stringify(value)}`) &&
        message.includes('an array of strings, such as ["/home/me/keystate/.venv/bin/keystate","serve"]'),
    );
  });
}
