/** A nats-server may call a message id a duplicate at place 0 for its whole duplicate window, though nothing of it is ever stored. */
import assert from "node:assert/strict";
import { connect, headers } from "@nats-io/transport-node";
import { Link } from "../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import { ID_HEADER } from "../../../../../gateway/streams/stores/jetstream/cluster/stored-message.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { makeFrame } from "../../../../contract/stream-records.ts";
import { natsVersion } from "../../../../support/nats-cluster.ts";
import { clusterFact as fact, textsOf, until } from "./cluster-fact.ts";

const USED_UP = 60;
/** A gateway asks for a minute before it gives up. */
const SOON_MS = 30_000;

fact(
  "what goes out under an id that the nodes hold for on its way is stored all the same, once",
  async ({ cluster: { servers }, open, prefix }, t) => {
    // The others look at what a message expects before they note its id.
    if (!natsVersion()!.startsWith("2.10.")) return t.skip("only nats-server 2.10 can be brought to it so");
    const [a, b] = [await open(), await open()];
    await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await until(() => b.listStreams().includes("s"));
    const put = (text: string) => a.append("s", [{ partitionKey: "k", data: Buffer.from(text) }]);
    await put("first");
    const consumer = await a.openConsumer("s", "c");
    const stream = `${prefix}-${a.settings("s").streamId}`;
    const link = await Link.open({ servers, clock: systemClock, metrics: new Metrics() });
    const nc = await connect({ servers });
    try {
      const first = await link.leaderGet(stream, { seq: 1 });
      const [, gateway, number] = /^(.*)-(\d+)$/.exec(first!.header(ID_HEADER))!;
      const subject = first!.subject.split(".").slice(0, -2).join(".");
      /** Its expectation is only looked at behind the proposal, and refused there: nothing is stored, and the id stays. */
      const useUp = async (id: string, of: string): Promise<Record<string, unknown>> => {
        const head = headers();
        head.set(ID_HEADER, id);
        head.set("Nats-Expected-Last-Subject-Sequence", "1000000");
        return (await nc.request(of, "", { headers: head, timeout: 5_000 })).json();
      };
      const ids = Array.from({ length: USED_UP }, (_, i) => `${gateway}-${Number(number) + 1 + i}`);
      const subjects = [`${subject}.nobody`, `${prefix}.m.nobody`];
      await Promise.all(ids.flatMap((id) => subjects.map((of) => useUp(id, of))));
      for (const { seq, duplicate } of await Promise.all(ids.map((id) => useUp(id, subjects[0]!)))) {
        assert.deepEqual({ seq, duplicate }, { seq: 0, duplicate: true });
      }
      const since = performance.now();
      const [shardId] = consumer.shards as [string];
      const { latest } = a.describe("s").shardList[0]!;
      await Promise.all([
        put("a put"),
        a.appendFrame(makeFrame("s", 1n, ["a frame"], 7n)),
        consumer.checkpoint(new Map([[shardId, latest]])),
      ]);
      assert.ok(
        performance.now() - since < SOON_MS,
        `stored after ${Math.round(performance.now() - since)} ms`,
      );
      const all = ["a frame", "a put", "first"];
      await until(async () => (await textsOf(b)).length >= all.length);
      for (const streams of [a, b, await open()]) assert.deepEqual((await textsOf(streams)).sort(), all);
    } finally {
      await nc.close();
      await link.close();
    }
  },
);
