import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  ENTRY_KIND,
  Entry,
  entryAt,
  entrySize,
  writeEntry,
} from "../../../../gateway/streams/stores/log-entry.ts";

const HEAD = {
  kind: ENTRY_KIND.records,
  generation: 3,
  number: 1,
  arrivalMs: 4,
  recordsBefore: 5,
  groupOffset: 0,
} as const;
const SHARD = fc.integer({ min: 0, max: 5_000 });
const PARTS = fc.uniqueArray(
  fc.record(
    {
      shard: SHARD,
      first: fc.nat({ max: Number.MAX_SAFE_INTEGER }),
      count: fc.nat({ max: 0xffff_ffff }),
      batch: fc.uint8Array({ maxLength: 40 }),
    },
    { noNullPrototype: true },
  ),
  { selector: ({ shard }) => shard, maxLength: 50 },
);

test("the part of a shard is that of all parts which is of this shard", () => {
  fc.assert(
    fc.property(PARTS, SHARD, (parts, other) => {
      const arena = Buffer.alloc(entrySize(undefined, parts));
      writeEntry(arena, 0, HEAD, undefined, parts);
      const entry = entryAt(arena, 0, HEAD.generation);
      assert.ok(entry instanceof Entry);
      const plain = entry.parts();
      assert.deepEqual(
        plain.map(({ batch, ...rest }) => ({ ...rest, batch: Uint8Array.from(batch) })),
        parts,
      );
      for (const shard of [other, ...parts.map((part) => part.shard)]) {
        assert.deepEqual(
          entry.partOf(shard),
          plain.find((part) => part.shard === shard),
        );
      }
    }),
  );
});
