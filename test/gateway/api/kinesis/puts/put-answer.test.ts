/** The answer that is written as bytes says what the plain one would. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { shardIdOf } from "../../../../../gateway/api/kinesis/account.ts";
import { putAnswer } from "../../../../../gateway/api/kinesis/puts/put-answer.ts";
import { type Codec, cborCodec, jsonCodec } from "../../../../../gateway/api/kinesis/wire/codec.ts";
import { formatSequenceNumber, type PlacedColumns } from "../../../../../gateway/streams/streams.ts";

/** Of a stream whose shards were made one after the other. */
const createdOf = (streamMs: number) => (shard: number) => streamMs + shard * 1_000;

function plain(placed: PlacedColumns, created: (shard: number) => number): object[] {
  return Array.from(placed.shards, (shardIndex, i) => ({
    SequenceNumber: formatSequenceNumber({
      shardCreatedMs: created(shardIndex),
      shardIndex,
      offset: placed.offsets[i]!,
      arrivalMs: placed.arrivalMs,
    }),
    ShardId: shardIdOf(shardIndex),
  }));
}

function decoded(answer: string | Buffer, codec: Codec): unknown {
  const bytes = Buffer.from(answer);
  if (codec.name === "json") return JSON.parse(bytes.toString("utf8"));
  return JSON.parse(JSON.stringify(codec.decode(bytes)));
}

const place = fc.tuple(
  fc.oneof(
    fc.integer({ min: 0, max: 5 }),
    // Shards that share a place in the memory of numbers, and the largest that there are.
    fc.constantFrom(1_024, 2_049, 9_999, 10_000, 10_001, 123_456_789, 0x7fff_ffff),
  ),
  fc.oneof(fc.nat(50), fc.maxSafeInteger().map(Math.abs)),
);
const placed = fc.tuple(fc.array(place, { minLength: 1, maxLength: 40 }), fc.nat(2_000_000_000)).map(
  ([places, seconds]): PlacedColumns => ({
    arrivalMs: seconds * 1_000 + 7,
    shards: Uint32Array.from(places, ([shard]) => shard),
    offsets: Float64Array.from(places, ([, offset]) => offset),
  }),
);

for (const codec of [jsonCodec, cborCodec]) {
  test(`in ${codec.name}, of shards and streams that take turns`, () => {
    fc.assert(
      fc.property(placed, fc.constantFrom(0, 1_700_000_000_000), (where, streamMs) => {
        const answer = putAnswer(where, createdOf(streamMs), undefined, codec);
        assert.deepEqual(decoded(answer, codec), {
          FailedRecordCount: 0,
          Records: plain(where, createdOf(streamMs)),
        });
      }),
      { numRuns: 500 },
    );
  });

  test(`in ${codec.name}, with records that were refused`, () => {
    const where = {
      arrivalMs: 1_700_000_000_000,
      shards: Uint32Array.of(1, 1),
      offsets: Float64Array.of(8, 9),
    };
    const refused = { by: Int32Array.of(-1, 3, -1), count: 1, message: (shard: number) => `shard ${shard}` };
    const [first, second] = plain(where, createdOf(0));
    assert.deepEqual(decoded(putAnswer(where, createdOf(0), refused, codec), codec), {
      FailedRecordCount: 1,
      Records: [
        first,
        { ErrorCode: "ProvisionedThroughputExceededException", ErrorMessage: "shard 3" },
        second,
      ],
    });
  });
}
