/** The clocks of gateways differ. */
import assert from "node:assert/strict";
import { mock } from "node:test";
import { Link } from "../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import type { MapContent } from "../../../../../gateway/streams/stores/jetstream/log/shard-history.ts";
import { StreamList } from "../../../../../gateway/streams/stores/jetstream/registry/stream-list.ts";
import { LogWriteError, type Placed, type Streams } from "../../../../../gateway/streams/streams.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { clusterFact as fact, until } from "./cluster-fact.ts";

const MINUTE_US = 60_000_000;
const RECORDS = 300;
const HALF = 2n ** 127n;
const FIRST = "shardId-000000000000";

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
    const at = await streams.position("s", FIRST, { at: "time", arrivalMs });
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

/** A list of the shards of that time has the one that holds it, on each gateway. */
function assertClosedBehind(gateways: readonly Streams[], { shardId, arrivalMs }: Placed): void {
  assert.equal(shardId, FIRST);
  for (const [i, streams] of gateways.entries()) {
    const closedMs = streams.shard("s", 0).closedMs ?? Infinity;
    assert.ok(
      closedMs >= arrivalMs,
      `gateway ${i}: closed ${arrivalMs - closedMs} ms before its last record`,
    );
  }
}

fact("a shard is not closed before the last record of a gateway whose clock is ahead", async ({ open }) => {
  const [a, b] = [await open(), await open(ahead(3))];
  await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await until(() => b.listStreams().includes("s"));
  const last = await put(b);
  await a.splitShard("s", FIRST, HALF);
  await until(() => b.settings("s").shards === 2);
  assertClosedBehind([a, b, await open()], last);
});

/** Splits, and puts a record before that is stored, later than what the split says of its time. */
async function splitAndPut(streams: Streams): Promise<{ last: Placed; error: unknown }> {
  const { publish } = Link.prototype;
  let last: Placed | undefined;
  const storing = mock.method(
    Link.prototype,
    "publish",
    async function (this: Link, ...sent: Parameters<Link["publish"]>) {
      if (sent[1].endsWith(".map") && last === undefined) {
        const { shards } = JSON.parse(Buffer.from(sent[2]).toString()) as MapContent;
        do last = await put(streams);
        while (last.arrivalMs <= shards[0]!.closedMs!);
      }
      return publish.apply(this, sent);
    },
  );
  const error = await streams.splitShard("s", FIRST, HALF).catch((refused: unknown) => refused);
  storing.mock.restore();
  return { last: last!, error };
}

fact("nor before a record that came while it was being split", async ({ open }) => {
  const [a, b] = [await open(), await open()];
  await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await until(() => b.listStreams().includes("s"));
  const { last, error } = await splitAndPut(a);
  assert.ifError(error);
  await until(() => b.settings("s").shards === 2);
  assertClosedBehind([a, b, await open()], last);
});

fact("nor where the gateway that split it ended before the list of streams had it", async ({ open }) => {
  const a = await open();
  await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
  const silent = mock.method(StreamList.prototype, "updateStream", async (name: string) => {
    throw new LogWriteError(name, new Error("the NATS cluster gives no answer"));
  });
  try {
    const { last, error } = await splitAndPut(a);
    assert.ok(error instanceof LogWriteError);
    await a.close();
    assertClosedBehind([await open()], last);
  } finally {
    silent.mock.restore();
  }
});
