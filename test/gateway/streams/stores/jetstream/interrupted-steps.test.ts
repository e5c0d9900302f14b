/** A gateway is killed between any two steps of making or deleting a stream; the next one brings it to its end. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mock, type TestContext } from "node:test";
import { Documents } from "../../../../../gateway/streams/stores/jetstream/cluster/documents.ts";
import { JetStreams } from "../../../../../gateway/streams/stores/jetstream/cluster/jet-streams.ts";
import { Link } from "../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import { StreamTail } from "../../../../../gateway/streams/stores/jetstream/log/stream-tail.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { nodeFlags, scriptPath } from "../../../../support/script.ts";
import { clusterFact, type Ground, textsOf, until } from "./cluster-fact.ts";

const RECORD = [{ partitionKey: "k", data: Buffer.from("there") }];

/** Resolves with whether it came to its end by itself. */
async function runInterrupted(
  { cluster, prefix }: Ground,
  action: "make" | "delete",
  name: string,
  changes: number,
): Promise<boolean> {
  const program = scriptPath("./interrupted-gateway.ts", import.meta.url);
  const args = [cluster.servers.join(","), prefix, action, name, String(changes)];
  const child = spawn(process.execPath, [...nodeFlags, program, ...args], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve) =>
    child.once("exit", (...how) => resolve(how)),
  );
  assert.ok(code === 0 || signal === "SIGKILL", `ended with ${code ?? signal}`);
  return code === 0;
}

clusterFact("a killed gateway leaves no half of a stream, whichever step was its last", async (ground) => {
  const { open, cluster, prefix } = ground;
  const before = await open();
  await before.createStream({ name: "kept", shards: 1, retentionHours: 24 });
  const deleted: string[] = [];
  for (let i = 0; i < 5; i++) {
    const name = `old-${i}`;
    await before.createStream({ name, shards: 1, retentionHours: 24 });
    await before.append(name, RECORD);
    const consumer = await before.openConsumer(name, "c");
    await consumer.close();
    deleted.push(name);
  }
  await before.close();
  const made = deleted.map((_, i) => `new-${i}`);
  // One after the other: where two change the list of streams at once, one of them takes more steps.
  let steps = 0;
  for (const [i, name] of deleted.entries()) {
    if (!(await runInterrupted(ground, "make", made[i]!, i))) steps++;
    if (!(await runInterrupted(ground, "delete", name, i))) steps++;
  }
  assert.equal(steps, 3 + 4, "steps of making and of deleting");

  const link = await Link.open({ servers: cluster.servers, clock: systemClock, metrics: new Metrics() });
  // Streams of no name: an empty one goes, one with records is for the operator to judge.
  const [empty, full] = ["0", "1"].map((digit) => `${prefix}-${digit.repeat(32)}`) as [string, string];
  await link.streams.make({ name: empty, subjects: [`${prefix}.d.0.>`], num_replicas: 1 });
  await link.streams.make({ name: full, subjects: [`${prefix}.d.1.>`], num_replicas: 1 });
  await link.publish(full, `${prefix}.d.1.r`, Buffer.from("record"), {}, 0);
  const streams = await open();
  // Nothing of it was done before the first step; the rest is brought to its end.
  const wanted = ["kept", "new-1", "new-2", "new-3", "new-4", "old-0"];
  const documents = new Documents(link, prefix);
  try {
    await until(async () => streams.listStreams().length >= wanted.length);
    assert.deepEqual(streams.listStreams(), wanted);
    await until(async () => (await link.streams.names(prefix)).length === wanted.length + 2);
    const names = await link.streams.names(prefix);
    const ids = wanted.map((name) => `${prefix}-${streams.describe(name).streamId}`);
    assert.deepEqual(names.sort(), [`${prefix}-documents`, full, ...ids].sort());
    await until(async () => (await documents.keys("c")).length === 1);
    assert.ok((await documents.keys("c"))[0]!.startsWith(streams.describe("old-0").streamId));
  } finally {
    await link.close();
  }
  for (const name of wanted.filter((one) => one.startsWith("new"))) {
    await streams.append(name, RECORD);
    assert.deepEqual(await textsOf(streams, name), ["there"]);
  }
  assert.deepEqual(await textsOf(streams, "old-0"), ["there"]);
  // The names are free again, and what stood under them does not come back.
  await streams.createStream({ name: "old-1", shards: 1, retentionHours: 24 });
  assert.deepEqual(await textsOf(streams, "old-1"), []);
  assert.deepEqual(await streams.consumers("old-1"), []);
});

