/** Publishes gathered in columns against the same handed over one by one. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  producerAt,
  producerSize,
  publishesOf,
  writeProducer,
} from "../../../../../gateway/streams/stores/entry-producer.ts";
import type { PlainPublish } from "../../../../../gateway/streams/streams.ts";
import { publishColumns, readAll } from "../../../../contract/stream-records.ts";
import { makeLocalPlace } from "./local-place.ts";

const publish: fc.Arbitrary<PlainPublish> = fc.record({
  clientId: fc.constantFrom("a", "b", "ü".repeat(200)),
  packetId: fc.integer({ min: 0, max: 4 }),
  partitionKey: fc.constantFrom("x", "y", "z", "ü"),
  timeUs: fc.constant(1_700_000_000_000_000),
  payload: fc.constantFrom(Buffer.from("on"), Buffer.from("off"), Buffer.alloc(600_000)),
  mayRepeat: fc.boolean(),
});

test("gathered or one by one: the same is stored, and the same is known, also after a restart", async () => {
  const place = await makeLocalPlace();
  let streams = await place.open();
  let run = 0;
  try {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(publish, { maxLength: 8 }), { maxLength: 4 }), async (batches) => {
        const [gathered, single] = [`gathered-${++run}`, `single-${run}`];
        for (const name of [gathered, single]) {
          await streams.createStream({ name, shards: 3, retentionHours: 24 });
        }
        const outcomes = batches.map(async (batch) => {
          const one = batch.map((each) => streams.appendPublish(single, each));
          return [await streams.appendPublishes(gathered, publishColumns(batch)), await Promise.all(one)];
        });
        for (const [found, expected] of await Promise.all(outcomes)) assert.deepEqual(found, expected);
        if (run % 8 === 0) {
          await streams.close();
          streams = await place.open();
        }
        assert.equal(streams.describe(gathered).producers, streams.describe(single).producers);
        for (const { shardId } of streams.describe(single).shardList) {
          const texts = async (name: string) =>
            (await readAll(streams, name, shardId)).map(({ key, text }) => `${key} ${text}`);
          assert.deepEqual(await texts(gathered), await texts(single));
        }
        for (const each of batches.flat()) {
          assert.equal(streams.recognises(gathered, each), streams.recognises(single, each));
        }
        for (const name of [gathered, single]) await streams.deleteStream(name);
      }),
      { numRuns: 40 },
    );
  } finally {
    await streams.close();
    await place.remove();
  }
});

test("more clients than one entry can name become several entries", async () => {
  const place = await makeLocalPlace();
  let streams = await place.open();
  try {
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const list = Array.from({ length: 1_000 }, (_, i) => ({
      clientId: `${"client".repeat(40)}-${i}`,
      packetId: 9,
      partitionKey: `key-${i}`,
      timeUs: 1_700_000_000_000_000,
      payload: Buffer.from(`${i}`),
      mayRepeat: false,
    }));
    await streams.appendPublishes("s", publishColumns(list));
    await streams.close();
    streams = await place.open();
    assert.equal((await readAll(streams, "s", "shardId-000000000000")).length, 1_000);
    assert.ok(list.every((each) => streams.recognises("s", each)));
  } finally {
    await streams.close();
    await place.remove();
  }
});

test("whose publishes an entry holds is read as it was written", () => {
  const identity = fc
    .uint8Array({ minLength: 18, maxLength: 18 })
    .map((b) => Buffer.from(b).toString("latin1"));
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.constantFrom("a", "b", "ü☃"), identity), { maxLength: 30 }), (list) => {
      const written = publishesOf(
        list.map(([clientId]) => clientId),
        list.map(([, id]) => id),
      );
      const bytes = Buffer.alloc(producerSize(written) + 7);
      writeProducer(bytes, 5, written);
      assert.deepEqual(producerAt(bytes, 3, 5, bytes.length - 2), written);
    }),
  );
});
