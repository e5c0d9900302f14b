import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { connect } from "@nats-io/transport-node";
import { Link } from "../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import type { Consumer, Streams } from "../../../../../gateway/streams/streams.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { makeFrame } from "../../../../contract/stream-records.ts";
import { nodeFlags, scriptPath } from "../../../../support/script.ts";
import { clusterFact as fact, textsOf, until } from "./cluster-fact.ts";

const SOUND = "lost 0: , doubled 0: , never stored 0: ";

/** What of the stored texts was not seen, was seen twice, and was seen and not stored. */
function comparedWith(stored: readonly string[], seen: readonly string[]): string {
  const [wanted, found] = [new Set(stored), new Set<string>()];
  const again = seen.filter((text) => found.size === found.add(text).size);
  const told = (what: string, texts: readonly string[]): string =>
    `${what} ${texts.length}: ${texts.slice(0, 20).join(" ")}`;
  const lost = [...wanted].filter((text) => !found.has(text));
  const foreign = [...found].filter((text) => !wanted.has(text));
  return [told("lost", lost), told("doubled", again), told("never stored", foreign)].join(", ");
}

const HALF = 2n ** 127n;

/** Resolves when the gateway of `gateway-process.ts` has stored its first frames. */
async function busyGateway(servers: readonly string[], prefix: string) {
  const program = scriptPath("./gateway-process.ts", import.meta.url);
  const child = spawn(process.execPath, [...nodeFlags, program, servers.join(","), prefix], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  let said = "";
  child.stdout.on("data", (chunk: Buffer) => {
    said += chunk.toString();
  });
  await until(() => said.split("\n").length > 50 || child.exitCode !== null);
  return { child, said: () => said };
}

fact("two gateways serve the same streams, and a split at one holds at the other", async ({ open }) => {
  const [a, b] = [await open(), await open()];
  await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await until(() => b.listStreams().includes("s"));
  const writes: Array<Promise<unknown>> = [];
  for (let i = 1; i <= 100; i++) {
    writes.push(a.append("s", [{ partitionKey: `k${i}`, data: Buffer.from(`a${i}`) }]));
    // The same agent by way of both: one of them stores it.
    const frame = makeFrame("s", BigInt(i), [`f${i}`]);
    const outcomes = await Promise.all([a.appendFrame(frame), b.appendFrame(frame)]);
    assert.deepEqual(outcomes.sort(), ["duplicate", "stored"]);
    if (i === 50) writes.push(a.splitShard("s", "shardId-000000000000", HALF));
  }
  const placed = await b.append(
    "s",
    Array.from({ length: 20 }, (_, i) => ({ partitionKey: `p${i}`, data: Buffer.from(`p${i}`) })),
  );
  await Promise.all(writes);
  const wanted = [
    ...Array.from({ length: 100 }, (_, i) => [`a${i + 1}`, `f${i + 1}`]).flat(),
    ...Array.from({ length: 20 }, (_, i) => `p${i}`),
  ].sort();
  await until(() => a.describe("s").shardList.length === 3 && b.describe("s").shardList.length === 3);
  assert.ok(placed.every(({ shardId }) => shardId !== "shardId-000000000000"));
  for (const streams of [a, b]) {
    // What a gateway has not heard of yet it hears of with its next look.
    await until(async () => (await textsOf(streams)).length >= wanted.length);
    assert.deepEqual((await textsOf(streams)).sort(), wanted);
  }
});

fact("a lease moves at once when it is given back, and its loser moves no checkpoint", async ({ open }) => {
  const [a, b] = [await open(), await open()];
  await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await until(() => b.listStreams().includes("s"));
  const first: Consumer = await a.openConsumer("s", "c");
  await assert.rejects(b.openConsumer("s", "c"), { code: "LEASE_HELD" });
  const [placed] = await a.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
  await first.checkpoint(new Map([[placed!.shardId, placed!.offset + 1]]));
  await first.close();
  const second = await b.openConsumer("s", "c");
  assert.equal(second.positions().get(placed!.shardId), placed!.offset + 1);
  const third = await a.openConsumer("s", "c", { takeOver: true });
  const next = await a.append("s", [{ partitionKey: "k", data: Buffer.from("y") }]);
  const moved = new Map([[placed!.shardId, next[0]!.offset + 1]]);
  await until(() => b.describe("s").shardList[0]!.latest === next[0]!.offset + 1);
  await assert.rejects(second.checkpoint(moved), { code: "LEASE_LOST" });
  assert.equal(second.lost.aborted, true);
  await third.checkpoint(moved);
});

fact("SIGKILL of every NATS node in turn, under load: lost 0, doubled 0", async ({ cluster, open }) => {
  const [a, b] = [await open(), await open()];
  await a.createStream({ name: "s", shards: 2, retentionHours: 24 });
  await until(() => b.listStreams().includes("s"));
  let going = true;
  const stored: string[] = [];
  const write = async (streams: Streams, writer: number): Promise<void> => {
    for (let i = 1n; going; i++) {
      const text = `w${writer}=${i}`;
      assert.equal(await streams.appendFrame(makeFrame("s", i, [text], BigInt(writer + 1))), "stored");
      stored.push(text);
    }
  };
  const plain = async (streams: Streams, clientId: string): Promise<void> => {
    for (let i = 1; going; i++) {
      const text = `${clientId}-${i}`;
      const payload = Buffer.from(text);
      const publish = {
        clientId,
        packetId: i,
        partitionKey: clientId,
        timeUs: 1,
        payload,
        mayRepeat: false,
      };
      await streams.appendPublish("s", publish);
      stored.push(text);
    }
  };
  const put = async (streams: Streams, name: string): Promise<void> => {
    for (let i = 1; going; i++) {
      await streams.append("s", [{ partitionKey: name, data: Buffer.from(`${name}:${i}`) }]);
      stored.push(`${name}:${i}`);
    }
  };
  const writers = [a, b].flatMap((streams, i) => [
    write(streams, i * 2),
    write(streams, i * 2 + 1),
    plain(streams, `plug${i}`),
    put(streams, `put${i}`),
  ]);
  try {
    // One of the three is the stream's leader.
    for (let node = 0; node < 3; node++) {
      await cluster.kill(node);
      const from = stored.length;
      await until(() => stored.length > from + 100);
      await cluster.restart(node);
      await cluster.current();
    }
  } finally {
    going = false;
    await Promise.all(writers);
  }
  const seen = comparedWith(stored, await textsOf(await open()));
  // Where the first look is bad, another one says whether it is the log or the looking.
  if (seen !== SOUND)
    for (const streams of [await open(), a, b])
      console.error("another look:", comparedWith(stored, await textsOf(streams)));
  assert.equal(seen, SOUND);
});

fact(
  "what a node sends on a second time does not count, and its gateway goes on behind it",
  async ({ cluster, open, prefix }) => {
    const [a, b] = [await open(), await open()];
    await a.createStream({ name: "s", shards: 2, retentionHours: 24 });
    await until(() => b.listStreams().includes("s"));
    const put = (streams: Streams, text: string) =>
      streams.append("s", [{ partitionKey: text, data: Buffer.from(text) }]);
    for (const text of ["a1", "a2"]) await put(a, text);
    await put(b, "b1");
    const link = await Link.open({ servers: cluster.servers, clock: systemClock, metrics: new Metrics() });
    const nc = await connect({ servers: cluster.servers });
    try {
      const { streamId } = a.describe("s");
      const stream = `${prefix}-${streamId}`;
      const { subjects } = await link.state(stream, `${prefix}.d.${streamId}.g.>`);
      assert.equal(subjects.length, 2, "each gateway has a subject of its own");
      for (const subject of subjects) {
        const last = await link.leaderGet(stream, { last_by_subj: subject });
        await nc.request(subject, last!.payload);
      }
    } finally {
      await nc.close();
      await link.close();
    }
    const placed = await put(a, "a3");
    await put(b, "b2");
    const wanted = ["a1", "a2", "a3", "b1", "b2"];
    for (const streams of [a, b, await open()]) {
      await until(async () => (await textsOf(streams)).length >= wanted.length);
      assert.deepEqual((await textsOf(streams)).sort(), wanted);
    }
    const { parts } = await b.read("s", placed[0]!.shardId, placed[0]!.offset, 1_000);
    assert.equal(parts[0]!.first, placed[0]!.offset, "it stands where its writer was told");
  },
);

fact(
  "a gateway that is killed is taken over, and its last frame is known",
  async ({ cluster, open, prefix }) => {
    const streams = await open();
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const { child, said } = await busyGateway(cluster.servers, prefix);
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
    const killedMs = performance.now();
    const consumer = await streams.openConsumer("s", "c");
    const takenMs = performance.now() - killedMs;
    assert.ok(takenMs < 30_000, `taken over after ${takenMs} ms`);
    const [last, position] = said().split("\n").at(-2)!.split(" ").map(Number);
    assert.ok([...consumer.positions().values()][0]! >= position!);
    // The agent sends what it has no PUBACK for, and goes on.
    assert.equal(await streams.appendFrame(makeFrame("s", BigInt(last!), [`key=${last}`])), "duplicate");
    const end = last! + 20;
    for (let i = last! + 1; i <= end; i++) await streams.appendFrame(makeFrame("s", BigInt(i), [`key=${i}`]));
    assert.deepEqual(
      await textsOf(streams),
      Array.from({ length: end }, (_, i) => `key=${i + 1}`),
    );
  },
);

fact(
  "a gateway that has heard of more than it can get closes, all the same, without a majority of the nodes",
  async ({ cluster, open, prefix }) => {
    const streams = await open();
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const { streamId } = streams.describe("s");
    await streams.close();
    // In a process of its own: one that spins would keep this one from seeing that it does.
    const { child } = await busyGateway([cluster.servers[2]!], prefix);
    const gone = new Promise((resolve) => child.once("exit", resolve));
    await Promise.all([cluster.kill(0), cluster.kill(1)]);
    try {
      const nc = await connect({ servers: cluster.servers[2]! });
      nc.publish(`${prefix}.n.${streamId}`, "1000000 of-another-gateway");
      await nc.drain();
      child.stdin.write("close");
      const late = new Promise((resolve) => setTimeout(resolve, 40_000, "runs").unref());
      assert.equal(await Promise.race([gone, late]), 0);
    } finally {
      child.kill("SIGKILL");
      await Promise.all([cluster.restart(0), cluster.restart(1)]);
      await cluster.current();
    }
  },
);

fact(
  "without a majority of the nodes writes wait, and a gateway closes all the same",
  async ({ cluster, open }) => {
    const [a, b] = [await open(), await open()];
    await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await a.openConsumer("s", "c");
    await until(() => b.listStreams().includes("s"));
    const stage = await b.openConsumer("s", "of a stage");
    assert.equal(await a.appendFrame(makeFrame("s", 1n, ["f1"])), "stored");
    await Promise.all([cluster.kill(0), cluster.kill(1)]);
    const waiting = a.appendFrame(makeFrame("s", 2n, ["f2"]));
    const closedMs = performance.now();
    // The stages give their leases back first.
    await stage.close();
    assert.ok(stage.lost.aborted);
    await b.close();
    assert.ok(performance.now() - closedMs < 40_000, "it does not wait as long as a write does");
    assert.equal(await Promise.race([waiting, "waits"]), "waits");
    await Promise.all([cluster.restart(0), cluster.restart(1)]);
    await cluster.current();
    assert.equal(await waiting, "stored");
    assert.equal(await a.appendFrame(makeFrame("s", 2n, ["f2"])), "duplicate");
    assert.deepEqual(await textsOf(await open()), ["f1", "f2"]);
  },
);

fact(
  "a stage in the midst of a read ends within seconds when its gateway closes",
  async ({ cluster, open }) => {
    const a = await open();
    await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
    for (let i = 0; i < 20; i++) await a.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
    // It has nothing of it in memory.
    const b = await open();
    const { shardId, trimHorizon } = b.describe("s").shardList[0]!;
    await Promise.all([cluster.kill(0), cluster.kill(1), cluster.kill(2)]);
    try {
      const reading = b.read("s", shardId, trimHorizon, 1_000_000);
      assert.equal(
        await Promise.race([reading, new Promise((resolve) => setTimeout(resolve, 5_000))]),
        undefined,
      );
      const closedMs = performance.now();
      b.hurry!();
      await assert.rejects(reading, { code: "LOG_WRITE_FAILED" });
      assert.ok(performance.now() - closedMs < 40_000, "sooner than without a hurry");
      await b.close();
    } finally {
      await Promise.all([0, 1, 2].map((node) => cluster.restart(node)));
      await cluster.current();
    }
  },
);

fact(
  "frames behind one that the cluster did not take in time are refused with it",
  async ({ cluster, open }) => {
    let hastySinceMs: number | undefined;
    const monotonicMs = (): number => {
      const nowMs = systemClock.monotonicMs();
      return nowMs + (hastySinceMs === undefined ? 0 : 59 * (nowMs - hastySinceMs));
    };
    const streams = await open({ nowUs: systemClock.nowUs, monotonicMs });
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    // The minute after which it gives up is a second from now on.
    hastySinceMs = systemClock.monotonicMs();
    await Promise.all([cluster.kill(0), cluster.kill(1)]);
    const frames = [1n, 2n, 3n].map((i) => makeFrame("s", i, [`f${i}`]));
    const first = streams.appendFrame(frames[0]!);
    // The first one is on its way, the others wait for it.
    await new Promise((resolve) => setTimeout(resolve, 100));
    const others = frames.slice(1).map((frame) => streams.appendFrame(frame));
    const refused = Promise.allSettled(others);
    await assert.rejects(first, { code: "LOG_WRITE_FAILED" });
    await Promise.all([cluster.restart(0), cluster.restart(1)]);
    await cluster.current();
    for (const { status } of await refused) assert.equal(status, "rejected");
    await streams.close();
    const next = await open();
    for (const frame of frames) await next.appendFrame(frame);
    assert.deepEqual(await textsOf(next), ["f1", "f2", "f3"]);
  },
);
