/** With the timings of real life: a network that forgets a connection without a word is noticed within 30 s. */
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { openLevelFootageBuffer } from "../../agent/buffer/footage/level-footage-buffer.ts";
import { openLevelRecordBuffer } from "../../agent/buffer/records/level-record-buffer.ts";
import { MqttUplink } from "../../agent/uplink/mqtt-uplink.ts";
import { RtspUplink } from "../../agent/uplink/rtsp-uplink.ts";
import { agentConfig } from "../../config/agent-config.ts";
import { systemClock } from "../../runtime/clock.ts";
import { silentLog } from "../../runtime/log.ts";
import { Metrics } from "../../runtime/metrics.ts";
import { madeUnit } from "../agent/buffer/footage/made-unit.ts";
import { StandInBroker } from "../agent/uplink/stand-in-broker.ts";
import { StandInGateway } from "../agent/uplink/stand-in-gateway.ts";
import { removeFolder } from "../support/remove-folder.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

const FOUND_WITHIN_MS = 30_000;

async function folder(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-half-open-"));
  t.after(() => removeFolder(dir));
  return dir;
}

async function proxyTo(t: TestContext, targetPort: number): Promise<TcpProxy> {
  const proxy = new TcpProxy({ targetPort });
  await proxy.start();
  t.after(() => proxy.close());
  return proxy;
}

/** The uplinks live in this process: while it hangs, as on a busy machine, none of them can find anything. */
const HANGS_MS = 250;

/** @returns how long it took, of a hang of this process no more than its beginning */
async function until(holds: () => boolean): Promise<number> {
  let tookMs = 0;
  for (let beforeMs = performance.now(); !holds(); ) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    const nowMs = performance.now();
    tookMs += Math.min(nowMs - beforeMs, HANGS_MS);
    beforeMs = nowMs;
  }
  return tookMs;
}

/** An uplink of records as a config has it by default; its status goes out every second. */
async function recordUplink(t: TestContext) {
  const gateway = new StandInBroker();
  const proxy = await proxyTo(t, await gateway.start(t));
  const { buffer: buffering, uplink: sending } = agentConfig.parse({ device: "pi-1" });
  const shared = { device: "pi-1", clock: systemClock, log: silentLog, metrics: new Metrics() };
  const buffer = await openLevelRecordBuffer({ ...shared, ...buffering, dir: await folder(t) });
  const status = () => ({
    version: "0",
    buffer: { waitingRecords: 0, waitingBytes: 0, maxBytes: 1, oldestAgeMs: 0, droppedRecords: 0 },
    sources: [],
    residentBytes: 1,
  });
  const url = `mqtt://127.0.0.1:${proxy.port}`;
  const uplink = new MqttUplink({ ...shared, ...sending, url, buffer, status });
  await uplink.start();
  t.after(async () => {
    await uplink.close();
    await buffer.close();
  });
  await until(() => uplink.connected && gateway.statuses.length > 0);
  return { buffer, proxy, uplink };
}

async function idleRecords(t: TestContext): Promise<number> {
  const { proxy, uplink } = await recordUplink(t);
  proxy.blackhole();
  return until(() => !uplink.connected);
}

async function recordsUnderWay(t: TestContext): Promise<number> {
  const { buffer, proxy, uplink } = await recordUplink(t);
  proxy.blackhole();
  const payload = Buffer.alloc(100_000);
  await buffer.append([{ stream: "s", partitionKey: "k", timeUs: systemClock.nowUs(), payload }]);
  return until(() => !uplink.connected);
}

async function footageUnderWay(t: TestContext): Promise<number> {
  const gateway = new StandInGateway();
  await gateway.server.start();
  t.after(() => gateway.server.close());
  const proxy = await proxyTo(t, gateway.server.port);
  const shared = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const buffer = await openLevelFootageBuffer({ ...shared, dir: await folder(t), maxBytes: 1 << 28 });
  const config = { url: `rtsp://127.0.0.1:${proxy.port}`, device: "pi" };
  const uplink = new RtspUplink({ ...shared, config, buffer });
  await buffer.append(madeUnit("yard", 1, 5_000));
  await uplink.start();
  t.after(async () => {
    await uplink.close();
    await buffer.close();
  });
  await until(() => buffer.usage().waitingUnits === 0);
  proxy.blackhole();
  await buffer.append(madeUnit("yard", 2, 4_000_000));
  return until(() => proxy.counts().connections > 1);
}

test("a half-open connection is found within 30 s, whatever is under way on it", async (t) => {
  const found = await Promise.all([idleRecords(t), recordsUnderWay(t), footageUnderWay(t)]);
  const seconds = found.map((ms) => (ms / 1_000).toFixed(1));
  t.diagnostic(`found after: idle ${seconds[0]} s, records ${seconds[1]} s, footage ${seconds[2]} s`);
  for (const ms of found) assert.ok(ms <= FOUND_WITHIN_MS, seconds.join(", "));
});
