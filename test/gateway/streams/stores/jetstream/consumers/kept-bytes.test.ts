/** What a consumer's holder leaves to the next one, of any size. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mock } from "node:test";
import { Documents } from "../../../../../../gateway/streams/stores/jetstream/cluster/documents.ts";
import { Link } from "../../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import {
  BadCheckpointError,
  type Consumer,
  type Handover,
  HandoverDamagedError,
  LeaseLostError,
  type Streams,
} from "../../../../../../gateway/streams/streams.ts";
import { systemClock } from "../../../../../../runtime/clock.ts";
import { Metrics } from "../../../../../../runtime/metrics.ts";
import { clusterFact, type Ground, until } from "../cluster-fact.ts";

async function opened(streams: Streams): Promise<{ consumer: Consumer; handover: Handover }> {
  const consumer = await streams.openConsumer("s", "c", { takeOver: true });
  return { consumer, handover: consumer.handover! };
}

/** The keys below the consumer's document. */
async function withPieces(
  { cluster, prefix }: Ground,
  body: (keys: () => Promise<string[]>, drop: (id: string) => Promise<void>) => Promise<void>,
): Promise<void> {
  const link = await Link.open({ servers: cluster.servers, clock: systemClock, metrics: new Metrics() });
  try {
    const documents = new Documents(link, prefix);
    const all = async (): Promise<string[]> =>
      (await documents.keys("c")).filter((key) => key.split(".").length > 2);
    const drop = async (id: string): Promise<void> => {
      const [stream, consumer] = (await all())[0]!.split(".");
      await documents.drop(`${stream}.${consumer}.${id}`.replace(/^/, "c."));
    };
    await body(async () => (await all()).map((key) => key.split(".").slice(2).join(".")), drop);
  } finally {
    await link.close();
  }
}

clusterFact(
  "bytes of any size come back to the next holder, on whatever gateway, with the positions",
  (ground) =>
    withPieces(ground, async (keys) => {
      const [a, b] = [await ground.open(), await ground.open()];
      await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
      await until(() => b.listStreams().includes("s"));
      const [placed] = await a.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
      const position = new Map([[placed!.shardId, placed!.offset + 1]]);
      let { handover } = await opened(a);
      assert.equal(await handover.keptBytes(), undefined);
      for (const [i, size] of [0, 1, 1_048_576, 3_500_000].entries()) {
        const [whole, from] = [randomBytes(size), size >> 1];
        await handover.keepBytes(
          [whole.subarray(0, from), whole.subarray(from)],
          i < 3 ? undefined : position,
        );
        const next = await opened(i % 2 === 0 ? b : a);
        handover = next.handover;
        assert.deepEqual(await handover.keptBytes(), whole);
        const [stored] = next.consumer.positions().values();
        assert.equal(stored === placed!.offset + 1, i === 3, "positions move with them, and only with them");
      }
      assert.equal(handover.note, undefined);
      await handover.keep({ a: "note" });
      assert.equal((await handover.keptBytes())?.length, 3_500_000, "a note leaves them as they are");
      // Four pieces, and nothing of those before.
      await until(async () => (await keys()).length === 4);
      assert.equal((await b.consumers("s")).length, 1, "pieces are no consumers");
      await a.deleteStream("s");
      await until(async () => (await keys()).length === 0);
    }),
);

clusterFact("who lost the lease, or names a place that is not there, leaves nothing", (ground) =>
  withPieces(ground, async (keys) => {
    const [a, b] = [await ground.open(), await ground.open()];
    await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await until(() => b.listStreams().includes("s"));
    const before = await opened(a);
    await before.handover.keepBytes([Buffer.from("kept")]);
    const [shardId] = before.consumer.shards;
    await assert.rejects(
      before.handover.keepBytes([Buffer.from("no")], new Map([[shardId!, Number.MAX_SAFE_INTEGER]])),
      BadCheckpointError,
    );
    const after = await opened(b);
    await assert.rejects(before.handover.keepBytes([Buffer.from("late")]), LeaseLostError);
    assert.equal(String(await after.handover.keptBytes()), "kept");
    await until(async () => (await keys()).length === 1);
  }),
);

clusterFact("pieces that are gone are told of, and no others are taken for them", (ground) =>
  withPieces(ground, async (keys, drop) => {
    const a = await ground.open();
    await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const { handover } = await opened(a);
    await handover.keepBytes([Buffer.from("kept")]);
    await drop((await keys())[0]!.split(".")[0]!);
    await assert.rejects(handover.keptBytes(), HandoverDamagedError);
    await handover.keepBytes([Buffer.from("anew")]);
    assert.equal(String(await handover.keptBytes()), "anew");
  }),
);

clusterFact("who was taken over without noticing removes nothing of the next holder's", (ground) =>
  withPieces(ground, async (keys) => {
    const [a, b] = [await ground.open(), await ground.open()];
    await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await until(() => b.listStreams().includes("s"));
    for (const next of ["next", ""]) {
      const before = await opened(a);
      await before.handover.keepBytes([Buffer.from("kept")]);
      const after = await opened(b);
      await after.handover.keepBytes([Buffer.from(next)]);
      const arePieces = async (): Promise<boolean> => (await keys()).length === (next === "" ? 0 : 1);
      await until(arePieces);
      // As one that was paused until then: what it knew as kept is no more, and what it finds is another's.
      await assert.rejects(before.handover.keptBytes(), LeaseLostError);
      assert.equal(String(await after.handover.keptBytes()), next);
      assert.ok(await arePieces());
    }
  }),
);

clusterFact("what may have been written all the same is not removed", (ground) =>
  withPieces(ground, async () => {
    const a = await ground.open();
    await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const { handover } = await opened(a);
    await handover.keepBytes([Buffer.from("before")]);
    // A leader that was just chosen, and lags behind its own log, gives such an answer.
    const { put } = Documents.prototype;
    mock.method(
      Documents.prototype,
      "put",
      async function (this: Documents, ...args: Parameters<typeof put>) {
        await put.apply(this, args);
        return undefined;
      },
    );
    await assert.rejects(handover.keepBytes([Buffer.from("after")]), LeaseLostError);
    mock.restoreAll();
    const next = await opened(a);
    assert.equal(String(await next.handover.keptBytes()), "after");
  }),
);

clusterFact("what a consumer was still writing when its stream was deleted does not stay", (ground) =>
  withPieces(ground, async (keys) => {
    const streams = await ground.open();
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const { consumer, handover } = await opened(streams);
    const { putOnce } = Documents.prototype;
    let goOn = (): void => {};
    const held = new Promise<void>((resolve) => (goOn = resolve));
    let writes = 0;
    const puts = mock.method(
      Documents.prototype,
      "putOnce",
      async function (this: Documents, ...call: Parameters<Documents["putOnce"]>) {
        if (++writes === 2) await held;
        return putOnce.apply(this, call);
      },
    );
    try {
      const refused = assert.rejects(handover.keepBytes([randomBytes(3_000_000)]), LeaseLostError);
      await until(() => writes === 2);
      await streams.deleteStream("s");
      assert.ok(consumer.lost.aborted);
      goOn();
      await refused;
      const untilMs = Date.now() + 10_000;
      await until(async () => (await keys()).length === 0 || Date.now() > untilMs);
      assert.deepEqual(await keys(), []);
    } finally {
      goOn();
      puts.mock.restore();
    }
  }),
);
