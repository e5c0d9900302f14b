/** Columns are routed as entries are. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { equalRanges, MAX_HASH, ShardMap } from "../../../../../gateway/streams/shard-map.ts";
import { routeColumns } from "../../../../../gateway/streams/stores/local/route-columns.ts";
import { routeEntries } from "../../../../../gateway/streams/stores/routing.ts";
import {
  BadEntryError,
  keyHashWords,
  type PutColumns,
  type PutEntry,
} from "../../../../../gateway/streams/streams.ts";

export function columnsOf(entries: readonly PutEntry[]): PutColumns {
  const data = Buffer.concat(entries.map((entry) => entry.data));
  let end = 0;
  return {
    count: entries.length,
    keys: entries.map((entry) => entry.partitionKey),
    hashes: entries.some((entry) => entry.explicitHash !== undefined)
      ? entries.map((entry) => entry.explicitHash)
      : undefined,
    data,
    ends: Uint32Array.from(entries, (entry) => {
      end += entry.data.length;
      return end;
    }),
  };
}

const key = fc.oneof(
  fc.constantFrom("a", "b", "käse", "日本"),
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 40 }),
);
const entry = fc
  .record({
    partitionKey: key,
    data: fc.uint8Array({ maxLength: 60 }),
    hash: fc.option(fc.bigInt({ min: 0n, max: MAX_HASH }), { nil: undefined, freq: 3 }),
  })
  .map(
    ({ partitionKey, data, hash }): PutEntry => ({
      partitionKey,
      data,
      ...(hash !== undefined && { explicitHash: hash }),
    }),
  );

/** Once by the keys, and once by the words of their hashes, where that may be. */
function sameAsEntries(list: readonly PutEntry[], shards: ShardMap, timeUs: number): void {
  const plain = routeEntries(list, shards, timeUs);
  const columns = columnsOf(list);
  const variants = columns.hashes === undefined ? [columns, withWords(columns)] : [columns];
  for (const variant of variants) {
    const routed = routeColumns(variant, shards, timeUs);
    assert.deepEqual(
      routed.parts.map((part) => ({ ...part, batch: Buffer.from(part.batch) })),
      plain.parts.map((part) => ({ ...part, batch: Buffer.from(part.batch) })),
    );
    const places = Array.from(routed.partOf, (part, i) => ({ part, index: routed.indexIn[i]! }));
    assert.deepEqual(places, [...plain.places]);
  }
}

function withWords(columns: PutColumns): PutColumns {
  const hashWords = new Uint32Array(columns.count * 4);
  for (const [i, key] of columns.keys.entries()) keyHashWords(key, hashWords.subarray(i * 4, i * 4 + 4));
  return { ...columns, hashWords };
}

const shardsOf = (count: number): ShardMap =>
  new ShardMap(equalRanges(count).map((range, index) => ({ ...range, index })));

test("columns give the same batches, to the byte, and the same places as entries", () => {
  const entries = fc.array(entry, { minLength: 1, maxLength: 60 });
  fc.assert(
    fc.property(entries, fc.integer({ min: 1, max: 9 }), fc.maxSafeInteger(), (list, count, time) =>
      sameAsEntries(list, shardsOf(count), Math.abs(time)),
    ),
    { numRuns: 500 },
  );
});

test("so do many records, large ones, and more shards than the last time", () => {
  const of = (count: number, size: number): PutEntry[] =>
    Array.from({ length: count }, (_, i) => ({
      partitionKey: `device-${i % 600}`,
      data: Buffer.alloc(size + (i % 5), i),
    }));
  for (const shards of [1, 4, 300]) {
    sameAsEntries(of(1_300, 200), shardsOf(shards), 1_700_000_000_000_001);
    sameAsEntries(of(20, 10_000), shardsOf(shards), 0);
    sameAsEntries(of(6, 1_048_000), shardsOf(shards), 5);
  }
});

test("a key or a hash beyond the limits is refused", () => {
  const shards = new ShardMap(equalRanges(2).map((range, index) => ({ ...range, index })));
  const refused = (bad: PutEntry) =>
    assert.throws(() => routeColumns(columnsOf([bad]), shards, 1), BadEntryError);
  refused({ partitionKey: "", data: Buffer.from("x") });
  refused({ partitionKey: "k".repeat(1_025), data: Buffer.from("x") });
  refused({ partitionKey: "k", data: Buffer.from("x"), explicitHash: MAX_HASH + 1n });
});
