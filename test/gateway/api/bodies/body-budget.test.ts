import assert from "node:assert/strict";
import test from "node:test";
import { BodyBudget, type BodyHolder } from "../../../../gateway/api/bodies/body-budget.ts";

const MAX_BYTES = 1_000_000;
const PIECE_BYTES = 100;

/** As much as it may have. @returns how much that is */
function fill(budget: BodyBudget, holder: BodyHolder): number {
  while (budget.take(PIECE_BYTES, holder));
  return holder.heldBytes;
}

test("who holds bodies alone may hold four fifths of the memory for them", () => {
  const budget = new BodyBudget(MAX_BYTES);
  assert.equal(fill(budget, budget.prove({}, "A")), MAX_BYTES * 0.8);
  assert.equal(budget.usedBytes, MAX_BYTES * 0.8);
});

test("strangers hold half of it, or half of what those leave who are known", () => {
  const budget = new BodyBudget(MAX_BYTES);
  assert.equal(fill(budget, budget.strangers), MAX_BYTES / 2);
  budget.give(MAX_BYTES / 2, budget.strangers);
  assert.equal(fill(budget, budget.prove({}, "A")), MAX_BYTES * 0.8);
  assert.equal(fill(budget, budget.strangers), MAX_BYTES * 0.1);
});

test("however many hold all that they may, there is room for one more", () => {
  const budget = new BodyBudget(MAX_BYTES);
  fill(budget, budget.strangers);
  for (let key = 0; key < 5; key++) {
    const held = fill(budget, budget.prove({}, `key ${key}`));
    assert.ok(held > 0, `key ${key} holds ${held}`);
  }
  assert.ok(budget.usedBytes < MAX_BYTES);
});

test("who held all that it might gets no more while others hold theirs, and then as much as they do", () => {
  const budget = new BodyBudget(MAX_BYTES);
  const first = budget.prove({}, "A");
  const second = budget.prove({}, "B");
  fill(budget, first);
  fill(budget, second);
  assert.ok(first.heldBytes > second.heldBytes);
  for (let turn = 0; turn < 1_000; turn++) {
    budget.give(10 * PIECE_BYTES, first);
    fill(budget, second);
    fill(budget, first);
  }
  assert.ok(Math.abs(first.heldBytes - second.heldBytes) <= MAX_BYTES / 100);
});

test("bodies count for the key that the connection proved last, on however many connections", () => {
  const budget = new BodyBudget(MAX_BYTES);
  const [one, other] = [{}, {}];
  assert.equal(budget.holderOf(one), budget.strangers);
  const holder = budget.prove(one, "A");
  assert.equal(budget.prove(other, "A"), holder);
  assert.equal(budget.holderOf(one), holder);
  budget.prove(one, "B");
  assert.notEqual(budget.holderOf(one), holder);
  assert.equal(budget.holderOf(other), holder);
});
