import assert from "node:assert/strict";
import { test } from "node:test";
import { Lives, RestartBudget } from "../src/restarts";

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
test("a server that dies while it starts has one end", () => {
  const lives = new Lives();
  lives.next();
  const life = lives.current;
  assert.equal(lives.isNewEnd(life), true, "it died");
  assert.equal(lives.isNewEnd(life), false, "so its start failed");
  lives.next();
  assert.equal(lives.isNewEnd(lives.current), true, "the next one has an end of its own");
});
test("the end of a server that was stopped is no news", () => {
  const lives = new Lives();
  const life = lives.current;
  lives.next();
  assert.equal(lives.isNewEnd(life), false);
  assert.equal(lives.isNewEnd(lives.current), true);
});
