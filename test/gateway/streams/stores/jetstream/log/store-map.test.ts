/** Splits and merges of which an answer was lost, or which could not be written down at first. */
import assert from "node:assert/strict";
import { mock } from "node:test";
import { updateShardCount } from "../../../../../../gateway/api/kinesis/manage/reshard.ts";
import {
  type Link,
  Link as LinkClass,
} from "../../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import { StreamList } from "../../../../../../gateway/streams/stores/jetstream/registry/stream-list.ts";
import { LogWriteError } from "../../../../../../gateway/streams/streams.ts";
import { clusterFact as fact, until } from "../cluster-fact.ts";
import { contextOf } from "../kinesis-context.ts";

const HALF = 2n ** 127n;
const SECOND = 1 / 3_600;

fact(
  "a split whose answer was lost is told as done, also where another gateway's came behind it",
  async ({ open }) => {
    const [a, b] = [await open(), await open()];
    await a.createStream({ name: "s", shards: 2, retentionHours: 24 });
    await until(() => b.listStreams().includes("s"));
    const { publish } = LinkClass.prototype;
    const lost = mock.method(
      LinkClass.prototype,
      "publish",
      async function (this: Link, ...sent: Parameters<Link["publish"]>) {
        const outcome = await publish.apply(this, sent);
        if (!sent[1].endsWith(".map") || !outcome.stored) return outcome;
        lost.mock.restore();
        await b.splitShard("s", "shardId-000000000001", HALF + HALF / 2n);
        return { stored: false, uncertain: true };
      },
    );
    try {
      await a.splitShard("s", "shardId-000000000000", HALF / 2n);
    } finally {
      lost.mock.restore();
    }
    const open4 = (streams: typeof a): boolean =>
      streams.describe("s").shardList.filter(({ closedMs }) => closedMs === undefined).length === 4;
    assert.ok(open4(a));
    await until(() => open4(b));
  },
);

fact(
  "UpdateShardCount is one message with a map, and few changes of the list of streams",
  async ({ open }, t) => {
    const [a, b] = [await open(), await open()];
    await a.createStream({ name: "s", shards: 8, retentionHours: 24 });
    await until(() => b.listStreams().includes("s"));
    const publishes = t.mock.method(LinkClass.prototype, "publish");
    const changes = t.mock.method(StreamList.prototype, "updateStream");
    for (const target of [16, 12, 9]) {
      publishes.mock.resetCalls();
      changes.mock.resetCalls();
      const body = { StreamName: "s", TargetShardCount: target, ScalingType: "UNIFORM_SCALING" };
      await updateShardCount(contextOf(a), body);
      const maps = publishes.mock.calls.filter((call) => call.arguments[1].endsWith(".map"));
      assert.equal(maps.length, 1, `for ${target}`);
      // Each gateway may keep a map that it sees in the log before it sees it in the list.
      const changed = changes.mock.callCount();
      assert.ok(changed < 5, `${changed} changes for ${target}`);
      await until(() => b.settings("s").shards === target);
      const shards = (streams: typeof a) =>
        streams
          .describe("s")
          .shardList.map(({ shardId, hashFrom, closedMs }) => [shardId, hashFrom, closedMs]);
      assert.deepEqual(shards(b), shards(a));
    }
  },
);

fact("many steps whose answer was lost hold, and are not taken twice", async ({ open }, t) => {
  const [a, b] = [await open(), await open()];
  await a.createStream({ name: "s", shards: 2, retentionHours: 24 });
  await until(() => b.listStreams().includes("s"));
  const { publish } = LinkClass.prototype;
  let isLost = false;
  t.mock.method(
    LinkClass.prototype,
    "publish",
    async function (this: Link, ...sent: Parameters<Link["publish"]>) {
      const outcome = await publish.apply(this, sent);
      if (!sent[1].endsWith(".map") || !outcome.stored || isLost) return outcome;
      isLost = true;
      // Another gateway's comes behind it, to a shard that the lost one made.
      await until(() => b.settings("s").shards === 4);
      await b.splitShard("s", "shardId-000000000002", 5n);
      return { stored: false, uncertain: true };
    },
  );
  await a.reshard("s", [
    { do: "split", at: HALF / 2n },
    { do: "split", at: HALF + HALF / 2n },
  ]);
  await until(() => a.settings("s").shards === 5 && b.settings("s").shards === 5);
  assert.equal(isLost, true);
  const shards = (streams: typeof a) => streams.describe("s").shardList.map(({ shardId }) => shardId);
  assert.equal(shards(a).length, 8);
  assert.deepEqual(shards(b), shards(a));
});

fact("a shard map that nobody could write down at first outlives the log's own", async ({ open }) => {
  const [a, b] = [await open(), await open()];
  await a.createStream({ name: "s", shards: 1, retentionHours: 6 * SECOND });
  await until(() => b.listStreams().includes("s"));
  const silent = mock.method(StreamList.prototype, "updateStream", async (name: string) => {
    throw new LogWriteError(name, new Error("the NATS cluster gives no answer"));
  });
  try {
    await assert.rejects(a.splitShard("s", "shardId-000000000000", HALF), { code: "LOG_WRITE_FAILED" });
    await until(() => b.settings("s").shards === 2);
    await until(() => silent.mock.callCount() >= 2);
  } finally {
    silent.mock.restore();
  }
  const shards = (streams: typeof a) => streams.describe("s").shardList.map(({ shardId }) => shardId);
  // Retention takes the log's map; the shard that was closed before goes with it.
  await until(() => shards(a).length === 2);
  const fresh = await open();
  assert.deepEqual(shards(fresh), shards(a));
});
