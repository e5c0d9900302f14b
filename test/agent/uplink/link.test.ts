/** What the MQTT uplink makes of a bad link and of what may be sent over it. */
import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { MqttUplink, type MqttUplinkOptions } from "../../../agent/uplink/mqtt-uplink.ts";
import type { StatusMessage } from "../../../protocol/topics.ts";
import { Backoff } from "../../../runtime/backoff.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { TcpProxy } from "../../support/tcp-proxy.ts";
import { openBuffer, record, temporaryFolder, texts } from "../buffer/records/buffer-fixture.ts";
import { linkRules } from "./made-rules.ts";
import { StandInBroker } from "./stand-in-broker.ts";

const STATUS: StatusMessage = {
  version: "0",
  buffer: { waitingRecords: 0, waitingBytes: 0, maxBytes: 1, oldestAgeMs: 0, droppedRecords: 0 },
  sources: [],
  residentBytes: 1,
};

interface Link {
  readonly buffer: RecordBuffer;
  readonly gateway: StandInBroker;
  readonly proxy: TcpProxy;
  readonly uplink: MqttUplink;
  readonly metrics: Metrics;
}

async function link(t: TestContext, options: Partial<MqttUplinkOptions> = {}): Promise<Link> {
  const buffer = await openBuffer(await temporaryFolder(t), { commitRecords: 5 });
  const gateway = new StandInBroker();
  const proxy = new TcpProxy({ targetPort: await gateway.start(t) });
  await proxy.start();
  const metrics = new Metrics();
  const uplink = new MqttUplink({
    url: `mqtt://127.0.0.1:${proxy.port}`,
    device: "pi-1",
    buffer,
    clock: systemClock,
    log: silentLog,
    metrics,
    compression: "never",
    publishBytes: 2_000,
    windowBytes: 10_000,
    statusSeconds: 60,
    status: () => STATUS,
    backoff: new Backoff(5, 50),
    ...options,
  });
  await uplink.start();
  t.after(async () => {
    await uplink.close();
    await buffer.close();
    await proxy.close();
  });
  return { buffer, gateway, proxy, uplink, metrics };
}

async function fill(buffer: RecordBuffer, count: number, stream = "sensors"): Promise<void> {
  const records = Array.from({ length: count }, (_, i) => record(`${i}`.padEnd(100), "pi-1/a", stream));
  await Promise.all(records.map((one) => buffer.append([one])));
}

