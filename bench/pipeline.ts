/**
 * The main job's figures: how fast a backlog of the agent drains into the stream log, how long a
 * message takes from its sensor to a consumer, and what the two programs weigh.
 */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import mqtt from "mqtt";
import { WebSocket } from "ws";
import { openLevelRecordBuffer } from "../agent/buffer/records/level-record-buffer.ts";
import { systemClock } from "../runtime/clock.ts";
import { silentLog } from "../runtime/log.ts";
import { Metrics } from "../runtime/metrics.ts";
import { Pipeline } from "../test/support/pipeline.ts";
import { eventually } from "../test/support/program.ts";
import { appendFloor, percentile, rounded } from "./floor.ts";

const RECORDS = 500_000;
const RECORD_BYTES = 200;
const COMMIT_RECORDS = 500;
/** What the agent puts into one publish, and so what the gateway syncs at once at the least. */
const PUBLISH_BYTES = 262_144;
const LATENCY_SECONDS = 10;
const MESSAGES_PER_SECOND = 1_000;

export async function benchPipeline(say: (line: string) => void): Promise<Record<string, number>> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-bench-"));
  const figures: Record<string, number> = {};
  const pipeline = new Pipeline({ dir, seed: 1, camera: false, watermarkSeconds: 5, windowSeconds: 10 });
  try {
    say(`filling the agent's buffer with ${RECORDS} records of ${RECORD_BYTES} bytes`);
    await fillBuffer(join(dir, "agent-data", "records"));
    await pipeline.start({ paused: ["agent"] });
    figures.gatewayIdleMiB = rounded((await pipeline.gateway.residentBytes()) / 1_048_576);
    say("draining it into the stream log");
    Object.assign(figures, await drain(pipeline));
    const floor = await appendFloor(join(dir, "floor"), RECORDS * RECORD_BYTES, PUBLISH_BYTES);
    figures.floorMBps = rounded(floor.bytesPerSecond / 1e6);
    figures.drainToFloor = rounded(figures.drainMBps! / figures.floorMBps);

    say(`${MESSAGES_PER_SECOND} messages/s for ${LATENCY_SECONDS} s, from sensor to consumer`);
    Object.assign(figures, await latency(pipeline));
    figures.agentMiB = rounded((await pipeline.agent.residentBytes()) / 1_048_576);
    figures.gatewayMiB = rounded((await pipeline.gateway.residentBytes()) / 1_048_576);
    const sync = await appendFloor(join(dir, "floor"), 2_000 * RECORD_BYTES, RECORD_BYTES);
    figures.floorSyncP50Ms = rounded(sync.p50Ms);
    figures.floorSyncP99Ms = rounded(sync.p99Ms);
  } finally {
    await pipeline.close();
    await rm(dir, { recursive: true, force: true });
  }
  return figures;
}

/** Real commits by the real buffer. The payloads are hex digits of random bytes, which compress to half. */
async function fillBuffer(dir: string): Promise<void> {
  const buffer = await openLevelRecordBuffer({
    dir,
    device: "pi-1",
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    maxBytes: 2 ** 30,
    whenFull: "pause",
    commitDelayMs: 0,
    commitRecords: COMMIT_RECORDS,
  });
  const payload = (): Uint8Array => {
    const body = randomBytes(RECORD_BYTES / 2 - 10).toString("hex");
    return Buffer.from(`{"value":"${body}"}`.padEnd(RECORD_BYTES));
  };
  for (let made = 0; made < RECORDS; made += COMMIT_RECORDS) {
    const records = Array.from({ length: COMMIT_RECORDS }, (_, i) => ({
      stream: "sensors",
      partitionKey: `pi-1/sensor-${i % 20}`,
      timeUs: systemClock.nowUs(),
      payload: payload(),
    }));
    await buffer.append(records);
  }
  await buffer.close();
}

/** From the first frame's arrival to the last one's, each on disk at the gateway. */
async function drain(pipeline: Pipeline): Promise<Record<string, number>> {
  pipeline.startAgent();
  const stored = (): Promise<number> =>
    pipeline.metric("headwater_log_appended_records_total", 'stream="sensors"');
  let atFirst = 0;
  const first = await eventually("the first records arrive", 30_000, async () => {
    atFirst = await stored();
    return atFirst > 0 ? performance.now() : undefined;
  });
  const peak = { bytes: 0 };
  const last = await eventually("all records arrive", 120_000, async () => {
    peak.bytes = Math.max(peak.bytes, await pipeline.agent.residentBytes());
    return (await stored()) >= RECORDS ? performance.now() : undefined;
  });
  const perSecond = (RECORDS - atFirst) / ((last - first) / 1000);
  return {
    drainRecordsPerSecond: rounded(perSecond),
    drainMBps: rounded((perSecond * RECORD_BYTES) / 1e6),
    agentDrainingMiB: rounded(peak.bytes / 1_048_576),
  };
}

/** Sensor → agent (fdatasync) → gateway (fdatasync) → a consumer that is pushed each record. */
async function latency(pipeline: Pipeline): Promise<Record<string, number>> {
  const key = encodeURIComponent("pi-1/bench/latency");
  const socket = new WebSocket(
    `${pipeline.httpUrl.replace("http", "ws")}/api/live/readings?stream=sensors&key=${key}`,
    {
      headers: { cookie: await pipeline.signIn() },
    },
  );
  const waits: number[] = [];
  socket.on("message", (data) => {
    const now = systemClock.nowUs() / 1000;
    for (const row of JSON.parse(String(data)) as Array<{ values: { sentMs: number } }>) {
      if (row.values.sentMs > 0) waits.push(now - row.values.sentMs);
    }
  });
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  const sensor = await mqtt.connectAsync(pipeline.brokerUrl, { clientId: "bench", protocolVersion: 4 });
  // The consumer follows from some moment after the socket opened: begin once it is seen to.
  await eventually("the consumer follows", 10_000, async () => {
    await sensor.publishAsync("bench/latency", JSON.stringify({ sentMs: systemClock.nowUs() / 1000 }), {
      qos: 1,
    });
    return waits.length > 0 ? true : undefined;
  });
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  waits.length = 0;
  const total = MESSAGES_PER_SECOND * LATENCY_SECONDS;
  const began = performance.now();
  for (let sent = 0; sent < total; ) {
    const due = Math.min(total, Math.floor(((performance.now() - began) / 1000) * MESSAGES_PER_SECOND));
    for (; sent < due; sent++) {
      sensor.publish("bench/latency", JSON.stringify({ sentMs: systemClock.nowUs() / 1000, n: sent }), {
        qos: 1,
      });
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await eventually("the last message arrives", 20_000, async () => {
    if (waits.length < total) throw new Error(`${waits.length} of ${total} came`);
    return true;
  });
  await sensor.endAsync();
  socket.close();
  return {
    latencyMessages: waits.length,
    latencyP50Ms: rounded(percentile(waits, 0.5)),
    latencyP99Ms: rounded(percentile(waits, 0.99)),
  };
}
