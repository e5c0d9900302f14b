/** Deliveries of a stream whose shards are split and merged under way, and of what the KPL packed. */
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import type { Streams } from "../../../gateway/streams/streams.ts";
import { aggregate } from "../../support/kpl-aggregate.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import {
  closeRigs,
  countInOrder,
  lines,
  numbered,
  openRig,
  type Rig,
  STREAM,
  until,
} from "./delivery-rig.ts";

async function inFolder(body: (dir: string) => Promise<void>): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-delivery-"));
  try {
    await body(dir);
  } finally {
    await closeRigs();
    await removeFolder(dir);
  }
}

const openShards = (streams: Streams) =>
  streams
    .describe(STREAM)
    .shardList.filter((shard) => shard.closedMs === undefined)
    .sort((a, b) => (a.hashFrom < b.hashFrom ? -1 : 1));

/** Splits the widest shard on even steps, merges the two narrowest neighbours on odd ones. */
async function reshard(streams: Streams, step: number): Promise<void> {
  const shards = openShards(streams);
  const width = (i: number): bigint => shards[i]!.hashTo - shards[i]!.hashFrom;
  if (step % 2 === 0) {
    let widest = 0;
    for (let i = 1; i < shards.length; i++) if (width(i) > width(widest)) widest = i;
    const { shardId, hashFrom } = shards[widest]!;
    await streams.splitShard(STREAM, shardId, hashFrom + width(widest) / 2n + 1n);
  } else {
    let left = 0;
    for (let i = 1; i + 1 < shards.length; i++) {
      if (width(i) + width(i + 1) < width(left) + width(left + 1)) left = i;
    }
    await streams.mergeShards(STREAM, shards[left]!.shardId, shards[left + 1]!.shardId);
  }
}

async function feed(rig: Rig, rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    const puts = [rig.streams.append(STREAM, numbered(round * 100, 50))];
    const change = reshard(rig.streams, round);
    puts.push(rig.streams.append(STREAM, numbered(round * 100 + 50, 50)));
    await Promise.all([...puts, change]);
  }
}

test("shards are split and merged while records flow: each record once, in order within its key", () =>
  inFolder(async (dir) => {
    const rig = await openRig(dir, { bufferBytes: 3_000 });
    await rig.delivery.start();
    await feed(rig, 20);
    await until("all delivered", () => rig.delivery.status()[0]!.deliveredRecords >= 2_000);
    assert.equal(countInOrder(await lines(rig.out)), 2_000);
    assert.equal(rig.delivery.status()[0]!.lastError, undefined);
    assert.equal(rig.delivery.status()[0]!.trimmedRecords, 0);
  }));

test("the same when steps fail at random and the gateway starts anew", () =>
  inFolder(async (dir) => {
    let seed = 7;
    let failing = true;
    const onStep = (): void => {
      seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
      if (failing && seed / 2 ** 32 < 0.25) throw new Error("a step that fails");
    };
    const first = await openRig(dir, { bufferBytes: 3_000, onStep });
    await first.delivery.start();
    await feed(first, 10);
    await until("something is delivered", () => first.delivery.status()[0]!.deliveredRecords > 100);
    await first.close();
    failing = false;
    const second = await openRig(dir, { bufferBytes: 3_000, onStep });
    await second.delivery.start();
    await until("all delivered", () => second.delivery.status()[0]!.deliveredRecords >= 1_000);
    assert.equal(countInOrder(await lines(second.out)), 1_000);
  }));

test("the rest of a closed shard is cut at once, so that its children need not wait for the buffer", () =>
  inFolder(async (dir) => {
    const rig = await openRig(dir, { bufferSeconds: 900 });
    await rig.delivery.start();
    await rig.streams.append(STREAM, numbered(0, 50));
    for (const { shardId, hashFrom, hashTo } of openShards(rig.streams)) {
      await rig.streams.splitShard(STREAM, shardId, (hashFrom + hashTo) / 2n);
    }
    await until("the parents are delivered", () => rig.delivery.status()[0]!.deliveredRecords === 50);
    await rig.streams.append(STREAM, numbered(50, 50));
    await until("the children are read", () => rig.delivery.status()[0]!.waitingMs > 0);
    assert.equal(rig.delivery.status()[0]!.deliveredRecords, 50);
  }));

test("a cut under way when the config names another destination is finished where it began", () =>
  inFolder(async (dir) => {
    const first = await openRig(dir, {
      onStep: (step) => {
        if (step === "manifest") throw new Error("stopped behind the manifest");
      },
    });
    // Before the delivery looks, so that all are in one cut.
    await first.streams.append(STREAM, numbered(0, 20));
    await first.delivery.start();
    await until("a cut is under way", () => first.delivery.status()[0]!.lastError !== undefined);
    await first.close();
    const second = await openRig(dir, { out: "elsewhere" });
    await second.delivery.start();
    await until("it is delivered", () => second.delivery.status()[0]!.deliveredRecords === 20);
    await second.streams.append(STREAM, numbered(20, 20));
    await until("the next too", () => second.delivery.status()[0]!.deliveredRecords === 40);
    const there = await lines(first.out);
    const elsewhere = await lines(second.out);
    assert.equal(there.length, 20);
    assert.equal(elsewhere.length, 20);
    assert.equal(countInOrder([...there, ...elsewhere]), 40);
  }));

test("records that the KPL packed are delivered one by one, and what is no JSON says its place in the pack", () =>
  inFolder(async (dir) => {
    const rig = await openRig(dir);
    await rig.delivery.start();
    const packed = numbered(0, 10).map(({ partitionKey, data }) => ({ partitionKey, data }));
    const broken = { partitionKey: "odd", data: Buffer.from("no json") };
    await rig.streams.append(STREAM, [
      { partitionKey: "pack", data: aggregate([...packed.slice(0, 5), broken, ...packed.slice(5)]) },
      { partitionKey: "pack", data: Buffer.from('{"plain":true}') },
    ]);
    await until("delivered", () => rig.delivery.status()[0]!.deliveredRecords === 11);
    const delivered = await lines(rig.out);
    assert.equal(delivered.pop(), '{"plain":true}');
    assert.equal(countInOrder(delivered), 10);
    const [failed, ...more] = (await lines(rig.out, "failed")).map((line) => JSON.parse(line));
    assert.deepEqual(more, []);
    assert.equal(failed.partitionKey, "odd");
    assert.equal(failed.subSequenceNumber, 5);
    assert.equal(Buffer.from(failed.data, "base64").toString(), "no json");
  }));