async function waitFor(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

const pass = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test("an idle connection that is open on this side alone is found, though statuses go out", async (t) => {
  const { proxy, uplink, gateway } = await link(t, {
    statusSeconds: 0.02,
    silence: { quietMs: 150, answerMs: 300 },
  });
  await waitFor(() => uplink.connected && gateway.statuses.length > 0);
  proxy.blackhole();
  await waitFor(() => !uplink.connected);
  proxy.restore();
  await waitFor(() => uplink.connected);
});

test("a connection is left while it waits for an acknowledgement that will not come", async (t) => {
  const { proxy, uplink, gateway, buffer } = await link(t, {
    silence: { quietMs: 150, answerMs: 300 },
    connectTimeoutMs: 500,
  });
  await waitFor(() => uplink.connected);
  await fill(buffer, 10);
  await waitFor(() => buffer.usage().waitingBytes === 0);
  proxy.blackhole();
  await fill(buffer, 10);
  await waitFor(() => proxy.counts().connections > 1);
  proxy.restore();
  await waitFor(() => buffer.usage().waitingBytes === 0);
  assert.equal(texts(gateway.unique).length, 20);
});

test("a link that breaks before a large publish is through brings all the same, in order", async (t) => {
  const large = { publishBytes: 262_144, windowBytes: 2_097_152 };
  const { buffer, gateway, proxy } = await link(t, large);
  proxy.refuse();
  await fill(buffer, 2_000);
  proxy.restore();
  while (buffer.usage().waitingBytes > 0) {
    const { harmed } = proxy.counts();
    // From here on, and for whatever connection comes next.
    proxy.cutAfter(65_536);
    await waitFor(() => proxy.counts().harmed > harmed || buffer.usage().waitingBytes === 0);
  }
  assert.deepEqual(
    texts(gateway.unique).map((text) => text.trim()),
    Array.from({ length: 2_000 }, (_, i) => `${i}`),
  );
});

test("a gateway that dies right after it let us in is left, too", async (t) => {
  const { proxy, uplink, buffer } = await link(t, { silence: { quietMs: 150, answerMs: 300 } });
  await waitFor(() => uplink.connected);
  for (let i = 0; i < 3; i++) {
    proxy.cut();
    proxy.restore();
    // Of CONNACK two bytes come, and of SUBACK nothing.
    proxy.cutAfter(4, "down");
    await waitFor(() => !uplink.connected);
  }
  proxy.restore();
  await fill(buffer, 3);
  await waitFor(() => buffer.usage().waitingBytes === 0);
});

test("a live gateway is not left, however long nothing is to be said", async (t) => {
  const { proxy, uplink } = await link(t, { silence: { quietMs: 50, answerMs: 30_000 } });
  await waitFor(() => uplink.connected);
  await pass(1_000);
  assert.equal(proxy.counts().connections, 1);
  assert.ok(uplink.connected);
});

test("records keep to the cap", async (t) => {
  const rules = linkRules(t, { maxBytesPerSecond: "32KiB" });
  const { proxy, uplink, buffer } = await link(t, { rules });
  await waitFor(() => uplink.connected);
  const before = proxy.counts().upBytes;
  const startMs = performance.now();
  await fill(buffer, 300);
  await waitFor(() => buffer.usage().waitingBytes === 0);
  const seconds = (performance.now() - startMs) / 1_000;
  const sent = proxy.counts().upBytes - before;
  assert.ok(sent > 30_000 && sent <= 32_768 * (seconds + 0.25) + 2_048, `${sent} bytes in ${seconds} s`);
});

test("metered: what is not important stays, and the rest goes", async (t) => {
  const rules = linkRules(t, { mode: "metered", metered: { minPriority: 5, batchSeconds: 0 } });
  const { gateway, buffer } = await link(t, { rules });
  await fill(buffer, 5, "sensors");
  await fill(buffer, 5, "alarms");
  await gateway.until(() => texts(gateway.frames, "alarms").length === 5);
  await pass(100);
  assert.equal(texts(gateway.frames, "sensors").length, 0);
  assert.equal(buffer.usage().waitingRecords >= 5, true);
});

test("metered: records gather before they are sent", async (t) => {
  const rules = linkRules(t, { mode: "metered", metered: { batchSeconds: 0.5 } });
  const { gateway, buffer, uplink } = await link(t, { rules });
  await waitFor(() => uplink.connected);
  await pass(50);
  let publishes = 0;
  gateway.onFrames = () => {
    publishes++;
    return "ack";
  };
  const startMs = performance.now();
  for (let i = 0; i < 8; i++) {
    await fill(buffer, 1);
    await pass(20);
  }
  await waitFor(() => buffer.usage().waitingBytes === 0);
  // One every half second, however long the disk took; without gathering there would be eight.
  const batches = Math.floor((performance.now() - startMs) / 500);
  assert.ok(publishes <= 2 + batches, `${publishes} publishes in ${batches} half seconds`);
});

test("paused: nothing but the status goes, until the schedule lets records go", async (t) => {
  // For this link it is a second to midnight, and midnight comes when we say so.
  const evening = new Date(2026, 4, 5, 23, 59, 59).getTime();
  let midnight = false;
  const clock = {
    monotonicMs: () => systemClock.monotonicMs(),
    nowUs: () => (evening + (midnight ? 1_000 : 0)) * 1_000,
  };
  const schedule = [{ from: "00:00", to: "06:00", mode: "full" as const }];
  const rules = linkRules(t, { mode: "paused", schedule, metered: { statusSeconds: 1 } }, clock);
  const { gateway, buffer } = await link(t, { rules });
  await fill(buffer, 5);
  await gateway.until(() => gateway.statuses.length > 0);
  assert.equal(gateway.frames.length, 0);
  midnight = true;
  await waitFor(() => buffer.usage().waitingBytes === 0);
  assert.equal(texts(gateway.frames).length, 5);
});

/** The first at once; each next after at least half of what is asked, which doubles from 100 ms to 10 s. */
function mostConnections(withinMs: number): number {
  let count = 1;
  for (let waitMs = 50, atMs = 50; atMs <= withinMs; atMs += waitMs) {
    count++;
    waitMs = Math.min(2 * waitMs, 5_000);
  }
  return count;
}

test("a gateway that stays busy is sent little, and everything once it takes it", async (t) => {
  const startMs = performance.now();
  const { gateway, buffer, metrics } = await link(t, { publishBytes: 20_000, windowBytes: 100_000 });
  let busy = true;
  gateway.onFrames = () => (busy ? "busy" : "ack");
  await fill(buffer, 2_000);
  await pass(3_000);
  await waitFor(() => gateway.connections >= 2);
  const sent = /^headwater_uplink_bytes_sent_total (\d+)/m.exec(await metrics.render());
  const { connections } = gateway;
  const tookMs = performance.now() - startMs;
  assert.ok(connections <= mostConnections(tookMs), `${connections} connections in ${tookMs} ms`);
  // About 300 KB wait. The first connection may send a window, each later one a small publish.
  assert.ok(Number(sent?.[1]) < 120_000 + 5_000 * connections, `${sent?.[1]} bytes sent in vain`);
  busy = false;
  await waitFor(() => buffer.usage().waitingBytes === 0);
  assert.equal(texts(gateway.unique).length, 2_000);
});

test("that others take its connections is told in the status once the gateway says so", async (t) => {
  const { gateway, uplink, proxy } = await link(t);
  await waitFor(() => uplink.connected);
  assert.equal(uplink.work().contested, undefined);
  gateway.hello = { type: "hello", accepts: [], contested: true };
  proxy.cut();
  proxy.restore();
  await waitFor(() => uplink.work().contested === true);
});
