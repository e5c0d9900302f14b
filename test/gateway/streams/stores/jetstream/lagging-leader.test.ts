/** A leader that has just been chosen may lag behind its own log, on a busy machine for long: what it tells is older than what is. */
import assert from "node:assert/strict";
import { mock } from "node:test";
import { Link } from "../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import { clusterFact as fact } from "./cluster-fact.ts";

const LAGS_MS = 15_000;

fact("no lag of a leader sets a consumer's checkpoint back", async ({ open, prefix }) => {
  const a = await open();
  await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
  const put = (text: string) => a.append("s", [{ partitionKey: "k", data: Buffer.from(text) }]);
  await put("early");
  const stream = `${prefix}-${a.settings("s").streamId}`;
  const { state } = Link.prototype;
  let seen: { lastSequence: number; untilMs: number } | undefined;
  const link = mock.method(
    Link.prototype,
    "state",
    async function (this: Link, ...asked: Parameters<typeof state>) {
      const now = await state.apply(this, asked);
      if (asked[0] !== stream || seen === undefined || performance.now() > seen.untilMs) return now;
      return { ...now, lastSequence: seen.lastSequence };
    },
  );
  try {
    const before = await a.openConsumer("s", "c");
    const [shardId] = before.shards as [string];
    for (let i = 0; i < 10; i++) await put(`read ${i}`);
    const { latest } = a.describe("s").shardList[0]!;
    await before.checkpoint(new Map([[shardId, latest]]));
    await a.close();
    seen = { lastSequence: 1, untilMs: performance.now() + LAGS_MS };
    const b = await open();
    const again = await b.openConsumer("s", "c");
    assert.equal(again.positions().get(shardId), latest);
  } finally {
    link.mock.restore();
  }
});
