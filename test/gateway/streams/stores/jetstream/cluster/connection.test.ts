import assert from "node:assert/strict";
import { rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { NEWS_MS } from "../../../../../../gateway/streams/refusal.ts";
import { Link } from "../../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import { SILENT_MS } from "../../../../../../gateway/streams/stores/jetstream/cluster/silence.ts";
import { openJetStreamStreams } from "../../../../../../gateway/streams/stores/jetstream/jetstream.ts";
import { systemClock } from "../../../../../../runtime/clock.ts";
import { createLog, silentLog } from "../../../../../../runtime/log.ts";
import { Metrics } from "../../../../../../runtime/metrics.ts";
import { natsMissing } from "../../../../../support/nats-cluster.ts";
import { until } from "../cluster-fact.ts";
import { startSingleNode } from "../single-node.ts";

test("a gateway that the nodes refuse for a while is served again when they take it back", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const node = await startSingleNode();
  const link = await node.link();
  try {
    await link.streams.make({ name: "S", subjects: ["s"] });
    await link.publish("S", "s", Buffer.from("x"), {}, 0);
    await node.run("authorization { token: other }");
    // It was refused more than once.
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    await node.run();
    assert.deepEqual(await link.publish("S", "s", Buffer.from("y"), {}, 1), {
      stored: true,
      sequence: 2,
      id: `${link.id}-2`,
    });
    // It closes also while it is refused.
    await node.run("authorization { token: other }");
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    const waiting = link.publish("S", "s", Buffer.from("z"), {}, 2);
    const refused = assert.rejects(waiting, { code: "STREAMS_CLOSED" });
    await link.close();
    await refused;
  } finally {
    await link.close();
    await node.stop();
  }
});

/** The key is nobody's. */
const CREDENTIALS = `-----BEGIN NATS USER JWT-----
jwt
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
SUACI6N3YKDKWOR2UNH2KBVKIUGWWNFVSCVQ4VQX4JSWYL2XLIJSHCMJOE
------END USER NKEY SEED------
`;

test("a credentials file that is half written when a connection is sought again ends nothing", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const node = await startSingleNode();
  const first = await node.link();
  await first.streams.make({ name: "S", subjects: ["s"] });
  await first.close();
  const credentialsFile = join(tmpdir(), `headwater-${process.pid}.creds`);
  await writeFile(credentialsFile, CREDENTIALS);
  const { servers } = node;
  const link = await Link.open({ servers, credentialsFile, clock: systemClock, metrics: new Metrics() });
  try {
    await writeFile(credentialsFile, CREDENTIALS.slice(0, 40));
    await node.run();
    assert.deepEqual(await link.publish("S", "s", Buffer.from("x"), {}, 0), {
      stored: true,
      sequence: 1,
      id: `${link.id}-1`,
    });
  } finally {
    await link.close();
    await node.stop();
    await rm(credentialsFile, { force: true });
  }
});

test("a cluster that is away is told, and told no more when it is back, although nobody asks for anything", {
  skip: natsMissing() ?? false,
  timeout: 120_000,
}, async () => {
  const node = await startSingleNode();
  await node.run();
  await (await node.link()).close();
  let passedMs = 0;
  const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + passedMs };
  let said = "";
  const write = (line: string): void => {
    said += line;
  };
  const parts = { clock, log: createLog("gateway", "info", { write }), metrics: new Metrics() };
  const streams = await openJetStreamStreams({ servers: node.servers, replicas: 1, ...parts });
  try {
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await node.kill();
    passedMs += SILENT_MS;
    assert.equal(streams.unreachable, "the NATS cluster does not answer");
    await until(() => said.includes("the NATS cluster does not answer"));
    await node.run();
    await until(() => streams.unreachable === undefined);
    assert.match(said, /the NATS cluster answers again/);
    await streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
  } finally {
    await streams.close();
    await node.stop();
  }
});

