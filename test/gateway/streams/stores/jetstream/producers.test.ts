/** What is remembered of producers outlives the records, and the shard maps outlive their messages. */
import assert from "node:assert/strict";
import { Link } from "../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import type { Streams } from "../../../../../gateway/streams/streams.ts";
import { makeFrame } from "../../../../contract/stream-records.ts";
import { clusterFact, recordsOf, textsOf, until } from "./cluster-fact.ts";

const SECOND = 1 / 3_600;
const HALF = 2n ** 127n;

/** Resolves when retention has taken every record that is there now. */
async function trimmed(streams: Streams, name = "s"): Promise<void> {
  await until(async () => (await recordsOf(streams, name)).length === 0);
}

clusterFact("an epoch and a client are known for longer than their records are kept", async ({ open }) => {
  const [a, b] = [await open(), await open()];
  await a.createStream({ name: "s", shards: 1, retentionHours: 4 * SECOND });
  await until(() => b.listStreams().includes("s"));
  const publish = { clientId: "plug", packetId: 1, partitionKey: "k", timeUs: 1, payload: Buffer.from("on") };
  for (let i = 1; i <= 3; i++) await a.appendFrame(makeFrame("s", BigInt(i), [`f${i}`]));
  await a.appendPublish("s", { ...publish, mayRepeat: false });
  await trimmed(a);
  // Twice the retention later it has been said again more than once.
  await new Promise((resolve) => setTimeout(resolve, 4_500));
  for (const streams of [a, b, await open()]) {
    assert.equal(await streams.appendFrame(makeFrame("s", 3n, ["f3"])), "duplicate");
    assert.equal(await streams.appendPublish("s", { ...publish, mayRepeat: true }), "duplicate");
    assert.equal(streams.describe("s").producers, 2);
  }
  assert.deepEqual(await textsOf(a), []);
  // What comes now is to be there still when the other one has heard of it.
  await a.updateStream("s", { retentionHours: 24 });
  assert.equal(await b.appendFrame(makeFrame("s", 4n, ["f4"])), "stored");
  await until(async () => (await textsOf(a)).includes("f4"));
});

clusterFact(
  "a publish that is on its way still is known when its client comes anew",
  async ({ cluster, open }) => {
    const streams = await open();
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const publish = {
      clientId: "plug",
      packetId: 1,
      partitionKey: "k",
      timeUs: 1,
      payload: Buffer.from("on"),
    };
    // Killed, both at a time, nodes of 2.10.27 now and then find no majority again for minutes.
    for (const node of [0, 1]) cluster.hang(node);
    const first = streams.appendPublish("s", { ...publish, mayRepeat: false });
    // As the gateway's broker asks when the client is there again, before anything was acknowledged to it.
    const asked = [streams.recognises("s", publish), streams.remembersPacket("plug", 1)];
    const others = [
      streams.recognises("s", { ...publish, packetId: 2 }),
      streams.remembersPacket("plug", 2),
      streams.remembersPacket("other", 1),
    ];
    const second = streams.appendPublish("s", { ...publish, mayRepeat: true });
    for (const node of [0, 1]) cluster.wake(node);
    assert.deepEqual(await Promise.all([first, second]), ["stored", "duplicate"]);
    assert.deepEqual([...asked, ...others], [true, true, false, false, false]);
    assert.deepEqual(await textsOf(streams), ["on"]);
  },
);

clusterFact(
  "what a lagging leader did not tell of at the start is asked for again where it is needed",
  async ({ open }, t) => {
    const a = await open();
    await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
    for (const sequence of [1n, 2n]) await a.appendFrame(makeFrame("s", sequence, [`f${sequence}`]));
    await a.splitShard("s", "shardId-000000000000", HALF);
    const publish = {
      clientId: "plug",
      packetId: 1,
      partitionKey: "k",
      timeUs: 1,
      payload: Buffer.from("on"),
    };
    await a.appendPublish("s", { ...publish, mayRepeat: false });
    const { lastThatCounts } = Link.prototype;
    let asked = 0;
    const lagging = t.mock.method(
      Link.prototype,
      "lastThatCounts",
      async function (this: Link, stream: string, subject: string) {
        if (stream.endsWith("-documents")) return lastThatCounts.call(this, stream, subject);
        asked++;
        return undefined;
      },
    );
    const b = await open();
    lagging.mock.restore();
    assert.ok(asked >= 3, `asked for ${asked}`);
    assert.equal(await b.appendFrame(makeFrame("s", 2n, ["f2"])), "duplicate");
    assert.equal(await b.appendFrame(makeFrame("s", 3n, ["f3"])), "stored");
    assert.equal(await b.appendPublish("s", { ...publish, mayRepeat: true }), "duplicate");
    await b.splitShard("s", "shardId-000000000001", HALF / 2n);
    assert.deepEqual((await textsOf(b)).sort(), ["f1", "f2", "f3", "on"]);
  },
);

clusterFact("a forgotten epoch that retention took may begin again, by any gateway", async ({ open }) => {
  const [a, b] = [await open(), await open()];
  await a.createStream({ name: "s", shards: 1, retentionHours: 2 * SECOND });
  await until(() => b.listStreams().includes("s"));
  assert.equal(await a.appendFrame(makeFrame("s", 1n, ["first"])), "stored");
  await a.forgetEpoch("pi-1", 7n);
  await trimmed(a);
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  // What comes now is to be there still when both have read it.
  await a.updateStream("s", { retentionHours: 24 });
  assert.equal(await b.appendFrame(makeFrame("s", 1n, ["again"])), "stored");
  await until(async () => (await textsOf(a)).length === 1);
  assert.equal(await a.appendFrame(makeFrame("s", 1n, ["again"])), "duplicate");
  assert.deepEqual(await textsOf(b), ["again"]);
});

clusterFact("a retention that is shortened takes the records, not what is remembered", async ({ open }) => {
  const [a, b] = [await open(), await open()];
  await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await until(() => b.listStreams().includes("s"));
  for (let i = 1; i <= 3; i++) await a.appendFrame(makeFrame("s", BigInt(i), [`f${i}`]));
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  await b.updateStream("s", { retentionHours: 2 * SECOND });
  await trimmed(a);
  assert.equal(await a.appendFrame(makeFrame("s", 3n, ["f3"])), "duplicate");
  assert.equal(await (await open()).appendFrame(makeFrame("s", 3n, ["f3"])), "duplicate");
});

clusterFact(
  "shards are split further when retention took the message of the last split",
  async ({ open }) => {
    const [a, b] = [await open(), await open()];
    await a.createStream({ name: "s", shards: 1, retentionHours: 2 * SECOND });
    await until(() => b.listStreams().includes("s"));
    await a.splitShard("s", "shardId-000000000000", HALF);
    await a.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
    await trimmed(a);
    await b.splitShard("s", "shardId-000000000001", HALF / 2n);
    await until(() => a.describe("s").shardList.some(({ shardId }) => shardId === "shardId-000000000004"));
    await trimmed(a);
    await a.mergeShards("s", "shardId-000000000003", "shardId-000000000004");
    const [placed] = await (await open()).append("s", [{ partitionKey: "k", data: Buffer.from("y") }]);
    assert.ok(["shardId-000000000002", "shardId-000000000005"].includes(placed!.shardId));
  },
);
