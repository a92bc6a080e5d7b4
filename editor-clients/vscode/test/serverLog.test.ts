import assert from "node:assert/strict";
import { test } from "node:test";
import { type Level, serverLog } from "../src/serverLog";

test("each line keeps its level, and a traceback that of its first line", () => {
  const written: [Level, string][] = [];
  const take = serverLog((level, text) => written.push([level, text]));
  take("No module named keystate");
  take("2026-11-22 06:40:11,582 INFO lsp_server.server: ready: embedded on cpu");
  take("2026-11-22 06:40:12,001 WARNING lsp_server.server: the engine did not answer in time");
  take("2026-11-22 06:40:12,002 ERROR lsp_server.server: could not read ahead");
  take("Traceback (most recent call last):");
  take("2026-11-22 06:40:13,000 DEBUG lsp_server.server: more");
  assert.deepEqual(written, [
    ["error", "No module named keystate"],
    ["info", "lsp_server.server: ready: embedded on cpu"],
    ["warn", "lsp_server.server: the engine did not answer in time"],
    ["error", "lsp_server.server: could not read ahead"],
    ["error", "Traceback (most recent call last):"],
    ["debug", "lsp_server.server: more"],
  ]);
});
