/** What every store of streams must do; run by each adapter's own test file. */
import assert from "node:assert/strict";
import test from "node:test";
import {
  type Consumer,
  formatSequenceNumber,
  LeaseHeldError,
  LeaseLostError,
  partitionHash,
  ShardNotFoundError,
  StreamExistsError,
  StreamNotFoundError,
  type Streams,
} from "../../gateway/streams/streams.ts";
import { assertRising, type Fact, makeFrame, type OpenStreams, readAll } from "./stream-records.ts";
import { madeAnewContract } from "./streams-made-anew.ts";
import { reshardContract } from "./streams-reshard.ts";
import { settingsContract } from "./streams-settings.ts";
import { takingContract } from "./streams-taking.ts";

export { makeFrame, type ReadRecord, readAll } from "./stream-records.ts";

/** Somewhere that a store keeps its data between two openings. */
export interface StreamsPlace {
  readonly open: OpenStreams;
  remove(): Promise<void>;
}

const SHARD_0 = "shardId-000000000000";

export function streamsContract(adapter: string, makePlace: () => Promise<StreamsPlace>): void {
  /** Runs `body` on a fresh place; `reopen` closes and opens again. */
  const fact: Fact = (what, body) => {
    test(`${adapter}: ${what}`, async () => {
      const place = await makePlace();
      let streams = await place.open();
      try {
        await body(streams, async (more) => {
          await streams.close();
          streams = await place.open(more);
          return streams;
        });
      } finally {
        await streams.close();
        await place.remove();
      }
    });
  };
  reshardContract(fact);
  settingsContract(fact);
  takingContract(fact);
  madeAnewContract(fact);
  const make = (streams: Streams, shards = 1) =>
    streams.createStream({ name: "s", shards, retentionHours: 24 });

  fact("streams are made, listed, described and deleted", async (streams) => {
    const made = await make(streams, 3);
    assert.equal(made.shardList.length, 3);
    assert.equal(made.shardList[0]!.hashFrom, 0n);
    assert.equal(made.shardList[2]!.hashTo, 2n ** 128n - 1n);
    await assert.rejects(make(streams), StreamExistsError);
    await streams.createStream({ name: "a", shards: 1, retentionHours: 24 });
    assert.deepEqual(streams.listStreams(), ["a", "s"]);
    await streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
    await streams.deleteStream("s");
    assert.deepEqual(streams.listStreams(), ["a"]);
    assert.throws(() => streams.describe("s"), StreamNotFoundError);
    const again = await make(streams);
    assert.notEqual(again.streamId, made.streamId);
    assert.deepEqual(await readAll(streams, "s", SHARD_0), []);
  });

  fact("a stream may have any name that is one, also of what every object has", async (streams, reopen) => {
    for (const name of ["constructor", "__proto__"]) {
      await streams.createStream({ name, shards: 1, retentionHours: 24 });
      await streams.append(name, [{ partitionKey: "k", data: Buffer.from(name) }]);
      await streams.registerReader(name, "constructor", {});
    }
    const again = await reopen();
    assert.deepEqual(again.listStreams(), ["__proto__", "constructor"]);
    for (const name of again.listStreams()) {
      assert.deepEqual(
        (await readAll(again, name, SHARD_0)).map(({ text }) => text),
        [name],
      );
      assert.equal(again.registeredReaders(name).length, 1);
      await again.deleteStream(name);
    }
    assert.deepEqual(again.listStreams(), []);
  });

  fact("what does not exist is told so", async (streams) => {
    await assert.rejects(
      streams.append("none", [{ partitionKey: "k", data: Buffer.from("x") }]),
      StreamNotFoundError,
    );
    await assert.rejects(streams.appendFrame(makeFrame("none", 1n, ["x"])), StreamNotFoundError);
    await assert.rejects(streams.read("none", SHARD_0, 0, 1), StreamNotFoundError);
    await assert.rejects(streams.deleteStream("none"), StreamNotFoundError);
    await assert.rejects(streams.openConsumer("none", "c"), StreamNotFoundError);
    await make(streams);
    await assert.rejects(streams.read("s", "shardId-000000000009", 0, 1), ShardNotFoundError);
  });

  fact("records are read back in the order in which they were appended", async (streams, reopen) => {
    await make(streams);
    const appends = Array.from({ length: 50 }, (_, i) =>
      streams.append("s", [
        { partitionKey: `k${i % 3}`, data: Buffer.from(`a${i}`) },
        { partitionKey: `k${(i + 1) % 3}`, data: Buffer.from(`b${i}`) },
      ]),
    );
    const placed = (await Promise.all(appends)).flat();
    assertRising(placed.map(({ offset }) => offset));
    const expected = Array.from({ length: 50 }, (_, i) => [`a${i}`, `b${i}`]).flat();
    for (const maxBytes of [1, 200, 1_000_000]) {
      const records = await readAll(streams, "s", SHARD_0, 0, maxBytes);
      assert.deepEqual(
        records.map(({ text }) => text),
        expected,
      );
    }
    const records = await readAll(await reopen(), "s", SHARD_0);
    assert.deepEqual(
      records.map(({ text }) => text),
      expected,
    );
    assert.deepEqual(
      records.map(({ arrivalMs }) => arrivalMs),
      placed.map(({ arrivalMs }) => arrivalMs),
    );
  });

  fact("when the newest record arrived is known, also after a start", async (streams, reopen) => {
    await make(streams);
    assert.equal(streams.lastArrivalMs("s"), 0);
    await streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
    const [{ arrivalMs } = assert.fail()] = await streams.append("s", [
      { partitionKey: "k", data: Buffer.from("y") },
    ]);
    assert.equal(streams.lastArrivalMs("s"), arrivalMs);
    const again = await reopen();
    assert.equal(again.lastArrivalMs("s"), arrivalMs);
    assert.throws(() => again.lastArrivalMs("none"), StreamNotFoundError);
  });

  fact("a record goes to the shard whose hash range holds its key", async (streams) => {
    const { shardList } = await make(streams, 4);
    const keys = Array.from({ length: 40 }, (_, i) => `sensor-${i}`);
    const placed = await streams.append(
      "s",
      keys.map((key) => ({ partitionKey: key, data: Buffer.from(key) })),
    );
    const byFrame = makeFrame(
      "s",
      1n,
      keys.map((key) => `${key}=f`),
    );
    assert.equal(await streams.appendFrame(byFrame), "stored");
    for (const [i, key] of keys.entries()) {
      const hash = partitionHash(key);
      const shard = shardList.find(({ hashFrom, hashTo }) => hashFrom <= hash && hash <= hashTo)!;
      assert.equal(placed[i]!.shardId, shard.shardId);
      const texts = (await readAll(streams, "s", shard.shardId)).filter((record) => record.key === key);
      assert.deepEqual(
        texts.map(({ text }) => text),
        [key, `${key}=f`],
      );
    }
    const explicit = await streams.append("s", [
      { partitionKey: "k", explicitHash: 0n, data: Buffer.from("low") },
      { partitionKey: "k", explicitHash: 2n ** 128n - 1n, data: Buffer.from("high") },
    ]);
    assert.deepEqual(
      explicit.map(({ shardId }) => shardId),
      [shardList[0]!.shardId, shardList[3]!.shardId],
    );
  });

  fact("a reader that waits hears of the next record", async (streams) => {
    await make(streams);
    const abort = new AbortController();
    const from = await streams.position("s", SHARD_0, { at: "latest" });
    const heard = streams.appended("s", SHARD_0, from, abort.signal);
    const [placed] = await streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
    await heard;
    await streams.appended("s", SHARD_0, from, abort.signal);
    const never = streams.appended("s", SHARD_0, placed!.offset + 1, abort.signal);
    abort.abort();
    await never;
  });

  fact("readers at the tip see every record once, in order, while many append", async (streams) => {
    const writers = 8;
    const each = 40;
    const { shardList } = await make(streams, 2);
    const abort = new AbortController();
    const follow = async (shardId: string): Promise<string[]> => {
      const texts: string[] = [];
      for (let at = 0; ; ) {
        await streams.appended("s", shardId, at, abort.signal);
        const records = await readAll(streams, "s", shardId, at, 500);
        if (records.length === 0 && abort.signal.aborted) return texts;
        for (const { offset, text } of records) {
          assert.ok(offset >= at);
          at = offset + 1;
          texts.push(text);
        }
      }
    };
    const readers = shardList.map(({ shardId }) => follow(shardId));
    const write = async (writer: number): Promise<void> => {
      for (let i = 1; i <= each; i++) {
        const frame = makeFrame("s", BigInt(i), [`w${writer}=${i}`, `v${writer}=${i}`], BigInt(writer + 1));
        assert.equal(await streams.appendFrame(frame), "stored");
      }
    };
    await Promise.all(Array.from({ length: writers }, (_, writer) => write(writer)));
    abort.abort();
    const seen = (await Promise.all(readers)).flat();
    assert.equal(seen.length, writers * each * 2);
    for (let writer = 0; writer < writers; writer++) {
      for (const key of [`w${writer}`, `v${writer}`]) {
        const mine = seen.filter((text) => text.startsWith(`${key}=`));
        assert.deepEqual(
          mine,
          Array.from({ length: each }, (_, i) => `${key}=${i + 1}`),
        );
      }
    }
  });

  fact("positions are found by name, offset and time", async (streams) => {
    await make(streams);
    const empty = await streams.position("s", SHARD_0, { at: "trim-horizon" });
    const [first] = await streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
    const { offset, arrivalMs } = first!;
    const behind = offset + 1;
    assert.ok(empty <= offset);
    assert.equal(await streams.position("s", SHARD_0, { at: "trim-horizon" }), offset);
    assert.equal(await streams.position("s", SHARD_0, { at: "latest" }), behind);
    assert.equal(await streams.position("s", SHARD_0, { at: "offset", offset: behind }), behind);
    assert.equal(await streams.position("s", SHARD_0, { at: "time", arrivalMs: 0 }), offset);
    assert.equal(await streams.position("s", SHARD_0, { at: "time", arrivalMs }), offset);
    assert.equal(await streams.position("s", SHARD_0, { at: "time", arrivalMs: arrivalMs + 1 }), behind);
    const tip = await streams.read("s", SHARD_0, behind, 1_000);
    assert.deepEqual(tip, { parts: [], next: behind, behindMs: 0, trimmed: 0, ended: false });
  });

  fact("sequence numbers rise along a shard", async (streams) => {
    const { shardList } = await make(streams);
    const placed = await streams.append(
      "s",
      Array.from({ length: 20 }, () => ({ partitionKey: "k", data: Buffer.from("x") })),
    );
    const { createdMs, index } = shardList[0]!;
    const numbers = placed.map(({ offset, arrivalMs }) =>
      formatSequenceNumber({ shardCreatedMs: createdMs, shardIndex: index, offset, arrivalMs }),
    );
    assert.deepEqual(numbers, [...new Set(numbers)].sort());
  });

  fact("a consumer's checkpoint outlives a reopening", async (streams, reopen) => {
    await make(streams, 2);
    const [placed] = await streams.append("s", [
      { partitionKey: "k", explicitHash: 0n, data: Buffer.from("x") },
    ]);
    const consumer = await streams.openConsumer("s", "delivery/files");
    const start = consumer.positions();
    assert.deepEqual([...start.keys()], [...consumer.shards]);
    assert.ok(start.get(SHARD_0)! <= placed!.offset);
    await consumer.checkpoint(new Map([[SHARD_0, placed!.offset + 1]]));
    await consumer.close();
    const opened = await reopen();
    const again = await opened.openConsumer("s", "delivery/files");
    assert.deepEqual(again.positions(), new Map([...start, [SHARD_0, placed!.offset + 1]]));
    const listed = await opened.consumers("s");
    assert.deepEqual(
      listed.map(({ name }) => name),
      ["delivery/files"],
    );
    assert.equal(listed[0]!.positions.get(SHARD_0), placed!.offset + 1);
  });

  fact("a checkpoint neither goes back nor beyond what is there", async (streams) => {
    await make(streams);
    const placed = await streams.append(
      "s",
      [1, 2, 3].map((i) => ({ partitionKey: "k", data: Buffer.from(`${i}`) })),
    );
    const [behindFirst, behindSecond, behindThird] = placed.map(({ offset }) => offset + 1);
    const consumer = await streams.openConsumer("s", "c");
    await Promise.all(
      [behindSecond!, behindThird!].map((offset) => consumer.checkpoint(new Map([[SHARD_0, offset]]))),
    );
    for (const offset of [behindFirst!, behindThird! + 1]) {
      await assert.rejects(consumer.checkpoint(new Map([[SHARD_0, offset]])), { code: "BAD_CHECKPOINT" });
    }
    await assert.rejects(consumer.checkpoint(new Map([["shardId-x", 0]])), ShardNotFoundError);
    assert.equal(consumer.positions().get(SHARD_0), behindThird);
  });

  fact("one consumer of a name holds the lease", async (streams, reopen) => {
    await make(streams);
    const openings = await Promise.allSettled([
      streams.openConsumer("s", "c"),
      streams.openConsumer("s", "c"),
    ]);
    assert.deepEqual(
      openings.map(({ status }) => status),
      ["fulfilled", "rejected"],
    );
    const held = (openings[0] as PromiseFulfilledResult<Consumer>).value;
    await assert.rejects(streams.openConsumer("s", "c"), LeaseHeldError);
    await streams.openConsumer("s", "other");
    await held.close();
    await held.close();
    await assert.rejects(held.checkpoint(new Map([[SHARD_0, 0]])), LeaseLostError);
    await streams.openConsumer("s", "c");
    await (await reopen()).openConsumer("s", "c");
  });

  fact("deleting a stream takes its consumers along", async (streams) => {
    await make(streams);
    const consumer = await streams.openConsumer("s", "c");
    await streams.deleteStream("s");
    await assert.rejects(consumer.checkpoint(new Map([[SHARD_0, 0]])), LeaseLostError);
    await make(streams);
    assert.deepEqual(await streams.consumers("s"), []);
  });
}
