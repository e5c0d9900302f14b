/** A stream that one gateway deletes while others use it: who used it hears so at once, and nothing of it stays. */
import assert from "node:assert/strict";
import { mock } from "node:test";
import { Documents } from "../../../../../gateway/streams/stores/jetstream/cluster/documents.ts";
import { JetStreams } from "../../../../../gateway/streams/stores/jetstream/cluster/jet-streams.ts";
import { Link } from "../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import { StreamList } from "../../../../../gateway/streams/stores/jetstream/registry/stream-list.ts";
import { StreamNotFoundError } from "../../../../../gateway/streams/streams.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { silentLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { clusterFact as fact, until } from "./cluster-fact.ts";

type PutCall = Parameters<Documents["put"]>;
type GetCall = Parameters<Link["leaderGet"]>;

fact("a stream that another gateway deletes under load holds nobody up", async ({ open }) => {
  const [a, b] = [await open(), await open()];
  await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await until(() => b.listStreams().includes("s"));
  let refused: unknown;
  const write = async (i: number): Promise<void> => {
    while (refused === undefined) await a.append("s", [{ partitionKey: `k${i}`, data: Buffer.alloc(10) }]);
  };
  const writers = Array.from({ length: 8 }, (_, i) =>
    write(i).catch((error: unknown) => {
      refused = error;
    }),
  );
  await new Promise((resolve) => setTimeout(resolve, 200));
  await b.deleteStream("s");
  const fromMs = performance.now();
  await a.createStream({ name: "other", shards: 1, retentionHours: 24 });
  await Promise.all(writers);
  const tookMs = performance.now() - fromMs;
  assert.ok(refused instanceof StreamNotFoundError, String(refused));
  assert.ok(tookMs < 15_000, `it took ${tookMs} ms`);
});

fact(
  "a consumer that is being opened while its stream is deleted is refused, and leaves nothing",
  async (ground) => {
    const { open, cluster, prefix } = ground;
    const [a, b] = [await open(), await open()];
    await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await until(() => b.listStreams().includes("s"));
    const link = await Link.open({
      servers: cluster.servers,
      clock: systemClock,
      metrics: new Metrics(),
    });
    try {
      const documents = new Documents(link, prefix);
      const { streamId } = a.settings("s");
      // Of a gateway that was killed: its lease is waited for.
      const dead = { name: "c", owner: "dead", beat: 1, positions: {} };
      await documents.put(`c.${streamId}.${Buffer.from("c").toString("base64url")}`, dead, 0);
      const opening = a.openConsumer("s", "c");
      const refused = assert.rejects(opening, StreamNotFoundError);
      await new Promise((resolve) => setTimeout(resolve, 500));
      await b.deleteStream("s");
      await refused;
      assert.deepEqual(await documents.keys("c"), []);
    } finally {
      await link.close();
    }
  },
);

fact(
  "a consumer whose lease is removed with its stream before the cluster was asked what came of it is refused, too",
  async ({ open }) => {
    const streams = await open();
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const leases = `.c.${streams.settings("s").streamId}.`;
    const { leaderGet } = Link.prototype;
    let asked = false;
    let answer: (() => void) | undefined;
    const gets = mock.method(Link.prototype, "leaderGet", async function (this: Link, ...call: GetCall) {
      if (!asked && JSON.stringify(call[1]).includes(leases)) {
        asked = true;
        await new Promise<void>((resolve) => {
          answer = resolve;
        });
      }
      return leaderGet.apply(this, call);
    });
    try {
      const refused = assert.rejects(streams.openConsumer("s", "c"), StreamNotFoundError);
      await until(() => asked);
      await streams.deleteStream("s");
      answer?.();
      await refused;
    } finally {
      answer?.();
      gets.mock.restore();
    }
  },
);

fact(
  "a consumer that is opened while another's last checkpoint holds up its stream's end is refused, too",
  async ({ open }) => {
    const streams = await open();
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const { put } = Documents.prototype;
    const held = new Map<string, () => void>();
    const puts = mock.method(Documents.prototype, "put", async function (this: Documents, ...call: PutCall) {
      const consumer = /^c\.[^.]+\.(.+)$/.exec(call[0])?.[1];
      if (consumer !== undefined && !held.has(consumer)) {
        await new Promise<void>((resolve) => held.set(consumer, resolve));
      }
      return put.apply(this, call);
    });
    try {
      const keyOf = (name: string): string => Buffer.from(name).toString("base64url");
      const late = streams.openConsumer("s", "late");
      const refused = assert.rejects(late, StreamNotFoundError);
      await until(() => held.has(keyOf("late")));
      const opening = streams.openConsumer("s", "other");
      await until(() => held.has(keyOf("other")));
      held.get(keyOf("other"))!();
      const other = await opening;
      held.delete(keyOf("other"));
      // A sign of life, or a checkpoint, of which the cluster says nothing yet.
      await until(() => held.has(keyOf("other")));
      const deleted = streams.deleteStream("s");
      await until(() => other.lost.aborted);
      held.get(keyOf("late"))!();
      await refused;
      held.get(keyOf("other"))!();
      await deleted;
    } finally {
      for (const release of held.values()) release();
      puts.mock.restore();
    }
  },
);

