/** What one gateway makes anew is dated behind what another one made or deleted. */
import assert from "node:assert/strict";
import { mock } from "node:test";
import { StreamList } from "../../../../../gateway/streams/stores/jetstream/registry/stream-list.ts";
import { LogWriteError, type Streams } from "../../../../../gateway/streams/streams.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { clusterFact as fact, until } from "./cluster-fact.ts";

const NOON_MS = 1_790_000_000_000;
const FIRST = "shardId-000000000000";
const noon = { ...systemClock, nowUs: () => NOON_MS * 1000 };

const make = (streams: Streams, shards = 1) =>
  streams.createStream({ name: "s", shards, retentionHours: 24 });

fact("what another gateway deleted within the second has nothing of what is made anew", async ({ open }) => {
  const [a, b] = [await open(noon), await open(noon)];
  await make(a);
  await until(() => b.listStreams().includes("s"));
  await a.registerReader("s", "r", {});
  await until(() => b.registeredReaders("s").length === 1);
  await a.deregisterReader("s", "r");
  await until(() => b.registeredReaders("s").length === 0);
  assert.equal((await b.registerReader("s", "r", {})).createdMs, NOON_MS + 1_000);
  await until(() => a.registeredReaders("s").length === 1);
  await b.deleteStream("s");
  await until(() => !a.listStreams().includes("s"));
  assert.equal((await make(a)).createdMs, NOON_MS + 1_000);
  assert.equal((await a.registerReader("s", "r", {})).createdMs, NOON_MS + 2_000);
});

fact("also where this one had not heard of it when it was asked", async ({ open }) => {
  const [a, b] = [await open(noon), await open(noon)];
  await make(a);
  await until(() => b.listStreams().includes("s"));
  await a.registerReader("s", "r", {});
  await until(() => b.registeredReaders("s").length === 1);
  const deaf = mock.method(StreamList.prototype, "refresh", async () => undefined);
  try {
    await a.deregisterReader("s", "r");
    assert.equal(b.registeredReaders("s").length, 1);
    assert.equal((await b.registerReader("s", "r", {})).createdMs, NOON_MS + 1_000);
    await a.deleteStream("s");
    assert.deepEqual(b.listStreams(), ["s"]);
    assert.equal((await make(b)).createdMs, NOON_MS + 1_000);
  } finally {
    deaf.mock.restore();
  }
});

fact("nor has a shard whose split the list of streams did not have yet", async ({ open }) => {
  const streams = await open(noon);
  await make(streams);
  const silent = mock.method(StreamList.prototype, "updateStream", async (name: string) => {
    throw new LogWriteError(name, new Error("the NATS cluster gives no answer"));
  });
  try {
    await assert.rejects(streams.splitShard("s", FIRST, 2n ** 127n), LogWriteError);
    assert.equal(streams.shard("s", 1).createdMs, NOON_MS + 1_000);
    await streams.deleteStream("s");
    assert.equal((await make(streams, 2)).createdMs, NOON_MS + 2_000);
  } finally {
    silent.mock.restore();
  }
});