clusterFact("a leader that lags behind its own log has nothing taken for nobody's", async (ground) => {
  const { open, cluster, prefix } = ground;
  const before = await open();
  await before.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await (await before.openConsumer("s", "c")).close();
  const { get } = Documents.prototype;
  let lagging = 1;
  const asked = mock.method(Documents.prototype, "get", async function (this: Documents, key: string) {
    return key === "streams" && lagging-- > 0 ? { revision: 0, value: undefined } : get.call(this, key);
  });
  const link = await Link.open({ servers: cluster.servers, clock: systemClock, metrics: new Metrics() });
  try {
    const streams = await open();
    assert.ok(lagging <= 0);
    assert.deepEqual(streams.listStreams(), ["s"]);
    assert.deepEqual(
      (await streams.consumers("s")).map(({ name }) => name),
      ["c"],
    );
    assert.deepEqual(
      (await link.streams.names(prefix)).sort(),
      [`${prefix}-documents`, `${prefix}-${streams.describe("s").streamId}`].sort(),
    );
  } finally {
    asked.mock.restore();
    await link.close();
  }
});

/** Answers `times` as a leader does that lags behind its own log: of the list of streams it has nothing, and nothing newer. */
function lag(t: TestContext, times: number): { left: number } {
  const lagging = { left: times };
  const { get, hasChanged } = Documents.prototype;
  t.mock.method(Documents.prototype, "get", async function (this: Documents, key: string) {
    return key === "streams" && lagging.left-- > 0 ? { revision: 0, value: undefined } : get.call(this, key);
  });
  t.mock.method(Documents.prototype, "hasChanged", async function (this: Documents, key: string, at: number) {
    return key === "streams" && lagging.left-- > 0 ? false : hasChanged.call(this, key, at);
  });
  return lagging;
}

clusterFact("a leader that lags behind its own log undoes no step", async (ground, t) => {
  const streams = await ground.open();
  for (const name of ["s", "t"]) await streams.createStream({ name, shards: 1, retentionHours: 24 });
  const lagging = lag(t, 0);
  const laggingOnce = async (work: () => Promise<unknown>): Promise<void> => {
    lagging.left = 1;
    await work();
    assert.ok(lagging.left <= 0, "it was asked");
  };
  await laggingOnce(() => streams.registerReader("s", "reader", {}));
  assert.deepEqual(
    streams.registeredReaders("s").map(({ name }) => name),
    ["reader"],
  );
  await laggingOnce(() => streams.updateStream("s", { tags: { a: "b" } }));
  assert.deepEqual(streams.settings("s").tags, { a: "b" });
  await laggingOnce(() => streams.deleteStream("s"));
  assert.deepEqual(streams.listStreams(), ["t"]);
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await streams.append("s", RECORD);
  assert.deepEqual(await textsOf(streams), ["there"]);
});

clusterFact(
  "what a killed gateway began to make is not removed by the word of a lagging leader",
  async (ground, t) => {
    const streams = await ground.open();
    assert.equal(await runInterrupted(ground, "make", "s", 1), false);
    const lagging = lag(t, 0);
    const { put } = Documents.prototype;
    t.mock.method(
      Documents.prototype,
      "put",
      async function (this: Documents, ...args: Parameters<typeof put>) {
        const revision = await put.apply(this, args);
        if (args[0] === "streams") lagging.left = 1;
        return revision;
      },
    );
    const removed = t.mock.method(JetStreams.prototype, "remove");
    await until(() => streams.listStreams().includes("s") || removed.mock.callCount() > 0);
    assert.equal(removed.mock.callCount(), 0);
    assert.ok(lagging.left <= 0, "it was asked");
  },
);

