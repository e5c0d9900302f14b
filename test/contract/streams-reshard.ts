/** What every store of streams must do when shards are split and merged; part of the streams' contract. */
import assert from "node:assert/strict";
import {
  BadReshardError,
  type Consumer,
  formatSequenceNumber,
  LeaseHeldError,
  LeaseLostError,
  MAX_HASH,
  partitionHash,
  type ReshardStep,
  type ShardDescription,
  ShardNotFoundError,
  StreamNotFoundError,
  type Streams,
} from "../../gateway/streams/streams.ts";
import { beforeAndAfter, type Fact, makeFrame, readAll } from "./stream-records.ts";

const SHARD_0 = "shardId-000000000000";
const SHARD_1 = "shardId-000000000001";
const SHARD_2 = "shardId-000000000002";
const SHARD_3 = "shardId-000000000003";
const HALF = (MAX_HASH + 1n) / 2n;
const NEVER = new AbortController().signal;

const make = (streams: Streams, shards = 1) =>
  streams.createStream({ name: "s", shards, retentionHours: 24 });

/** One record at each end of the hash space; each says where it goes. */
async function putBoth(streams: Streams, text: string) {
  const [low, high] = await streams.append("s", [
    { partitionKey: "low", explicitHash: 0n, data: Buffer.from(`low-${text}`) },
    { partitionKey: "high", explicitHash: MAX_HASH, data: Buffer.from(`high-${text}`) },
  ]);
  return { low: low!, high: high! };
}

async function textsIn(streams: Streams, shardId: string): Promise<string[]> {
  return (await readAll(streams, "s", shardId)).map(({ text }) => text);
}

function shardOf(streams: Streams, shardId: string): ShardDescription {
  return streams.describe("s").shardList.find((shard) => shard.shardId === shardId)!;
}

/** Reads all that the consumer may read, checkpoint by checkpoint, until nothing is left. */
export async function consume(streams: Streams, consumer: Consumer): Promise<string[]> {
  const texts: string[] = [];
  for (let progressed = true; progressed; ) {
    progressed = false;
    for (const [shardId, from] of consumer.positions()) {
      const records = await readAll(streams, consumer.stream, shardId, from);
      const at = records.length === 0 ? from : records.at(-1)!.offset + 1;
      const { next, ended } = await streams.read(consumer.stream, shardId, at, 1);
      texts.push(...records.map(({ text }) => text));
      await consumer.checkpoint(new Map([[shardId, next]]));
      if (next > from || ended) progressed = true;
    }
  }
  return texts;
}

export function reshardContract(fact: Fact): void {
  shardFacts(fact);
  endFacts(fact);
  closingFacts(fact);
  consumerFacts(fact);
  leaseFacts(fact);
}

