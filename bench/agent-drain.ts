/**
 * A long outage ends: the real agent, with its real uplink, drains a large backlog into a gateway that
 * acknowledges everything at once. How fast it starts, how fast it sends, and what memory it takes; and
 * what compression saves and costs with records as sensors make them.
 */
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { BufferRecord } from "../agent/buffer/record-buffer.ts";
import { openLevelRecordBuffer } from "../agent/buffer/records/level-record-buffer.ts";
import { BROTLI } from "../protocol/publish-envelope.ts";
import { systemClock } from "../runtime/clock.ts";
import { silentLog } from "../runtime/log.ts";
import { Metrics } from "../runtime/metrics.ts";
import { eventually, freePorts, Program } from "../test/support/program.ts";
import { recordAt } from "./agent-records.ts";
import type { Bars } from "./bars.ts";
import { MqttSink } from "./mqtt-sink.ts";

const FULL_RECORDS = 10_000_000;
const SHORT_RECORDS = 1_000_000;
const CALL_RECORDS = 100;
const STEADY_SECONDS = 10;
/** Linux counts the time of processes in these. */
const TICKS_PER_SECOND = 100;

interface Drained {
  readonly bootSeconds: number;
  readonly recordsPerSecond: number;
  readonly cpuSeconds: number;
  readonly peakBytes: number;
  readonly afterBytes: number;
  readonly wireBytes: number;
}

export async function benchAgentDrain(bars: Bars, dir: string, full: boolean): Promise<void> {
  const records = full ? FULL_RECORDS : SHORT_RECORDS;
  const random = await drain(dir, records, recordAt, [BROTLI], STEADY_SECONDS);
  const millions = records / 1e6;
  bars.bar("bootSeconds", random.bootSeconds, "<=", 5, `boots with ${millions} million records, s`);
  bars.bar("uplinkRecordsPerSecond", random.recordsPerSecond, ">=", 200_000, "the agent drains: records/s");
  bars.bar("drainingMiB", random.peakBytes / 1_048_576, "<=", 140, "  resident meanwhile, at most, MiB");
  bars.bar("afterMiB", random.afterBytes / 1_048_576, "<=", 110, `  resident ${STEADY_SECONDS} s later, MiB`);
  const plain = await drain(dir, SHORT_RECORDS, readingAt, [], 0);
  const sealed = await drain(dir, SHORT_RECORDS, readingAt, [BROTLI], 0);
  bars.note("plainJsonRecordsPerSecond", plain.recordsPerSecond, "JSON readings, plain: records/s");
  bars.note("plainJsonCpuSeconds", plain.cpuSeconds, "  CPU seconds of the agent, per million");
  bars.bar(
    "sealedJsonRecordsPerSecond",
    sealed.recordsPerSecond,
    ">=",
    200_000,
    "JSON readings, compressed: records/s",
  );
  bars.note("sealedJsonCpuSeconds", sealed.cpuSeconds, "  CPU seconds of the agent, per million");
  bars.note(
    "compressionRatio",
    plain.wireBytes / sealed.wireBytes,
    "  bytes on the wire, plain to compressed",
  );
  bars.bar("sealedJsonMiB", sealed.peakBytes / 1_048_576, "<=", 140, "  resident meanwhile, at most, MiB");
}

/** A backlog of so many records goes to a gateway that accepts what is named, which opens nothing. */
async function drain(
  dir: string,
  records: number,
  make: (n: number) => BufferRecord,
  accepts: readonly string[],
  steadySeconds: number,
): Promise<Drained> {
  await rm(dir, { recursive: true, force: true });
  await mkdir(dir, { recursive: true });
  await fill(join(dir, "data", "records"), records, make);
  const sink = new MqttSink(accepts);
  await sink.start();
  const [http] = await freePorts(1);
  const config = join(dir, "agent.yaml");
  await writeFile(
    config,
    `device: pi-1\ndataDir: data\ngateway: { mqtt: "mqtt://127.0.0.1:${sink.port}" }\nhttp: { port: ${http} }\nbuffer: { maxBytes: 16GiB }\n`,
  );
  const began = performance.now();
  const agent = new Program("agent", config, join(dir, "log"), AGENT_FLAGS, {
    MALLOC_MMAP_THRESHOLD_: "131072",
  });
  try {
    await agent.ready;
    const bootSeconds = (performance.now() - began) / 1000;
    await eventually("the first records arrive", 20_000, async () => (sink.publishes > 0 ? true : undefined));
    const first = performance.now();
    const cpuBefore = await cpuSeconds(agent.pid);
    let peakBytes = 0;
    const waiting = async (): Promise<number> => {
      const answer = await fetch(`http://127.0.0.1:${http}/status`);
      return ((await answer.json()) as { buffer: { waitingRecords: number } }).buffer.waitingRecords;
    };
    await eventually("all records are acknowledged", 600_000, async () => {
      peakBytes = Math.max(peakBytes, await agent.residentBytes());
      return (await waiting()) === 0 ? true : undefined;
    });
    const spent = (await cpuSeconds(agent.pid)) - cpuBefore;
    await new Promise((resolve) => setTimeout(resolve, steadySeconds * 1_000));
    return {
      bootSeconds,
      recordsPerSecond: (records / (sink.lastMs - first)) * 1000,
      cpuSeconds: spent / (records / 1e6),
      peakBytes,
      afterBytes: await agent.residentBytes(),
      wireBytes: sink.publishedBytes,
    };
  } finally {
    await agent.stop();
    await sink.close();
  }
}

/** As setup/demo.mjs starts it. */
const AGENT_FLAGS = ["--no-enable-source-maps", "--max-semi-space-size=2"];

/** A reading as sensors make them: the same names again and again, digits that nobody can guess. */
function readingAt(n: number): BufferRecord {
  const sensor = `sensor-${n % 20}`;
  const timeUs = 1_700_000_000_000_000 + n * 1_000;
  const noise = ((n * 2_654_435_761) % 4_294_967_296) / 4_294_967_296;
  const payload = JSON.stringify({
    device: "pi-1",
    sensor,
    time: new Date(timeUs / 1_000).toISOString(),
    temperature: Number((20 + 5 * Math.sin(n / 5_000) + noise).toFixed(3)),
    humidity: Number((45 + 10 * ((noise * 7_919) % 1)).toFixed(2)),
    pressure: Number((1_013 + ((noise * 104_729) % 1)).toFixed(2)),
    battery: 3.7,
    status: "ok",
    message: n,
  });
  return { stream: "sensors", partitionKey: `pi-1/${sensor}`, timeUs, payload: Buffer.from(payload) };
}

/** What a process has spent, of user and of kernel time (proc(5): fields 14 and 15). */
async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  // The program's name, which may hold anything, ends with the last bracket.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

async function fill(dir: string, records: number, make: (n: number) => BufferRecord): Promise<void> {
  const buffer = await openLevelRecordBuffer({
    dir,
    device: "pi-1",
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    maxBytes: 16 * 2 ** 30,
    whenFull: "pause",
    commitDelayMs: 0,
    commitRecords: 1_000,
  });
  let left = records;
  const write = async (): Promise<void> => {
    while (left > 0) {
      left -= CALL_RECORDS;
      const from = left;
      await buffer.append(Array.from({ length: CALL_RECORDS }, (_, i) => make(from + i)));
    }
  };
  await Promise.all(Array.from({ length: 10 }, write));
  await buffer.close();
}
