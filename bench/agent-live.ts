/**
 * A long outage ends while a live-first stream goes on: the real agent drains a backlog into the real
 * gateway, and what is measured is how old a new record is once it is durable there. Once as fast as
 * the machine can, and once over a slow link, which the backlog fills for all of the time.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { GetRecordsCommand, GetShardIteratorCommand } from "@aws-sdk/client-kinesis";
import { openLevelRecordBuffer } from "../agent/buffer/records/level-record-buffer.ts";
import { systemClock } from "../runtime/clock.ts";
import { silentLog } from "../runtime/log.ts";
import { Metrics } from "../runtime/metrics.ts";
import { eventually, freePorts, Program } from "../test/support/program.ts";
import { kinesisClient } from "../test/support/stream-writers.ts";
import { TcpProxy } from "../test/support/tcp-proxy.ts";
import { recordAt } from "./agent-records.ts";
import type { Bars } from "./bars.ts";
import { percentile } from "./floor.ts";

const RECORDS = 1_000_000;
/** Random bytes do not compress: over the slow link this is more than can be sent meanwhile. */
const SLOW_RECORDS = 150_000;
const SLOW_BYTES_PER_SECOND = 500_000;
const SLOW_DELAY_MS = 40;
const SLOW_SECONDS = 25;
const CALL_RECORDS = 100;
const EVERY_MS = 100;
const HOUR_US = 3_600_000_000;
const KEY = { id: "bench", secret: "a-secret-of-this-bench-alone" };
const WITHIN_MS = 120_000;

export async function benchAgentLive(bars: Bars, dir: string): Promise<void> {
  const fast = await drainBeside(join(dir, "fast"), RECORDS);
  bars.note("liveBacklogPerSecond", fast.backlogPerSecond, "live-first: the backlog drains, records/s");
  bars.note("liveP50Ms", fast.p50Ms, "  a live record is durable after, p50 ms");
  bars.bar("liveP99Ms", fast.p99Ms, "<=", 2_000, "  p99 ms");
  const slow = await drainBeside(join(dir, "slow"), SLOW_RECORDS, SLOW_SECONDS);
  const share = slow.backlogBytesPerSecond / SLOW_BYTES_PER_SECOND;
  bars.note("liveSlowBacklogShare", share, "live-first over 500 KB/s: the backlog's share of it");
  bars.note("liveSlowP50Ms", slow.p50Ms, "  a live record is durable after, p50 ms");
  bars.bar("liveSlowP99Ms", slow.p99Ms, "<=", 2_000, "  p99 ms");
}

