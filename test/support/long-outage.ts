/**
 * Seven days without a gateway, at 100 records/s, scaled 1:60: as many records as 2.8 hours make, with times that
 * lie over seven days. Then the gateway is back: how soon does the agent run, how fast and in which order does
 * it send what waits, and how long does a live record take meanwhile?
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  GetRecordsCommand,
  GetShardIteratorCommand,
  type KinesisClient,
  ListShardsCommand,
} from "@aws-sdk/client-kinesis";
import mqtt from "mqtt";
import { openLevelRecordBuffer } from "../../agent/buffer/records/level-record-buffer.ts";
import type { StatusMessage } from "../../protocol/topics.ts";
import { systemClock } from "../../runtime/clock.ts";
import { silentLog } from "../../runtime/log.ts";
import { Metrics } from "../../runtime/metrics.ts";
import { eventually, freePorts, Program } from "./program.ts";
import { removeFolder } from "./remove-folder.ts";
import { kinesisClient, READ_WITHIN_MS } from "./stream-writers.ts";

export const OUTAGE_DAYS = 7;
/** Seven days of 100 records/s, divided by 60. */
export const OUTAGE_RECORDS = 1_008_000;

export interface LongOutageOptions {
  readonly dir: string;
  readonly records: number;
  readonly liveFirst: boolean;
  readonly say: (line: string) => void;
}

export interface LongOutageResult {
  /** From the start of its process until it is ready. */
  readonly bootMs: number;
  /** The same without anything in its buffer, right before. */
  readonly emptyBootMs: number;
  readonly drainMs: number;
  readonly drainedRecords: number;
  /** From a sensor's publish to the gateway's disk, of those published while the backlog drained; sorted. */
  readonly liveMs: readonly number[];
  readonly lost: number;
  readonly doubled: number;
  /** Behind a later one of the same sensor, where that is not what live-first is for. */
  readonly outOfOrder: number;
}

const STREAM = "sensors";
const KEY = { id: "outage", secret: "a-secret-of-the-outage-alone" };
const SENSORS = 20;
/** Live records are one sensor's; it has a backlog, too. */
const LIVE = "s0";
const LIVE_EVERY_MS = 100;
const CALL_RECORDS = 200;
const PAD = "x".repeat(96);
const DAY_US = 86_400_000_000;
const DRAIN_MS = 240_000;
/** With fewer waiting the backlog is gone: what waits is what came just now. */
const CAUGHT_UP_RECORDS = 1_000;

/** The sensor's name and its next number. */
interface Truth {
  readonly sent: Map<string, number>;
  /** Numbers of LIVE beyond this one are live. */
  backlogOfLive: number;
}

export async function runLongOutage(options: LongOutageOptions): Promise<LongOutageResult> {
  const { dir, records, liveFirst, say } = options;
  await mkdir(dir, { recursive: true });
  const truth = await fillBuffer(join(dir, "agent-data", "records"), records);
  say(`${records} records wait, of ${OUTAGE_DAYS} days`);
  const ports = await writeConfigs(dir, liveFirst);
  const live = new LiveSensor(`mqtt://127.0.0.1:${ports.broker}`, truth.backlogOfLive);
  const client = kinesisClient(ports.http, KEY, READ_WITHIN_MS);
  const gateway = new Program("gateway", join(dir, "gateway.yaml"), join(dir, "gateway.log"));
  let agent: Program | undefined;
  const boot = async (name: string): Promise<number> => {
    const began = performance.now();
    agent = new Program("agent", join(dir, `${name}.yaml`), join(dir, `${name}.log`));
    await agent.ready;
    return performance.now() - began;
  };
  try {
    await gateway.ready;
    const emptyBootMs = await boot("empty");
    await agent!.stop();
    const bootMs = await boot("agent");
    const booted = performance.now();
    say(
      `the agent boots in ${(bootMs / 1_000).toFixed(2)} s; empty in ${(emptyBootMs / 1_000).toFixed(2)} s`,
    );
    await live.start();
    await waitingBelow(ports.agent, CAUGHT_UP_RECORDS);
    const drainMs = performance.now() - booted;
    const lastMeasured = live.last;
    await live.stop();
    await waitingBelow(ports.agent, 1);
    say(`drained in ${(drainMs / 1_000).toFixed(1)} s; comparing`);
    truth.sent.set(LIVE, live.last);
    const judge = new OutageJudge(truth, live, lastMeasured, liveFirst);
    await readAll(client, judge);
    return { bootMs, emptyBootMs, drainMs, drainedRecords: records, ...judge.result() };
  } finally {
    client.destroy();
    await live.stop();
    await agent?.stop();
    await gateway.stop();
  }
}

