import assert from "node:assert/strict";
import { test } from "node:test";
import type { ClientCapabilities } from "vscode-languageclient/node";
import { HEARS_STATUS, readStatus, statusView } from "../src/status";

test("the server is asked for its status, beside whatever else is asked for", () => {
  const capabilities: ClientCapabilities = { experimental: { other: 1 } };
  HEARS_STATUS.fillClientCapabilities(capabilities);
  assert.deepEqual(capabilities.experimental, { other: 1, keystateStatus: true });
});

test("a status of the right shape is taken, and what else it has is left", () => {
  const given = { kind: "ready", model: "embedded", device: "cpu", message: "", more: 1 };
  assert.deepEqual(readStatus(given), { kind: "ready", model: "embedded", device: "cpu" });
});
for (const given of [undefined, null, "ready", {}, { kind: "stopped" }, { kind: 1 }]) {
  test(`${given === undefined ? "nothing" : JSON.stringify(given)} is no status`, () => {
    assert.equal(readStatus(given), undefined);
  });
}
test("model and device are in the tooltip", () => {
  const view = statusView({ kind: "ready", model: "m", device: "cpu" }, undefined, false);
  assert.deepEqual(view, {
    text: "$(sparkle) keystate",
    tooltip: ["keystate: ready", "Model: m", "Device: cpu", "Click for a menu."],
    isError: false,
  });
});
test("off here says why", () => {
  assert.equal(statusView({ kind: "ready" }, "a diff", true).tooltip[0], "keystate: off: a diff");
});
test("an error shows wherever the user is, with its remedy", () => {
  const view = statusView({ kind: "error", message: "broken. Restart it." }, "a diff", false);
  assert.equal(view.isError, true);
  assert.equal(view.tooltip[0], "keystate: broken. Restart it.");
});
for (const [status, isThinking, icon] of [
  ["stopped", false, "debug-disconnect"],
  ["starting", true, "sync~spin"],
  ["ready", false, "sparkle"],
  ["ready", true, "loading~spin"],
  ["busy", false, "loading~spin"],
  ["off", true, "circle-slash"],
] as const) {
  test(`${status}${isThinking ? ", thinking" : ""}: ${icon}`, () => {
    assert.equal(statusView({ kind: status }, undefined, isThinking).text, `$(${icon}) keystate`);
  });
}
