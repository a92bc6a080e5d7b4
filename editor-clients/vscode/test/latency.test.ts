import assert from "node:assert/strict";
import { test } from "node:test";
import { latencyPage, type Timing } from "../src/latency";

function timing(id: number, total: number, stop = "line"): Timing {
  return { id, uri: "file:///a.py", stop, timings_ms: { parse: 1, total }, prompt_kind: "epoch", tokens: { prompt: 900, recomputed: 2 } };
}

test("nothing yet", () => {
  assert.match(latencyPage([timing(1, 5, "loading")], "keystate: m on cpu"), /No suggestion was asked for yet/);
});
test("percentiles by stage, and the newest first", () => {
  const timings = Array.from({ length: 100 }, (_, i) => timing(i, i + 1));
  const page = latencyPage(timings, "keystate: m on cpu").split("\n");
  assert.equal(page[0], "keystate: m on cpu");
  assert.ok(page.includes("total      50.0      95.0     100.0"), page.join("\n"));
  assert.ok(page.includes("parse       1.0       1.0       1.0"));
  const newest = page.indexOf("The newest first:") + 3;
  assert.match(page[newest] ?? "", /^ +100\.0 +epoch +900 +2 +line$/);
  assert.match(page[newest + 99] ?? "", /^ +1\.0 /);
});
