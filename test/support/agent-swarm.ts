/**
 * A child process that is many agents: each has a record buffer on disk and an MQTT uplink of its own,
 * with the defaults of a config, and stores a numbered record now and then. Its parent is told about
 * ten times a second how many are connected and how often they tried.
 *
 *   parent ─fork(SwarmOrder)→ swarm ─SwarmSample …→ parent ─"finish"→ swarm ─drained→ parent
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { RecordBuffer } from "../../agent/buffer/record-buffer.ts";
import { openLevelRecordBuffer } from "../../agent/buffer/records/level-record-buffer.ts";
import { MqttUplink } from "../../agent/uplink/mqtt-uplink.ts";
import { agentConfig } from "../../config/agent-config.ts";
import type { StatusMessage } from "../../protocol/topics.ts";
import { systemClock } from "../../runtime/clock.ts";
import { silentLog } from "../../runtime/log.ts";
import { Metrics } from "../../runtime/metrics.ts";

export interface SwarmOrder {
  readonly dir: string;
  readonly url: string;
  readonly first: number;
  readonly count: number;
  readonly stream: string;
  readonly everyMs: number;
}

export interface SwarmSample {
  readonly type: "sample";
  /** By the clock on the wall, which all processes share. */
  readonly atMs: number;
  /** Connections tried since the start. */
  readonly tries: number;
  readonly connected: number;
}

/** Nothing waits any more. */
export interface SwarmDrained {
  readonly type: "drained";
  /** How many records each agent stored: numbers from 0 on. */
  readonly stored: Readonly<Record<string, number>>;
}

interface SwarmAgent {
  readonly device: string;
  readonly buffer: RecordBuffer;
  readonly uplink: MqttUplink;
  stored: number;
}

const SAMPLE_MS = 100;
const STATUS: StatusMessage = {
  version: "0",
  buffer: { waitingRecords: 0, waitingBytes: 0, maxBytes: 1, oldestAgeMs: 0, droppedRecords: 0 },
  sources: [],
  residentBytes: 1,
};

const order = JSON.parse(process.argv[2]!) as SwarmOrder;
const metrics = new Metrics();
const tries = metrics.counter("headwater_uplink_connections_total", "Connections tried");
const agents: SwarmAgent[] = [];
const timers: NodeJS.Timeout[] = [];
let appending = true;
/** Not on an agent's disk yet. */
let underWay = 0;

async function makeAgent(number: number): Promise<SwarmAgent> {
  const device = `pi-${number}`;
  const dir = join(order.dir, device);
  await mkdir(dir, { recursive: true });
  const { buffer: buffering, uplink: sending } = agentConfig.parse({ device });
  const shared = { device, clock: systemClock, log: silentLog, metrics };
  const buffer = await openLevelRecordBuffer({ ...shared, ...buffering, dir, maxBytes: 4 << 20 });
  const uplink = new MqttUplink({ ...shared, ...sending, url: order.url, buffer, status: () => STATUS });
  return { device, buffer, uplink, stored: 0 };
}

async function append(agent: SwarmAgent): Promise<void> {
  if (!appending) return;
  const { device, buffer } = agent;
  const payload = Buffer.from(JSON.stringify({ device, number: agent.stored++ }));
  underWay++;
  await buffer.append([{ stream: order.stream, partitionKey: device, timeUs: systemClock.nowUs(), payload }]);
  underWay--;
}

async function sample(): Promise<void> {
  const { values } = await tries.get();
  const connected = agents.filter(({ uplink }) => uplink.connected).length;
  const told: SwarmSample = { type: "sample", atMs: Date.now(), tries: values[0]?.value ?? 0, connected };
  process.send?.(told);
}

async function finish(): Promise<void> {
  appending = false;
  while (underWay > 0 || agents.some(({ buffer }) => buffer.usage().waitingRecords > 0)) {
    await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
  }
  const stored = Object.fromEntries(agents.map((agent) => [agent.device, agent.stored]));
  const told: SwarmDrained = { type: "drained", stored };
  process.send?.(told, () => void close());
}

async function close(): Promise<void> {
  for (const timer of timers) clearInterval(timer);
  await Promise.all(agents.map(({ uplink }) => uplink.close()));
  await Promise.all(agents.map(({ buffer }) => buffer.close()));
  process.exit(0);
}

process.on("message", () => void finish());
process.on("disconnect", () => process.exit(1));
for (let i = 0; i < order.count; i++) agents.push(await makeAgent(order.first + i));
for (const agent of agents) {
  await append(agent);
  await agent.uplink.start();
  // Not all in the same moment.
  const begin = setTimeout(
    () => timers.push(setInterval(() => void append(agent), order.everyMs)),
    Math.random() * order.everyMs,
  );
  timers.push(begin);
}
timers.push(setInterval(() => void sample(), SAMPLE_MS));