interface Found {
  readonly backlogPerSecond: number;
  readonly backlogBytesPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** @param slowSeconds over a slow link, for so long; otherwise until all is drained */
async function drainBeside(dir: string, records: number, slowSeconds?: number): Promise<Found> {
  await mkdir(dir, { recursive: true });
  await fill(join(dir, "agent-data", "records"), records);
  const [http, mqtt, status, posts] = (await freePorts(4)) as [number, number, number, number];
  const proxy = new TcpProxy({ targetPort: mqtt });
  await proxy.start();
  if (slowSeconds !== undefined)
    proxy.setQuality({ bytesPerSecond: SLOW_BYTES_PER_SECOND, delayMs: SLOW_DELAY_MS });
  const start = async (name: "agent" | "gateway", yaml: string): Promise<Program> => {
    await writeFile(join(dir, `${name}.yaml`), yaml);
    const program = new Program(name, join(dir, `${name}.yaml`), join(dir, `${name}.log`));
    await program.ready;
    return program;
  };
  const gateway = await start(
    "gateway",
    `dataDir: gateway-data
http: { port: ${http} }
mqtt: { port: ${mqtt} }
rtsp: { port: 0 }
accessKeys: [{ id: ${KEY.id}, secret: ${KEY.secret}, allow: ["*"] }]
streams: [{ name: sensors }, { name: live }]
`,
  );
  const agent = await start(
    "agent",
    `device: pi-1
dataDir: agent-data
gateway: { mqtt: "mqtt://127.0.0.1:${slowSeconds === undefined ? mqtt : proxy.port}" }
http: { port: ${status} }
sources: [{ name: door, type: http, port: ${posts}, stream: live }]
uplink: { liveFirst: [live] }
`,
  );
  const began = performance.now();
  const waiting = async (): Promise<{ waitingRecords: number; waitingBytes: number }> =>
    ((await (await fetch(`http://127.0.0.1:${status}/status`)).json()) as { buffer: Waiting }).buffer;
  const posting = post(`http://127.0.0.1:${posts}/records/door`);
  try {
    const first = await waiting();
    const left = await eventually("the backlog drains", WITHIN_MS, async () => {
      const now = await waiting();
      const ended = (performance.now() - began) / 1_000 > (slowSeconds ?? WITHIN_MS);
      return ended || now.waitingBytes < 10_000 ? now : undefined;
    });
    const seconds = (performance.now() - began) / 1_000;
    await posting.stop();
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    const latencies = await arrivals(http);
    if (latencies.length !== posting.posted)
      throw new Error(`${posting.posted} live records were posted, ${latencies.length} are there`);
    return {
      backlogPerSecond: (first.waitingRecords - left.waitingRecords) / seconds,
      backlogBytesPerSecond: (first.waitingBytes - left.waitingBytes) / seconds,
      p50Ms: percentile(latencies, 0.5),
      p99Ms: percentile(latencies, 0.99),
    };
  } finally {
    await posting.stop();
    await agent.stop();
    await gateway.stop();
    await proxy.close();
  }
}

type Waiting = { waitingRecords: number; waitingBytes: number };

/** A record each 100 ms, with the time at which it was posted. */
function post(url: string): { posted: number; stop(): Promise<void> } {
  const underway = new Set<Promise<void>>();
  const state = {
    posted: 0,
    async stop(): Promise<void> {
      clearInterval(timer);
      await Promise.all(underway);
    },
  };
  const timer = setInterval(() => {
    state.posted++;
    const body = JSON.stringify({ postedMs: Date.now() });
    const posted: Promise<void> = fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
    })
      .then(async (answer) => {
        if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
      })
      .finally(() => underway.delete(posted));
    underway.add(posted);
  }, EVERY_MS);
  return state;
}

/** Of each live record: from its posting to its arrival at the gateway, ms, sorted. */
async function arrivals(httpPort: number): Promise<number[]> {
  const client = kinesisClient(httpPort, KEY, WITHIN_MS);
  const found: number[] = [];
  const StreamName = "live";
  const start = { StreamName, ShardId: "shardId-000000000000", ShardIteratorType: "TRIM_HORIZON" } as const;
  let iterator = (await client.send(new GetShardIteratorCommand(start))).ShardIterator;
  for (;;) {
    const page = await client.send(new GetRecordsCommand({ ShardIterator: iterator }));
    for (const { Data, ApproximateArrivalTimestamp } of page.Records ?? []) {
      const { postedMs } = JSON.parse(Buffer.from(Data!).toString()) as { postedMs: number };
      found.push(ApproximateArrivalTimestamp!.getTime() - postedMs);
    }
    iterator = page.NextShardIterator;
    if ((page.Records ?? []).length === 0) break;
  }
  client.destroy();
  return found.sort((a, b) => a - b);
}

/** What an outage leaves: records that were stored long ago. */
async function fill(dir: string, records: number): Promise<void> {
  const buffer = await openLevelRecordBuffer({
    dir,
    device: "pi-1",
    clock: { ...systemClock, nowUs: () => systemClock.nowUs() - HOUR_US },
    log: silentLog,
    metrics: new Metrics(),
    maxBytes: 2 ** 30,
    whenFull: "pause",
    commitDelayMs: 0,
    commitRecords: 1_000,
  });
  let left = records;
  const write = async (): Promise<void> => {
    while (left > 0) {
      left -= CALL_RECORDS;
      await buffer.append(Array.from({ length: CALL_RECORDS }, (_, i) => recordAt(left + i)));
    }
  };
  await Promise.all(Array.from({ length: 10 }, write));
  await buffer.close();
}
