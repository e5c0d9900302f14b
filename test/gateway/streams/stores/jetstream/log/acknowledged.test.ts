/** That nodes which differ are noticed: by what was acknowledged, here and elsewhere, and what they give. */
import assert from "node:assert/strict";
import test from "node:test";
import { connect } from "@nats-io/transport-node";
import {
  ID_HEADER,
  type StoredMessage,
} from "../../../../../../gateway/streams/stores/jetstream/cluster/stored-message.ts";
import { openJetStreamStreams } from "../../../../../../gateway/streams/stores/jetstream/jetstream.ts";
import {
  Acknowledged,
  copiesMayDiffer,
} from "../../../../../../gateway/streams/stores/jetstream/log/acknowledged.ts";
import { systemClock } from "../../../../../../runtime/clock.ts";
import { type Log, silentLog } from "../../../../../../runtime/log.ts";
import { Metrics } from "../../../../../../runtime/metrics.ts";
import { clusterFact, until } from "../cluster-fact.ts";

function message(sequence: number, id: string): StoredMessage {
  const header = (name: string): string => (name === ID_HEADER ? id : "");
  return { sequence, subject: "s", payload: Buffer.alloc(0), header };
}

/** A replica and a leader that hold what they are given. */
function nodes() {
  const replica = new Map<number, string>();
  const leader = new Map<number, string>();
  const asked: number[] = [];
  const said: object[] = [];
  const found = (kept: Map<number, string>, sequence: number): StoredMessage | undefined => {
    const id = kept.get(sequence);
    return id === undefined ? undefined : message(sequence, id);
  };
  let nowMs = 0;
  let counted = 0;
  const acknowledged = new Acknowledged({
    name: "readings",
    stream: "S",
    clock: { nowUs: () => 0, monotonicMs: () => nowMs },
    log: { ...silentLog, error: (facts: object) => void said.push(facts) } as Log,
    link: {
      server: "replica",
      countContradiction: () => void counted++,
      get: async (_, sequence) => {
        asked.push(sequence);
        return found(replica, sequence);
      },
      leaderGet: async (_, which) => found(leader, "seq" in which ? which.seq : 0),
    },
  });
  const pass = (ms: number): void => {
    nowMs += ms;
  };
  return { acknowledged, replica, leader, asked, said, pass, counted: () => counted };
}

test("the same message again, a missing one and one that nobody acknowledged tell nothing", async () => {
  const { acknowledged, leader, counted } = nodes();
  acknowledged.note(1, "a");
  acknowledged.note(1, "a");
  acknowledged.note(Number.NaN, "b");
  acknowledged.note(2, "");
  acknowledged.compare(message(1, "a"));
  acknowledged.compare(message(2, "b"));
  acknowledged.compare(undefined);
  leader.set(1, "a");
  for (let i = 0; i < 3; i++) await acknowledged.look();
  assert.equal(counted(), 0);
});

test("another message where one was acknowledged is counted each time, and said twice a minute", () => {
  const { acknowledged, said, pass, counted } = nodes();
  acknowledged.note(7, "a");
  acknowledged.compare(message(7, "b"));
  acknowledged.compare(message(7, "b"));
  assert.equal(counted(), 2);
  assert.deepEqual(said, [
    { stream: "readings", sequence: 7, acknowledged: "a", held: "b", node: "replica" },
  ]);
  pass(30_000);
  acknowledged.note(7, "c");
  assert.deepEqual(said[1], { stream: "readings", sequence: 7, acknowledged: "a", alsoAcknowledged: "c" });
});

test("what a node gave and the leader does not have is counted and said, and holds if it was acknowledged", () => {
  const { acknowledged, said, counted } = nodes();
  acknowledged.note(8, "b");
  assert.equal(acknowledged.isContradicted(message(7, "a")), false);
  assert.equal(acknowledged.isContradicted(message(8, "b")), true);
  assert.equal(acknowledged.isContradicted(message(8, "c")), false);
  assert.equal(counted(), 3);
  assert.deepEqual(said, [{ stream: "readings", sequence: 7, held: "a", missingAt: "the stream's leader" }]);
});

test("what was acknowledged a second ago is looked for once, on the node that is read from and on the leader", async () => {
  const { acknowledged, replica, leader, asked, counted } = nodes();
  replica.set(5, "a").set(6, "b");
  leader.set(5, "x").set(6, "b");
  acknowledged.note(5, "a");
  await acknowledged.look();
  assert.deepEqual(asked, [], "it may be on its way to them");
  acknowledged.note(6, "b");
  await acknowledged.look();
  assert.deepEqual([asked, counted()], [[5], 1]);
  for (let i = 0; i < 3; i++) await acknowledged.look();
  assert.deepEqual([asked, counted()], [[5, 6], 1]);
});

test("nats-servers before 2.10 are those whose copies may differ", () => {
  for (const version of ["2.9.10", "2.9.25", "2.0.0", "1.4.1"])
    assert.equal(copiesMayDiffer(version), true, version);
  for (const version of ["2.10.27", "2.11.0-RC.1", "3.0.0", "", "dev"]) {
    assert.equal(copiesMayDiffer(version), false, version);
  }
});

test("only the newest are remembered", () => {
  const { acknowledged, counted } = nodes();
  for (let sequence = 1; sequence <= 5_000; sequence++) acknowledged.note(sequence, "a");
  acknowledged.compare(message(1, "b"));
  assert.equal(counted(), 0);
  acknowledged.compare(message(5_000, "b"));
  assert.equal(counted(), 1);
});

clusterFact(
  "a gateway tells what was acknowledged where, and one that finds another message there says so",
  async ({ cluster: { servers }, prefix, open }) => {
    const metrics = new Metrics();
    const said: Array<Record<string, unknown>> = [];
    const log = { ...silentLog, error: (facts: Record<string, unknown>) => void said.push(facts) } as Log;
    const reader = await openJetStreamStreams({
      ...{ servers, replicas: 3, prefix, clock: systemClock, log, metrics },
    });
    const nc = await connect({ servers });
    try {
      const words: string[] = [];
      nc.subscribe(`${prefix}.n.>`, { callback: (_, word) => void words.push(word.string()) });
      await nc.flush();
      const writer = await open();
      await writer.createStream({ name: "s", shards: 1, retentionHours: 24 });
      await until(() => reader.listStreams().includes("s"));
      const put = (text: string) => writer.append("s", [{ partitionKey: "k", data: Buffer.from(text) }]);
      await put("a");
      await until(() => words.some((word) => /^1 [\w-]{12}-\d+$/.test(word)));
      assert.equal(said.length, 0);
      // As if a third gateway had another message acknowledged for the place that comes next.
      nc.publish(`${prefix}.n.${writer.describe("s").streamId}`, "2 nobody-1");
      await nc.flush();
      await put("b");
      await until(() => said.length > 0);
      const { sequence, acknowledged } = said[0]!;
      assert.deepEqual({ sequence, acknowledged }, { sequence: 2, acknowledged: "nobody-1" });
      assert.match(await metrics.render(), /headwater_jetstream_contradictions_total\{stream="s"\} [1-9]/);
    } finally {
      await nc.close();
      await reader.close();
    }
  },
);