function shardFacts(fact: Fact): void {
  fact("a stream has at most 4,096 open shards", async (streams) => {
    await make(streams, 4_096);
    await assert.rejects(streams.splitShard("s", SHARD_0, 5n), BadReshardError);
    await streams.mergeShards("s", SHARD_0, SHARD_1);
    await streams.splitShard("s", SHARD_2, streams.shard("s", 2).hashFrom + 1n);
    assert.equal(streams.settings("s").shards, 4_096);
  });

  fact(
    "a split closes a shard and shares its hashes out, also after a reopening",
    async (streams, reopen) => {
      await make(streams);
      const before = await putBoth(streams, "before");
      await streams.splitShard("s", SHARD_0, 5n);
      const after = await putBoth(streams, "after");
      assert.deepEqual([before.low.shardId, before.high.shardId], [SHARD_0, SHARD_0]);
      assert.deepEqual([after.low.shardId, after.high.shardId], [SHARD_1, SHARD_2]);
      for await (const opened of beforeAndAfter(streams, reopen)) {
        const { shards, shardList } = opened.describe("s");
        assert.equal(shards, 2);
        assert.deepEqual(
          shardList.map(({ shardId, index, hashFrom, hashTo, parents, closedMs }) => [
            shardId,
            index,
            hashFrom,
            hashTo,
            parents,
            closedMs !== undefined,
          ]),
          [
            [SHARD_0, 0, 0n, MAX_HASH, [], true],
            [SHARD_1, 1, 0n, 4n, [SHARD_0], false],
            [SHARD_2, 2, 5n, MAX_HASH, [SHARD_0], false],
          ],
        );
        assert.deepEqual(await textsIn(opened, SHARD_0), ["low-before", "high-before"]);
        assert.deepEqual(await textsIn(opened, SHARD_1), ["low-after"]);
        assert.deepEqual(await textsIn(opened, SHARD_2), ["high-after"]);
        assert.equal(opened.shard("s", 2).shardId, SHARD_2);
        assert.equal(opened.settings("s").shards, 2);
      }
    },
  );

  fact("a merge closes two shards and opens one in their place", async (streams, reopen) => {
    await make(streams, 2);
    await putBoth(streams, "before");
    // In whichever order they are named.
    await streams.mergeShards("s", SHARD_1, SHARD_0);
    const { low, high } = await putBoth(streams, "after");
    assert.deepEqual([low.shardId, high.shardId], [SHARD_2, SHARD_2]);
    const opened = await reopen();
    const merged = shardOf(opened, SHARD_2);
    assert.deepEqual([merged.hashFrom, merged.hashTo], [0n, MAX_HASH]);
    assert.deepEqual([...merged.parents].sort(), [SHARD_0, SHARD_1]);
    assert.deepEqual(await textsIn(opened, SHARD_0), ["low-before"]);
    assert.deepEqual(await textsIn(opened, SHARD_1), ["high-before"]);
    assert.deepEqual(await textsIn(opened, SHARD_2), ["low-after", "high-after"]);
    await opened.splitShard("s", SHARD_2, HALF);
    assert.deepEqual(
      opened.describe("s").shardList.map(({ index }) => index),
      [0, 1, 2, 3, 4],
    );
  });

  fact(
    "a closed shard tells what it was split or merged into, also after a reopening",
    async (streams, reopen) => {
      await make(streams, 2);
      await streams.splitShard("s", SHARD_1, HALF + 5n);
      await streams.mergeShards("s", SHARD_0, SHARD_2);
      await streams.splitShard("s", "shardId-000000000004", 5n);
      for await (const opened of beforeAndAfter(streams, reopen)) {
        const indexes = (index: number) =>
          opened.children("s", opened.shard("s", index).shardId).map((child) => child.index);
        assert.deepEqual([0, 1, 2, 3, 4, 5, 6].map(indexes), [[4], [2, 3], [4], [], [5, 6], [], []]);
        const [low, high] = opened.children("s", SHARD_1);
        assert.deepEqual([low?.shardId, low?.hashFrom, low?.hashTo], [SHARD_2, HALF, HALF + 4n]);
        assert.deepEqual([high?.shardId, high?.hashFrom, high?.hashTo], [SHARD_3, HALF + 5n, MAX_HASH]);
        assert.deepEqual([low?.parents, low?.closedMs === undefined], [[SHARD_1], false]);
        assert.deepEqual(opened.children("s", "shardId-000000000009"), []);
        assert.throws(() => opened.children("none", SHARD_0), StreamNotFoundError);
      }
    },
  );

  fact("many splits and merges at once hold together, or none of them does", async (streams, reopen) => {
    await make(streams, 2);
    await putBoth(streams, "before");
    const consumer = await streams.openConsumer("s", "c");
    const quarter = HALF / 2n;
    const steps: ReshardStep[] = [
      { do: "merge", at: HALF },
      { do: "split", at: quarter },
      { do: "split", at: HALF + quarter },
      { do: "merge", at: quarter },
    ];
    await assert.rejects(streams.reshard("s", [...steps, { do: "merge", at: 7n }]), BadReshardError);
    await assert.rejects(streams.reshard("none", steps), StreamNotFoundError);
    assert.equal(streams.describe("s").shardList.length, 2);
    await streams.reshard("s", steps);
    await putBoth(streams, "after");
    await consumer.close();
    for await (const opened of beforeAndAfter(streams, reopen)) {
      const { shards, shardList } = opened.describe("s");
      assert.equal(shards, 2);
      assert.deepEqual(
        shardList.map(({ index, hashFrom, parents, closedMs }) => [
          index,
          hashFrom,
          parents.map((parent) => Number(parent.slice(-3))),
          closedMs === undefined,
        ]),
        [
          [0, 0n, [], false],
          [1, HALF, [], false],
          [2, 0n, [0, 1], false],
          [3, 0n, [2], false],
          [4, quarter, [2], false],
          [5, quarter, [4], false],
          [6, HALF + quarter, [4], true],
          [7, 0n, [3, 5], true],
        ],
      );
      const seconds = shardList.map(({ createdMs }) => Math.floor(createdMs / 1_000));
      for (const { index, parents } of shardList) {
        for (const parent of parents) assert.ok(seconds[Number(parent.slice(-3))]! < seconds[index]!);
      }
      const texts: string[] = [];
      for (const { shardId } of shardList) texts.push(...(await textsIn(opened, shardId)));
      assert.deepEqual(texts, ["low-before", "high-before", "high-after", "low-after"]);
    }
    const opened = await reopen();
    const again = await opened.openConsumer("s", "c");
    assert.deepEqual(again.shards, [SHARD_0, SHARD_1]);
    const read = await consume(opened, again);
    assert.deepEqual(read.slice(0, 2), ["low-before", "high-before"]);
    assert.deepEqual(read.slice(2).sort(), ["high-after", "low-after"]);
    // Made and closed at one moment: whoever begins there is at its end.
    const { next, ended } = await opened.read("s", SHARD_3, 0, 1_000);
    assert.deepEqual([next, ended], [shardOf(opened, SHARD_3).latest, true]);
    await opened.splitShard("s", "shardId-000000000007", 5n);
    assert.equal(opened.describe("s").shardList.at(-1)!.index, 9);
  });

  fact("what cannot be split or merged changes nothing", async (streams) => {
    await make(streams, 3);
    const { shardList } = streams.describe("s");
    await assert.rejects(streams.splitShard("none", SHARD_0, 1n), StreamNotFoundError);
    await assert.rejects(streams.splitShard("s", "shardId-000000000009", 1n), ShardNotFoundError);
    await assert.rejects(streams.splitShard("s", SHARD_0, 0n), BadReshardError);
    await assert.rejects(streams.splitShard("s", SHARD_0, shardList[1]!.hashFrom), BadReshardError);
    await assert.rejects(streams.mergeShards("s", SHARD_0, SHARD_2), BadReshardError);
    await assert.rejects(streams.mergeShards("s", SHARD_0, SHARD_0), BadReshardError);
    assert.equal(streams.describe("s").shardList.length, 3);
    await streams.splitShard("s", SHARD_0, shardList[0]!.hashTo);
    await assert.rejects(streams.splitShard("s", SHARD_0, 1n), BadReshardError);
    await assert.rejects(streams.mergeShards("s", SHARD_0, SHARD_1), BadReshardError);
    assert.equal(streams.describe("s").shards, 4);
  });

  fact("two splits of one shard at once: one holds, the other is refused", async (streams) => {
    await make(streams);
    const both = await Promise.allSettled([
      streams.splitShard("s", SHARD_0, HALF),
      streams.splitShard("s", SHARD_0, 7n),
    ]);
    assert.deepEqual(both.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
    assert.equal(streams.describe("s").shards, 2);
  });

  fact("sequence numbers of a key rise through splits and merges", async (streams) => {
    await make(streams);
    const numbers: string[] = [];
    const put = async (): Promise<void> => {
      const [placed] = await streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
      const { index, createdMs } = shardOf(streams, placed!.shardId);
      const { offset, arrivalMs } = placed!;
      numbers.push(formatSequenceNumber({ shardCreatedMs: createdMs, shardIndex: index, offset, arrivalMs }));
    };
    for (let i = 0; i < 3; i++) await put();
    await streams.splitShard("s", SHARD_0, HALF);
    for (let i = 0; i < 2; i++) await put();
    await streams.mergeShards("s", SHARD_1, SHARD_2);
    await put();
    assert.deepEqual(numbers, [...new Set(numbers)].sort());
  });

  fact("a frame sent again after a split is still known", async (streams, reopen) => {
    await make(streams);
    const frame = makeFrame("s", 1n, ["a=1", "b=1", "c=1", "d=1"]);
    const waiting = streams.appendFrame(frame);
    await Promise.all([waiting, streams.splitShard("s", SHARD_0, HALF)]);
    assert.equal(await streams.appendFrame(frame), "duplicate");
    assert.equal(await streams.appendFrame(makeFrame("s", 2n, ["a=2", "b=2", "c=2", "d=2"])), "stored");
    const opened = await reopen();
    assert.equal(await opened.appendFrame(frame), "duplicate");
    assert.deepEqual(await textsIn(opened, SHARD_0), ["a=1", "b=1", "c=1", "d=1"]);
    const children = [...(await textsIn(opened, SHARD_1)), ...(await textsIn(opened, SHARD_2))];
    assert.deepEqual(children.sort(), ["a=2", "b=2", "c=2", "d=2"]);
    for (const text of await textsIn(opened, SHARD_1)) assert.ok(partitionHash(text[0]!) < HALF);
  });
}

function endFacts(fact: Fact): void {
  fact("a reader hears of the end of a closed shard, not of an open one", async (streams, reopen) => {
    await make(streams);
    const { high } = await putBoth(streams, "x");
    const behind = high.offset + 1;
    assert.equal((await streams.read("s", SHARD_0, behind, 1_000)).ended, false);
    const woken = streams.appended("s", SHARD_0, behind, NEVER);
    await streams.splitShard("s", SHARD_0, HALF);
    await woken;
    for await (const opened of beforeAndAfter(streams, reopen)) {
      const first = await opened.read("s", SHARD_0, 0, 1_000_000);
      assert.equal(
        first.parts.reduce((sum, { count }) => sum + count, 0),
        2,
      );
      assert.equal(first.ended, true);
      const end = await opened.read("s", SHARD_0, first.next, 1_000);
      assert.deepEqual([end.parts, end.next, end.ended], [[], first.next, true]);
      assert.equal(await opened.position("s", SHARD_0, { at: "latest" }), first.next);
      await opened.appended("s", SHARD_0, first.next, NEVER);
      assert.equal((await opened.read("s", SHARD_1, 0, 1_000)).ended, false);
    }
  });

  fact("what was appended before a split is read before its shard ends", async (streams) => {
    await make(streams);
    const appends: Promise<unknown>[] = [];
    let split: Promise<void> | undefined;
    for (let i = 0; i < 200; i++) {
      appends.push(streams.append("s", [{ partitionKey: "k", data: Buffer.from(`${i}`) }]));
      if (i === 80) split = streams.splitShard("s", SHARD_0, HALF);
      if (i % 20 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    const texts: string[] = [];
    for (let at = 0, ended = false; !ended; ) {
      await streams.appended("s", SHARD_0, at, NEVER);
      const read = await streams.read("s", SHARD_0, at, 1_000_000);
      for (const { text } of await readUpTo(streams, SHARD_0, at, read.next)) texts.push(text);
      ({ next: at, ended } = read);
    }
    await Promise.all([...appends, split]);
    assert.equal((await textsIn(streams, SHARD_0)).length, texts.length);
    for (const child of [SHARD_1, SHARD_2]) texts.push(...(await textsIn(streams, child)));
    assert.deepEqual(
      texts,
      Array.from({ length: 200 }, (_, i) => `${i}`),
    );
  });
}

async function readUpTo(streams: Streams, shardId: string, from: number, to: number) {
  return (await readAll(streams, "s", shardId, from)).filter(({ offset }) => offset < to);
}

function closingFacts(fact: Fact): void {
  fact(
    "no record of a shard arrived after it was closed, also after a reopening",
    async (streams, reopen) => {
      await make(streams);
      let arrived = 0;
      for (let hash = HALF; hash > HALF / 64n; hash /= 2n) {
        const first = (shard: ShardDescription): boolean =>
          shard.closedMs === undefined && shard.hashFrom === 0n;
        const { shardId } = streams.describe("s").shardList.find(first)!;
        let isSplit = false;
        const split = streams.splitShard("s", shardId, hash).finally(() => {
          isSplit = true;
        });
        const appended: Promise<unknown>[] = [];
        while (!isSplit) {
          appended.push(
            streams.append("s", [{ partitionKey: "k", explicitHash: 0n, data: Buffer.from("x") }]),
          );
          await Promise.race([split, appended.at(-1)]);
        }
        await Promise.all([split, ...appended]);
      }
      for await (const opened of beforeAndAfter(streams, reopen)) {
        for (const { shardId, index, closedMs } of opened.describe("s").shardList) {
          if (closedMs === undefined) continue;
          assert.equal(opened.shard("s", index).closedMs, closedMs);
          const records = await readAll(opened, "s", shardId);
          arrived += records.length;
          for (const { arrivalMs } of records) assert.ok(arrivalMs <= closedMs, `${arrivalMs} of ${shardId}`);
        }
      }
      assert.ok(arrived > 0);
    },
  );
}

function consumerFacts(fact: Fact): void {
  fact("a consumer reads parents to their ends before their children", async (streams, reopen) => {
    await make(streams);
    await putBoth(streams, "0");
    let consumer = await streams.openConsumer("s", "c");
    await streams.splitShard("s", SHARD_0, HALF);
    await putBoth(streams, "1");
    assert.deepEqual(consumer.shards, [SHARD_0]);
    const [first] = await readAll(streams, "s", SHARD_0);
    await consumer.checkpoint(new Map([[SHARD_0, first!.offset + 1]]));
    assert.deepEqual(consumer.shards, [SHARD_0]);
    await assert.rejects(consumer.checkpoint(new Map([[SHARD_1, shardOf(streams, SHARD_1).latest]])), {
      code: "BAD_CHECKPOINT",
    });
    const opened = await reopen();
    consumer = await opened.openConsumer("s", "c");
    assert.deepEqual(consumer.shards, [SHARD_0]);
    const end = shardOf(opened, SHARD_0).latest;
    const changed = consumer.changed(NEVER);
    await consumer.checkpoint(new Map([[SHARD_0, end]]));
    await changed;
    assert.deepEqual(consumer.shards, [SHARD_1, SHARD_2]);
    assert.deepEqual([...consumer.positions().keys()], [SHARD_1, SHARD_2]);
    // A checkpoint may be repeated after a crash; it moves nothing.
    await consumer.checkpoint(new Map([[SHARD_0, end]]));
    assert.deepEqual(await consume(opened, consumer), ["low-1", "high-1"]);
    const again = await (await reopen()).openConsumer("s", "c");
    assert.deepEqual(again.shards, [SHARD_1, SHARD_2]);
  });

  fact("a merged shard waits for both of its parents", async (streams) => {
    await make(streams, 2);
    await putBoth(streams, "0");
    const consumer = await streams.openConsumer("s", "c");
    await streams.mergeShards("s", SHARD_0, SHARD_1);
    await streams.splitShard("s", SHARD_2, HALF);
    await putBoth(streams, "1");
    const ends = streams.describe("s").shardList.map(({ latest }) => latest);
    await consumer.checkpoint(new Map([[SHARD_0, ends[0]!]]));
    assert.deepEqual(consumer.shards, [SHARD_1]);
    await consumer.checkpoint(new Map([[SHARD_1, ends[1]!]]));
    // Nothing ever came into shard 2: it is finished as soon as it may be read, or at its checkpoint.
    assert.deepEqual(await consume(streams, consumer), ["low-1", "high-1"]);
    assert.deepEqual(consumer.shards, [SHARD_3, "shardId-000000000004"]);
  });

  fact("a consumer that is opened after a split begins with what is kept of the parent", async (streams) => {
    await make(streams);
    await putBoth(streams, "0");
    await streams.splitShard("s", SHARD_0, HALF);
    await putBoth(streams, "1");
    const consumer = await streams.openConsumer("s", "c");
    assert.deepEqual(consumer.shards, [SHARD_0]);
    assert.deepEqual(await consume(streams, consumer), ["low-0", "high-0", "low-1", "high-1"]);
  });

  fact("a consumer at the end of a shard moves on when it is split", async (streams) => {
    await make(streams);
    await putBoth(streams, "0");
    const consumer = await streams.openConsumer("s", "c");
    await consume(streams, consumer);
    const changed = consumer.changed(NEVER);
    await streams.splitShard("s", SHARD_0, HALF);
    await changed;
    assert.deepEqual(consumer.shards, [SHARD_1, SHARD_2]);
    const abort = new AbortController();
    const aborted = consumer.changed(abort.signal);
    abort.abort();
    await aborted;
  });
}

function leaseFacts(fact: Fact): void {
  fact("a consumer that is taken over ends its checkpoint and makes no other", async (streams) => {
    await make(streams);
    const { low } = await putBoth(streams, "x");
    const holder = await streams.openConsumer("s", "c");
    await assert.rejects(streams.openConsumer("s", "c"), LeaseHeldError);
    const changed = holder.changed(NEVER);
    const running = holder.checkpoint(new Map([[SHARD_0, low.offset + 1]]));
    await new Promise((resolve) => setImmediate(resolve));
    const heir = await streams.openConsumer("s", "c", { takeOver: true });
    await Promise.all([changed, running]);
    assert.equal(holder.lost.aborted, true);
    assert.equal(heir.lost.aborted, false);
    assert.equal(heir.positions().get(SHARD_0), low.offset + 1);
    await assert.rejects(holder.checkpoint(new Map([[SHARD_0, low.offset + 2]])), LeaseLostError);
    await holder.close();
    await assert.rejects(streams.openConsumer("s", "c"), LeaseHeldError);
    await heir.checkpoint(new Map([[SHARD_0, low.offset + 2]]));
    await heir.close();
    assert.equal(heir.lost.aborted, true);
    const free = await streams.openConsumer("s", "c", { takeOver: true });
    assert.equal(free.positions().get(SHARD_0), low.offset + 2);
  });
}