clusterFact(
  "making a stream that a killed gateway began waits for it and says that it is there",
  async (ground) => {
    const before = await ground.open();
    assert.equal(await runInterrupted(ground, "make", "s", 1), false);
    await assert.rejects(before.createStream({ name: "s", shards: 1, retentionHours: 24 }), {
      code: "STREAM_EXISTS",
    });
    assert.equal(before.describe("s").name, "s");
  },
);

clusterFact("a gateway that gives a stream up leaves it where another one has made it", async ({ open }) => {
  const [a, b] = [await open(), await open()];
  const { make } = JetStreams.prototype;
  // As when the cluster refuses one of them for long: its request, and nobody else's.
  let calls = 0;
  const made = mock.method(
    JetStreams.prototype,
    "make",
    async function (this: JetStreams, config: { name: string }) {
      if (calls++ > 0) return make.call(this, config);
      await until(() => b.listStreams().includes("s"));
      await b.append("s", RECORD);
      throw new Error("the cluster refused to make it");
    },
  );
  try {
    // Either it says that it is there, or that it could not make it; it takes nothing away.
    const [outcome] = await Promise.allSettled([
      a.createStream({ name: "s", shards: 1, retentionHours: 24 }),
    ]);
    assert.ok(outcome!.status === "fulfilled" || /refused to make/.test(String(outcome!.reason)));
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    for (const streams of [a, b]) assert.deepEqual(await textsOf(streams), ["there"]);
  } finally {
    made.mock.restore();
  }
});

clusterFact(
  "a gateway that makes a stream which others have made and deleted leaves nothing of it",
  async (ground, t) => {
    const [a, b] = [await ground.open(), await ground.open()];
    const { make } = JetStreams.prototype;
    // As of a gateway that is paused before it asks the cluster for it.
    let calls = 0;
    t.mock.method(JetStreams.prototype, "make", async function (this: JetStreams, config: { name: string }) {
      if (calls++ === 0) {
        await until(() => b.listStreams().includes("s"));
        await b.deleteStream("s");
      }
      return make.call(this, config);
    });
    await assert.rejects(a.createStream({ name: "s", shards: 1, retentionHours: 24 }), {
      code: "STREAM_NOT_FOUND",
    });
    const options = { servers: ground.cluster.servers, clock: systemClock, metrics: new Metrics() };
    const link = await Link.open(options);
    try {
      // Another gateway may be at its own try still, which it removes as well.
      await until(async () => (await link.streams.names(ground.prefix)).length === 1);
    } finally {
      await link.close();
    }
  },
);

clusterFact("a stream that cannot be made, or opened, holds up no other", async (ground) => {
  const a = await ground.open();
  assert.equal(await runInterrupted(ground, "make", "refused", 1), false);
  const { make } = JetStreams.prototype;
  const { start } = StreamTail.prototype;
  let refusals = 0;
  let silent = "";
  let release = (): void => undefined;
  const ended = new Promise<void>((resolve) => {
    release = resolve;
  });
  // As an account's limit of streams does, for as long as it stands.
  const made = mock.method(JetStreams.prototype, "make", async function (this: JetStreams, config: never) {
    if (refusals > 0) return make.call(this, config);
    await ended;
    refusals++;
    throw new Error("maximum number of streams reached");
  });
  // As one whose nodes have lost its majority.
  const started = mock.method(StreamTail.prototype, "start", async function (this: StreamTail) {
    if (this.history.stream === silent) await ended;
    return start.call(this);
  });
  try {
    // By now it is this gateway that has to make it.
    await until(() => made.mock.callCount() > 0);
    made.mock.restore();
    const startedMs = performance.now();
    const b = await ground.open();
    await b.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await until(() => a.listStreams().includes("s"));
    silent = "silent";
    void b.createStream({ name: silent, shards: 1, retentionHours: 24 }).catch(() => undefined);
    const calls = started.mock.callCount();
    await until(() => started.mock.callCount() >= calls + 2);
    await b.createStream({ name: "t", shards: 1, retentionHours: 24 });
    await until(() => a.listStreams().includes("t"));
    await a.deleteStream("s");
    await until(() => !b.listStreams().includes("s"));
    assert.ok(performance.now() - startedMs < 10_000, "nobody waited");
  } finally {
    release();
    made.mock.restore();
    started.mock.restore();
  }
});