fact(
  "a consumer that is opened at a gateway which has not heard that its stream was deleted leaves nothing",
  async ({ open, cluster, prefix }) => {
    const { refresh } = StreamList.prototype;
    const lists = new Set<StreamList>();
    let deaf: StreamList | undefined;
    const refreshed = mock.method(StreamList.prototype, "refresh", async function (this: StreamList) {
      lists.add(this);
      if (this !== deaf) await refresh.call(this);
    });
    const link = await Link.open({ servers: cluster.servers, clock: systemClock, metrics: new Metrics() });
    try {
      const a = await open();
      const b = await open();
      await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
      await until(() => b.listStreams().includes("s"));
      deaf = [...lists][1];
      await a.deleteStream("s");
      const consumer = await b.openConsumer("s", "c");
      const documents = new Documents(link, prefix);
      assert.equal((await documents.keys("c")).length, 1);
      deaf = undefined;
      await until(() => consumer.lost.aborted);
      const untilMs = Date.now() + 10_000;
      await until(async () => (await documents.keys("c")).length === 0 || Date.now() > untilMs);
      assert.deepEqual(await documents.keys("c"), []);
    } finally {
      refreshed.mock.restore();
      await link.close();
    }
  },
);

fact("of two that take a lease over at once one holds it", async ({ open }) => {
  const streams = await open();
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  const first = await streams.openConsumer("s", "c");
  const both = await Promise.allSettled([
    streams.openConsumer("s", "c", { takeOver: true }),
    streams.openConsumer("s", "c", { takeOver: true }),
  ]);
  const opened = both.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  const held = [first, ...opened].filter(({ lost }) => !lost.aborted);
  assert.equal(held.length, 1);
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  assert.equal(held[0]!.lost.aborted, false);
});

fact(
  "a stream that is listed can be described, also while it is being deleted and made anew",
  async ({ open }) => {
    const [a, b] = [await open(), await open()];
    for (let i = 0; i < 6; i++) {
      const maker = i % 2 === 0 ? a : b;
      await maker.createStream({ name: "s", shards: 1, retentionHours: 24 });
      const { streamId } = maker.settings("s");
      await until(() => [a, b].every((streams) => streams.listStreams().includes("s")));
      let going = true;
      const deleted = maker.deleteStream("s").finally(() => {
        going = false;
      });
      while (going || b.listStreams().length + a.listStreams().length > 0) {
        for (const streams of [a, b]) {
          for (const name of streams.listStreams()) assert.equal(streams.describe(name).streamId, streamId);
        }
        await new Promise((resolve) => setImmediate(resolve));
      }
      await deleted;
    }
  },
);

fact("a reader is not registered with a stream that another gateway has just deleted", async (ground) => {
  const { open, cluster, prefix } = ground;
  const streams = await open();
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  const link = await Link.open({ servers: cluster.servers, clock: systemClock, metrics: new Metrics() });
  try {
    // As the other one leaves the list, before anybody hears of it.
    await new Documents(link, prefix).update<{ streams: object }>("streams", (list) => ({
      ...list!,
      streams: {},
    }));
    await assert.rejects(streams.registerReader("s", "reader", {}), StreamNotFoundError);
  } finally {
    await link.close();
  }
});

fact("a stream that was taken away by hand is said in the log, and can be deleted", async (ground) => {
  const { open, cluster, prefix } = ground;
  const said: string[] = [];
  const log = { ...silentLog, error: (_: unknown, text: string) => void said.push(text) };
  // Half a minute is half a second here.
  const hasty = { nowUs: systemClock.nowUs, monotonicMs: () => systemClock.monotonicMs() * 60 };
  const a = await open(hasty, log);
  await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
  const link = await Link.open({ servers: cluster.servers, clock: systemClock, metrics: new Metrics() });
  await link.streams.remove(`${prefix}-${a.describe("s").streamId}`);
  await link.close();
  await until(() => said.some((text) => text.includes("taken away")));
  await open(hasty, log);
  await until(() => said.some((text) => text.includes("is not there")));
  await a.deleteStream("s");
  assert.deepEqual(a.listStreams(), []);
});

fact(
  "a retention that is changed while another gateway deletes the stream is refused as of no stream",
  async ({ open }) => {
    const [a, b] = [await open(), await open()];
    await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await until(() => b.listStreams().includes("s"));
    const { update } = JetStreams.prototype;
    const late = mock.method(
      JetStreams.prototype,
      "update",
      async function (this: JetStreams, ...change: Parameters<JetStreams["update"]>) {
        late.mock.restore();
        await b.deleteStream("s");
        await update.apply(this, change);
      },
    );
    try {
      await assert.rejects(a.updateStream("s", { retentionHours: 48 }), StreamNotFoundError);
    } finally {
      late.mock.restore();
    }
  },
);
