import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test from "node:test";
import fc from "fast-check";
import { equalRanges, ShardMap } from "../../../gateway/streams/shard-map.ts";
import { MAX_HASH, partitionHash } from "../../../gateway/streams/streams.ts";

test("a partition key's hash is its MD5", () => {
  // RFC 1321 appendix A.5.
  assert.equal(partitionHash("abc"), 0x900150983cd24fb0d6963f7d28e17f72n);
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), (key) => {
      assert.equal(partitionHash(key), BigInt(`0x${createHash("md5").update(key, "utf8").digest("hex")}`));
    }),
  );
});

test("equal ranges cover all hashes without gap or overlap", () => {
  assert.equal(MAX_HASH, 2n ** 128n - 1n);
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 300 }), (count) => {
      const ranges = equalRanges(count);
      assert.equal(ranges[0]!.hashFrom, 0n);
      assert.equal(ranges.at(-1)!.hashTo, MAX_HASH);
      for (let i = 1; i < count; i++) assert.equal(ranges[i]!.hashFrom, ranges[i - 1]!.hashTo + 1n);
    }),
  );
  for (const count of [0, 1.5]) assert.throws(() => equalRanges(count), /a stream has at least one shard/);
});

test("each hash falls into the one shard whose range holds it, cached or not", () => {
  const cuts = fc.uniqueArray(fc.bigInt({ min: 1n, max: MAX_HASH }), { maxLength: 20 });
  fc.assert(
    fc.property(
      cuts,
      fc.array(fc.string()),
      fc.bigInt({ min: 0n, max: MAX_HASH }),
      (unsorted, keys, hash) => {
        const starts = [0n, ...unsorted.sort((a, b) => (a < b ? -1 : 1))];
        const shards = starts.map((hashFrom, i) => {
          const hashTo = i + 1 < starts.length ? starts[i + 1]! - 1n : MAX_HASH;
          return { index: 1_000 - i, hashFrom, hashTo };
        });
        const map = new ShardMap(shards);
        const owner = (at: bigint) =>
          shards.find(({ hashFrom, hashTo }) => hashFrom <= at && at <= hashTo)!.index;
        assert.equal(map.shardOfHash(hash), owner(hash));
        for (const key of [...keys, ...keys]) assert.equal(map.shardOfKey(key), owner(partitionHash(key)));
        for (const at of unsorted) assert.equal(map.shardOfHash(at), owner(at));
        // Each range's first hash and the last one before it, as words, behind others.
        for (const at of [hash, ...starts, ...starts.slice(1).map((start) => start - 1n), MAX_HASH]) {
          const words = [96n, 64n, 32n, 0n].map((shift) => Number((at >> shift) & 0xffff_ffffn));
          const place = map.placeOfWords(Uint32Array.of(7, 7, ...words), 2);
          assert.equal(map.indexAt(place), owner(at));
          assert.equal(map.placeOfHash(at), place);
        }
      },
    ),
  );
});

test("ranges that leave a gap are a bug, and so is a hash of more bits", () => {
  const whole = new ShardMap([{ index: 0, hashFrom: 0n, hashTo: MAX_HASH }]);
  for (const hash of [-1n, MAX_HASH + 1n]) assert.throws(() => whole.shardOfHash(hash), /broken invariant/);
  assert.throws(() => new ShardMap([{ index: 0, hashFrom: 1n, hashTo: MAX_HASH }]), /broken invariant/);
  assert.throws(() => new ShardMap([{ index: 0, hashFrom: 0n, hashTo: 5n }]), /broken invariant/);
});
