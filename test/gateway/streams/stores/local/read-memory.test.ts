/** What was read stays what it is until it is released, whatever others read meanwhile; then its memory is used again. */
import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { LocalStreams } from "../../../../../gateway/streams/stores/local/local.ts";
import { Chunk } from "../../../../../gateway/streams/stores/local/segments/chunk.ts";
import type { LogPart } from "../../../../../gateway/streams/streams.ts";
import { forEachRecord } from "../../../../../protocol/record-batch.ts";
import { makeLocalPlace } from "./local-place.ts";

const MIB = 1_048_576;
const RECORD_BYTES = 30_000;
const RECORDS_AN_APPEND = 100;
/** Three times what the store keeps of what was read. */
const APPENDS = 24;
const SHARDS = 3;
const STREAM = "s";

/** Bytes that tell the records apart, each of them. */
const dataOf = (number: number): Buffer => Buffer.alloc(RECORD_BYTES, `<${number}>`);

async function filled(t: TestContext): Promise<LocalStreams> {
  const place = await makeLocalPlace();
  const streams = await place.open({ segmentBytes: 16 * MIB });
  t.after(async () => {
    await streams.close();
    await place.remove();
  });
  await streams.createStream({ name: STREAM, shards: SHARDS, retentionHours: 24 });
  for (let append = 0; append < APPENDS; append++) {
    const entries = Array.from({ length: RECORDS_AN_APPEND }, (_, i) => {
      const number = append * RECORDS_AN_APPEND + i;
      return { partitionKey: `k${number}`, data: dataOf(number) };
    });
    await streams.append(STREAM, entries);
  }
  return streams;
}

/** @returns how many */
function assertSound(parts: readonly LogPart[]): number {
  let records = 0;
  for (const part of parts) {
    for (const run of part.runs) {
      forEachRecord(run, (payload) => {
        records++;
        const number = /^<(\d+)>/.exec(payload.toString("latin1", 0, 12))?.[1];
        assert.ok(
          number !== undefined && payload.equals(dataOf(Number(number))),
          "a record as it was written",
        );
      });
    }
  }
  return records;
}

const shardIds = (streams: LocalStreams): string[] =>
  streams.describe(STREAM).shardList.map(({ shardId }) => shardId);

test("readers of all places at once find what was written, now and until they release it", async (t) => {
  const streams = await filled(t);
  const ids = shardIds(streams);
  let seen = 0;
  const reader = async (seed: number): Promise<void> => {
    let random = seed;
    const below = (limit: number): number => {
      random = (Math.imul(random, 1_103_515_245) + 12_345) >>> 0;
      return (random >>> 8) % limit;
    };
    for (let i = 0; i < 40; i++) {
      const shard = streams.shard(STREAM, below(SHARDS));
      const from = shard.trimHorizon + below(shard.latest - shard.trimHorizon);
      const { parts, release } = await streams.read(STREAM, ids[shard.index]!, from, 1 + below(2 * MIB));
      for (let turns = below(6); turns > 0; turns--) await nextTurn();
      seen += assertSound(parts);
      // Some never say that they are done.
      if (below(5) > 0) release?.();
    }
  };
  await Promise.all(Array.from({ length: 12 }, (_, i) => reader(i + 1)));
  assert.ok(seen > 5_000, `${seen} records prove nothing`);
});

test("a replay that is released takes the memory of what the store keeps, and hardly more", async (t) => {
  const streams = await filled(t);
  const memories = new Set<ArrayBufferLike>();
  let records = 0;
  let reads = 0;
  for (const shardId of shardIds(streams)) {
    for (let from = 0, moved = true; moved; ) {
      const { parts, next, release } = await streams.read(STREAM, shardId, from, MIB);
      records += assertSound(parts);
      for (const { batch } of parts) memories.add(batch!.buffer);
      release?.();
      reads++;
      moved = next > from;
      from = next;
    }
  }
  assert.equal(records, APPENDS * RECORDS_AN_APPEND);
  assert.ok(reads > 60, `${reads} reads prove nothing`);
  assert.ok(memories.size <= 30, `${memories.size} pieces of memory for ${reads} reads`);
});

test("a read that passes over much of other shards holds only where it found something", async (t) => {
  const place = await makeLocalPlace();
  const streams = await place.open({ segmentBytes: 128 * MIB });
  t.after(async () => {
    await streams.close();
    await place.remove();
  });
  await streams.createStream({ name: STREAM, shards: 2, retentionHours: 24 });
  const entry = (number: number, explicitHash: bigint) => ({
    partitionKey: "k",
    data: dataOf(number),
    explicitHash,
  });
  await streams.append(STREAM, [entry(0, 0n)]);
  for (let append = 0; append < APPENDS; append++)
    await streams.append(
      STREAM,
      Array.from({ length: RECORDS_AN_APPEND }, () => entry(1, 2n ** 127n)),
    );
  await streams.append(STREAM, [entry(2, 0n)]);
  const { hold, letGo } = Chunk.prototype;
  let held = 0;
  let walked = 0;
  Chunk.prototype.hold = function () {
    held++;
    walked++;
    hold.call(this);
  };
  Chunk.prototype.letGo = function () {
    held--;
    letGo.call(this);
  };
  try {
    const { parts, release } = await streams.read(STREAM, shardIds(streams)[0]!, 0, MIB);
    assert.equal(assertSound(parts), 2);
    assert.ok(walked > 2 * APPENDS, `${walked} chunks prove nothing`);
    // What the store keeps is among them: 24 MiB.
    assert.ok(held < 12, `${held} chunks are held`);
    release!();
  } finally {
    Object.assign(Chunk.prototype, { hold, letGo });
  }
});
