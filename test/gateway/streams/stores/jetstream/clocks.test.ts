/** The clocks of gateways differ. */
import assert from "node:assert/strict";
import type { Placed, Streams } from "../../../../../gateway/streams/streams.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { clusterFact as fact, until } from "./cluster-fact.ts";

const MINUTE_US = 60_000_000;
const RECORDS = 300;

const ahead = (minutes: number) => ({
  ...systemClock,
  nowUs: () => systemClock.nowUs() + minutes * MINUTE_US,
});

/** Into the first shard. */
async function put(streams: Streams): Promise<Placed> {
  const [place] = await streams.append("s", [{ partitionKey: "k", explicitHash: 0n, data: Buffer.alloc(1) }]);
  return place!;
}

/** @param placed all records, in the order of the stream */
async function assertNonePassedOver(streams: Streams, placed: readonly Placed[]): Promise<void> {
  for (const [i, { arrivalMs }] of placed.entries()) {
    const wanted = placed.find((one) => one.arrivalMs >= arrivalMs)!.offset;
    const at = await streams.position("s", "shardId-000000000000", { at: "time", arrivalMs });
    assert.ok(at <= wanted, `of record ${i}, ${at} is behind ${wanted}`);
  }
}

fact("no record that arrived at a time or later is passed over by who begins there", async ({ open }) => {
  const [a, b] = [await open(), await open(ahead(3))];
  await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await until(() => b.listStreams().includes("s"));
  const placed: Placed[] = [];
  for (let i = 0; i < RECORDS; i++) placed.push(await put(i % 2 === 0 ? b : a));
  // One that begins now, and writes, goes on where the others are.
  const fresh = await open();
  placed.push(await put(fresh));
  await assertNonePassedOver(fresh, placed);
});

fact("nor by a gateway that begins behind a split, and goes on to write", async ({ open }) => {
  const b = await open(ahead(3));
  await b.createStream({ name: "s", shards: 2, retentionHours: 24 });
  const placed: Placed[] = [];
  for (let i = 0; i < RECORDS / 3; i++) placed.push(await put(b));
  await b.splitShard("s", "shardId-000000000001", 3n * 2n ** 126n);
  const fresh = await open();
  for (let i = 0; i < RECORDS; i++) placed.push(await put(fresh));
  await assertNonePassedOver(fresh, placed);
});

fact("nor after a record of a gateway whose clock was hours ahead", async ({ open }) => {
  const [a, b, wrong] = [await open(), await open(ahead(3)), await open(ahead(300))];
  await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await until(() => [b, wrong].every((streams) => streams.listStreams().includes("s")));
  await put(wrong);
  const placed: Placed[] = [];
  for (let i = 0; i < RECORDS / 3; i++) placed.push(await put(b));
  for (let i = 0; i < RECORDS; i++) placed.push(await put(a));
  const fresh = await open();
  placed.push(await put(fresh));
  await assertNonePassedOver(fresh, placed);
});