async function writeConfigs(dir: string, liveFirst: boolean) {
  const [http, mqttPort, rtsp, agent, broker] = (await freePorts(5)) as [
    number,
    number,
    number,
    number,
    number,
  ];
  await writeFile(
    join(dir, "gateway.yaml"),
    `
dataDir: gateway-data
http: { port: ${http} }
mqtt: { port: ${mqttPort} }
rtsp: { port: ${rtsp} }
accessKeys: [{ id: ${KEY.id}, secret: ${KEY.secret}, allow: ["*"] }]
streams: [{ name: ${STREAM}, shards: 2 }]
`,
  );
  for (const name of ["agent", "empty"])
    await writeFile(
      join(dir, `${name}.yaml`),
      `
device: ${name === "agent" ? "pi-1" : "pi-2"}
dataDir: ${name}-data
gateway: { mqtt: "mqtt://127.0.0.1:${mqttPort}" }
http: { port: ${agent} }
sources: [{ name: local, type: mqtt, port: ${broker} }]
${liveFirst ? `uplink: { liveFirst: [${STREAM}] }` : ""}
`,
    );
  return { http, agent, broker };
}

const BOOT_BAR_MS = 5_000;
const LIVE_BAR_MS = 2_000;

/** Both ways of sending, judged by what is promised of them. The folder is removed when nothing was found. */
export async function judgeLongOutage(options: {
  readonly dir: string;
  readonly say: (line: string) => void;
}): Promise<{
  readonly lost: number;
  readonly doubled: number;
  readonly corrupted: number;
  readonly findings: readonly string[];
  readonly compared: Readonly<Record<string, number>>;
}> {
  const { dir, say } = options;
  const verdict = { lost: 0, doubled: 0, corrupted: 0, findings: [] as string[] };
  const compared: Record<string, number> = {};
  for (const liveFirst of [false, true]) {
    const name = liveFirst ? "live first" : "in order";
    say(`seven days without a gateway, scaled 1:60; ${name}`);
    const result = await runLongOutage({
      ...{ dir: join(dir, liveFirst ? "live" : "ordered"), liveFirst, say },
      records: OUTAGE_RECORDS,
    });
    verdict.lost += result.lost;
    verdict.doubled += result.doubled;
    verdict.corrupted += result.outOfOrder;
    const found = `${name}: lost ${result.lost}, doubled ${result.doubled}, out of order ${result.outOfOrder}`;
    if (result.lost + result.doubled + result.outOfOrder > 0) verdict.findings.push(found);
    // Where an empty one takes so long as well, it is the machine that is busy.
    if (result.bootMs > Math.max(BOOT_BAR_MS, 2 * result.emptyBootMs))
      verdict.findings.push(`${name}: booted in ${result.bootMs} ms`);
    const liveMs = percentile(result.liveMs, 0.99);
    if (liveFirst && liveMs > LIVE_BAR_MS) verdict.findings.push(`${name}: p99 of live records ${liveMs} ms`);
    compared[`${name}: boot ms`] = Math.round(result.bootMs);
    compared[`${name}: empty boot ms`] = Math.round(result.emptyBootMs);
    compared[`${name}: drained records/s`] = Math.round(result.drainedRecords / (result.drainMs / 1_000));
    compared[`${name}: live records meanwhile`] = result.liveMs.length;
    compared[`${name}: live p50 ms`] = percentile(result.liveMs, 0.5);
    compared[`${name}: live p99 ms`] = liveMs;
  }
  if (verdict.findings.length === 0) await removeFolder(dir);
  return { ...verdict, compared };
}

/** As the agent does it that had no gateway all the time; only its clock is quicker. */
async function fillBuffer(dir: string, records: number): Promise<Truth> {
  const startUs = systemClock.nowUs() - OUTAGE_DAYS * DAY_US;
  let made = 0;
  const nowUs = (): number => startUs + Math.floor((made / records) * OUTAGE_DAYS * DAY_US);
  const buffer = await openLevelRecordBuffer({
    dir,
    device: "pi-1",
    clock: { nowUs, monotonicMs: () => systemClock.monotonicMs() },
    log: silentLog,
    metrics: new Metrics(),
    maxBytes: 2 ** 31,
    whenFull: "pause",
    commitDelayMs: 100,
    commitRecords: 1_000,
  });
  const sent = new Map<string, number>();
  const call = (): Promise<void> => {
    const count = Math.min(CALL_RECORDS, records - made);
    const batch = Array.from({ length: count }, () => {
      const sensor = `s${made % SENSORS}`;
      const seq = (sent.get(sensor) ?? 0) + 1;
      sent.set(sensor, seq);
      const timeUs = nowUs();
      made++;
      const text = `{"device":"pi-1","sensor":"${sensor}","time":"${new Date(timeUs / 1_000).toISOString()}","seq":${seq},"pad":"${PAD}"}`;
      return { stream: STREAM, partitionKey: `pi-1/${sensor}`, timeUs, payload: Buffer.from(text) };
    });
    return buffer.append(batch);
  };
  while (made < records)
    await Promise.all(Array.from({ length: 10 }, () => (made < records ? call() : undefined)));
  await buffer.close();
  return { sent, backlogOfLive: sent.get(LIVE)! };
}

