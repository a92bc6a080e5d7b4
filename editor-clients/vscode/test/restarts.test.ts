import assert from "node:assert/strict";
import { test } from "node:test";
import { RestartBudget } from "../src/restarts";

test("a few deaths within the window, and no more", () => {
  const budget = new RestartBudget(2, 1000);
  assert.deepEqual([0, 10, 20].map((ms) => budget.mayRestart(ms)), [true, true, false]);
});
test("old deaths are forgotten", () => {
  const budget = new RestartBudget(2, 1000);
  assert.deepEqual([0, 10, 1000, 2000].map((ms) => budget.mayRestart(ms)), [true, true, true, true]);
});
test("starting by hand forgives", () => {
  const budget = new RestartBudget(1, 1000);
  budget.mayRestart(0);
  budget.reset();
  assert.equal(budget.mayRestart(1), true);
});
