/** A place that is remembered is the one that was put there, of that segment, shard and offset. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { ReadPlaces } from "../../../../../../gateway/streams/stores/local/log/read-places.ts";
import { Segment } from "../../../../../../gateway/streams/stores/local/segments/segment.ts";
import { oldGarbageOf } from "../../../../../support/old-garbage.ts";

const segments = [0, 1, 2].map((base) => new Segment("/nowhere", base, base + 1));
const step = fc.record({
  put: fc.boolean(),
  segment: fc.nat(segments.length - 1),
  shard: fc.nat(4_000),
  offset: fc.oneof(fc.nat(50), fc.maxSafeNat()),
});

test("what is taken is what was put last, or nothing", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 600 }), (steps) => {
      const places = new ReadPlaces();
      const plain = new Map<string, { segment: number; position: number }>();
      for (const [position, { put, segment, shard, offset }] of steps.entries()) {
        const key = `${shard} ${offset}`;
        if (put) {
          places.put(segments[segment]!, shard, offset, position);
          plain.set(key, { segment, position });
          continue;
        }
        const known = plain.get(key);
        const found = places.take(segments[segment]!, shard, offset);
        // It may have been written over since.
        if (found >= 0) assert.deepEqual(known, { segment, position: found });
        assert.equal(places.take(segments[segment]!, shard, offset), -1, "it was taken");
        plain.delete(key);
      }
    }),
  );
});

test("readers who go on at once are remembered: all of 8, nearly all of 256, most of 512", () => {
  for (const [readers, most] of [
    [8, 0],
    [256, 0.03],
    [512, 0.15],
  ] as const) {
    const places = new ReadPlaces();
    const at = Array.from({ length: readers }, (_, shard) => shard * 1_000);
    for (const [shard, offset] of at.entries()) places.put(segments[0]!, shard, offset, offset);
    let lost = 0;
    for (let i = 0; i < 100; i++) {
      for (let shard = 0; shard < readers; shard++) {
        if (places.take(segments[0]!, shard, at[shard]!) < 0) lost++;
        at[shard]! += 1 + ((shard * 7 + i * 3) % 20);
        places.put(segments[0]!, shard, at[shard]!, at[shard]!);
      }
    }
    assert.ok(lost <= most * 100 * readers, `${lost} of ${100 * readers}`);
  }
});

test("reading on leaves nothing for collections of the whole heap", async () => {
  const places = new ReadPlaces();
  const bytes = await oldGarbageOf((i) => {
    places.take(segments[0]!, 0, i);
    places.put(segments[0]!, 0, i + 1, i);
    return undefined;
  });
  assert.ok(bytes < 40, `${bytes} bytes each`);
});
