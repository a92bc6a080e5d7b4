import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { serverSettings, START_KEYS } from "../src/settings";

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
  for (const name of ["serverCommand", "python", "serverSource", "pipArguments", "model"]) {
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