test("an account whose room is used up is said to be full at once, and of which stream", {
  skip: natsMissing() ?? false,
  timeout: 120_000,
}, async () => {
  const node = await startSingleNode();
  await node.runLimited("max_file: 100000");
  let passedMs = 0;
  const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + passedMs };
  const parts = { clock, log: silentLog, metrics: new Metrics() };
  const streams = await openJetStreamStreams({ servers: node.servers, replicas: 1, ...parts });
  try {
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const puts = async (): Promise<void> => {
      for (let i = 0; i < 4; i++) {
        await streams.append("s", [{ partitionKey: "k", data: Buffer.alloc(40_000) }]);
      }
    };
    await assert.rejects(puts(), { code: "LOG_FULL", message: /^stream s cannot/, hint: /NATS nodes/ });
    assert.match(streams.describe("s").refusing!, /^stream s cannot/);
    // For a small one there is room.
    await streams.append("s", [{ partitionKey: "k", data: Buffer.alloc(100) }]);
    assert.equal(streams.describe("s").refusing, undefined);
    await assert.rejects(puts(), { code: "LOG_FULL" });
    assert.match(streams.describe("s").refusing!, /^stream s cannot/);
    // Who goes by it sends nothing that could tell that there is room again.
    passedMs += NEWS_MS;
    assert.equal(streams.describe("s").refusing, undefined);
  } finally {
    await streams.close();
    await node.stop();
  }
});

test("an account that may have no more streams is said to be at its limit at once", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const node = await startSingleNode();
  await node.runLimited("max_streams: 2");
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const streams = await openJetStreamStreams({ servers: node.servers, replicas: 1, ...parts });
  try {
    // One more holds the documents.
    await streams.createStream({ name: "one", shards: 1, retentionHours: 24 });
    const limited = { code: "STREAM_LIMIT", hint: /max_streams/ };
    await assert.rejects(streams.createStream({ name: "two", shards: 1, retentionHours: 24 }), limited);
    assert.deepEqual(streams.listStreams(), ["one"]);
    await streams.deleteStream("one");
    await streams.createStream({ name: "two", shards: 1, retentionHours: 24 });
  } finally {
    await streams.close();
    await node.stop();
  }
});

test("why the nodes cannot be used at the start is said, whichever reason it has", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const node = await startSingleNode();
  const open = (credentialsFile?: string): Promise<Link> => {
    const options = { servers: node.servers, clock: systemClock, metrics: new Metrics() };
    return Link.open({ ...options, ...(credentialsFile !== undefined && { credentialsFile }) });
  };
  try {
    await (await node.link()).close();
    const missing = join(tmpdir(), "headwater-none.creds");
    await assert.rejects(open(missing), {
      code: "JETSTREAM_UNFIT",
      message: /none\.creds cannot be used: ENOENT/,
    });
    const unfit = "/dev/null";
    await assert.rejects(open(unfit), {
      code: "JETSTREAM_UNFIT",
      message: /cannot be used: unable to parse/,
    });
    await node.run("authorization { token: other }");
    const refused = { code: "JETSTREAM_UNFIT", message: /refuse the gateway: Authorization Violation/ };
    const isThere = async (): Promise<boolean> => !/answers/.test(String(await open().catch(String)));
    await until(isThere);
    await assert.rejects(open(), refused);
    await node.kill();
    await assert.rejects(open(), { code: "JETSTREAM_UNFIT", message: /no NATS server of .* answers/ });
  } finally {
    await node.stop();
  }
});

test("a node that takes smaller messages than at the start is left, and that is said", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const node = await startSingleNode();
  await (await node.link()).close();
  const said: string[] = [];
  const log = createLog("gateway", "info", { write: (line) => void said.push(line) });
  const link = await Link.open({ servers: node.servers, clock: systemClock, log, metrics: new Metrics() });
  try {
    await link.streams.make({ name: "S", subjects: ["s"] });
    await node.run("max_payload: 1MB");
    await until(() => said.some((line) => /takes messages of fewer bytes.*max_payload: 16MB/.test(line)));
    const put = link.publish("S", "s", Buffer.alloc(2_000_000), {}, 0);
    await node.run();
    assert.deepEqual(await put, { stored: true, sequence: 1, id: `${link.id}-1` });
  } finally {
    await link.close();
    await node.stop();
  }
});
