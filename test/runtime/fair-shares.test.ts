import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { FairShares, firstToGo } from "../../runtime/fair-shares.ts";

const MAX = 60;
const names = fc.array(fc.constantFrom("a", "b", "c", "d"), { minLength: MAX, maxLength: 4 * MAX });

/** How many each gets of those that it asks for, one after the other. */
function taken(shares: FairShares, asked: readonly string[]): Map<string, number> {
  const got = new Map<string, number>();
  for (const who of asked) if (shares.take(who)) got.set(who, (got.get(who) ?? 0) + 1);
  return got;
}

test("alone one gets three quarters, and however many take what they can, another gets some", () => {
  assert.equal(taken(new FairShares(MAX), new Array(MAX).fill("a")).get("a"), 45);
  fc.assert(
    fc.property(names, (asked) => {
      const shares = new FairShares(MAX);
      taken(shares, asked);
      assert.ok(shares.take("another"));
    }),
  );
});

test("where all have one, each place is used; what was given back can be taken again", () => {
  const shares = new FairShares(MAX);
  const all = Array.from({ length: MAX }, (_, i) => String(i));
  assert.equal(taken(shares, all).size, MAX);
  assert.ok(!shares.take("late"));
  shares.give("7");
  assert.ok(shares.take("late"));
});

test("of a full house a stranger or one beyond its share goes, the oldest first", () => {
  const whoseOf = (place: string) => (place === "?" ? undefined : place);
  assert.equal(firstToGo(["a", "b", "?", "?"], 4, whoseOf), "?");
  const places = Array.from({ length: 8 }, (_, i) => ({ i, who: i === 7 ? "b" : "a" }));
  assert.equal(firstToGo(places, 8, ({ who }) => who)?.i, 6);
  assert.equal(firstToGo(["a", "b", "c"], 3, whoseOf), undefined);
});