/** One record each 100 ms, whatever becomes of those before. */
class LiveSensor {
  /** By number. */
  readonly sentMs = new Map<number, number>();
  last: number;
  readonly #url: string;
  #client: mqtt.MqttClient | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #publishing = new Set<Promise<void>>();

  constructor(url: string, backlog: number) {
    this.#url = url;
    this.last = backlog;
  }

  async start(): Promise<void> {
    this.#client = await mqtt.connectAsync(this.#url, { clientId: LIVE, protocolVersion: 4 });
    this.#timer = setInterval(() => {
      // One that fails is missed by the judge.
      const publishing = this.#publish()
        .catch(() => {})
        .finally(() => this.#publishing.delete(publishing));
      this.#publishing.add(publishing);
    }, LIVE_EVERY_MS);
  }

  async #publish(): Promise<void> {
    const seq = ++this.last;
    this.sentMs.set(seq, Date.now());
    await this.#client!.publishAsync(LIVE, JSON.stringify({ seq }), { qos: 1 });
  }

  /** Everything is acknowledged then. Safe to call twice. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    const client = this.#client;
    this.#client = undefined;
    await Promise.allSettled(this.#publishing);
    await client?.endAsync();
  }
}

/** Takes the stream's records, those of each shard in order. */
class OutageJudge {
  readonly #truth: Truth;
  readonly #live: LiveSensor;
  /** The last live record that was published while the backlog drained. */
  readonly #lastMeasured: number;
  readonly #liveFirst: boolean;
  readonly #seen = new Map<string, Uint8Array>();
  readonly #before = new Map<string, number>();
  readonly #liveMs: number[] = [];
  #doubled = 0;
  #outOfOrder = 0;

  constructor(truth: Truth, live: LiveSensor, lastMeasured: number, liveFirst: boolean) {
    this.#truth = truth;
    this.#live = live;
    this.#lastMeasured = lastMeasured;
    this.#liveFirst = liveFirst;
    for (const [sensor, sent] of truth.sent) this.#seen.set(sensor, new Uint8Array(sent + 1));
  }

  take(data: Uint8Array, arrivedMs: number): void {
    const { sensor, seq } = JSON.parse(Buffer.from(data).toString()) as { sensor: string; seq: number };
    const seen = this.#seen.get(sensor);
    if (seen === undefined) throw new Error(`a record of ${sensor}, which there is not`);
    if (seen[seq] !== 0) this.#doubled++;
    seen[seq] = 1;
    const isLive = sensor === LIVE && seq > this.#truth.backlogOfLive;
    if (isLive && seq <= this.#lastMeasured) this.#liveMs.push(arrivedMs - this.#live.sentMs.get(seq)!);
    // Live records come beside the backlog where they may; each part keeps its order.
    const lane = isLive && this.#liveFirst ? `${sensor} live` : sensor;
    if (seq < (this.#before.get(lane) ?? 0)) this.#outOfOrder++;
    this.#before.set(lane, seq);
  }

  result(): Pick<LongOutageResult, "liveMs" | "lost" | "doubled" | "outOfOrder"> {
    let lost = 0;
    for (const seen of this.#seen.values()) for (let i = 1; i < seen.length; i++) if (seen[i] === 0) lost++;
    return {
      liveMs: this.#liveMs.sort((a, b) => a - b),
      lost,
      doubled: this.#doubled,
      outOfOrder: this.#outOfOrder,
    };
  }
}

async function readAll(client: KinesisClient, judge: OutageJudge): Promise<void> {
  const { Shards = [] } = await client.send(new ListShardsCommand({ StreamName: STREAM }));
  for (const { ShardId } of Shards) {
    const start = { StreamName: STREAM, ShardId, ShardIteratorType: "TRIM_HORIZON" } as const;
    let iterator = (await client.send(new GetShardIteratorCommand(start))).ShardIterator;
    while (iterator !== undefined) {
      const page = await client.send(new GetRecordsCommand({ ShardIterator: iterator }));
      for (const { Data, ApproximateArrivalTimestamp } of page.Records ?? [])
        judge.take(Data!, ApproximateArrivalTimestamp!.getTime());
      iterator = page.NextShardIterator;
      if ((page.Records ?? []).length === 0 && page.MillisBehindLatest === 0) break;
    }
  }
}

async function waitingBelow(agentPort: number, records: number): Promise<void> {
  await eventually(`fewer than ${records} records wait`, DRAIN_MS, async () => {
    const url = `http://127.0.0.1:${agentPort}/status`;
    const answer = await fetch(url, { signal: AbortSignal.timeout(10_000) });
    const { buffer } = (await answer.json()) as StatusMessage;
    return buffer.waitingRecords < records ? true : undefined;
  });
}

/** @param sorted ascending, not empty */
export function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;
}
