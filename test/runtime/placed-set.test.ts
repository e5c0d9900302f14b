import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { type Placed, PlacedSet } from "../../runtime/placed-set.ts";
import { oldGarbageOf } from "../support/old-garbage.ts";

test("a placed set holds what a Set holds", () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 8 }), { maxLength: 200 }), (steps) => {
      const ones = Array.from({ length: 9 }, (_, id): Placed & { id: number } => ({ id, place: 0 }));
      const held = new PlacedSet<Placed & { id: number }>();
      const model = new Set<number>();
      for (const id of steps) {
        const one = ones[id]!;
        if (model.delete(id)) held.delete(one);
        else {
          model.add(id);
          held.add(one);
        }
        assert.deepEqual(
          held
            .all()
            .map((each) => each.id)
            .sort(),
          [...model].sort(),
        );
      }
    }),
  );
});

test("a placed set that empties and fills leaves nothing in old space, however old it is", async () => {
  const held = new PlacedSet<Placed>();
  const bytes = await oldGarbageOf(() => {
    const one = { place: 0 };
    held.add(one);
    held.delete(one);
    return undefined;
  });
  assert.ok(bytes < 4, `${bytes} bytes a round`);
});

test("what is deleted while all are gone through is gone through once", () => {
  const held = new PlacedSet<Placed>();
  const ones = Array.from({ length: 5 }, () => ({ place: 0 }));
  for (const one of ones) held.add(one);
  let seen = 0;
  for (const one of held.all()) {
    seen++;
    held.delete(one);
  }
  assert.deepEqual([seen, held.all()], [5, []]);
});
