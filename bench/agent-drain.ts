/**
 * A long outage ends: the real agent, with its real uplink, drains a large backlog into a gateway that
 * acknowledges everything at once. How fast it starts, how fast it sends, and what memory it takes.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openLevelRecordBuffer } from "../agent/buffer/level-record-buffer.ts";
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

export async function benchAgentDrain(bars: Bars, dir: string, full: boolean): Promise<void> {
  const records = full ? FULL_RECORDS : SHORT_RECORDS;
  await mkdir(dir, { recursive: true });
  await fill(join(dir, "data", "records"), records);
  const sink = new MqttSink();
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
    bars.bar(
      "bootSeconds",
      (performance.now() - began) / 1000,
      "<=",
      5,
      `boots with ${records / 1e6} million records, s`,
    );
    await eventually("the first records arrive", 20_000, async () => (sink.publishes > 0 ? true : undefined));
    const first = performance.now();
    let peakBytes = 0;
    const waiting = async (): Promise<number> => {
      const answer = await fetch(`http://127.0.0.1:${http}/status`);
      return ((await answer.json()) as { buffer: { waitingRecords: number } }).buffer.waitingRecords;
    };
    await eventually("all records are acknowledged", 600_000, async () => {
      peakBytes = Math.max(peakBytes, await agent.residentBytes());
      return (await waiting()) === 0 ? true : undefined;
    });
    bars.bar(
      "uplinkRecordsPerSecond",
      (records / (sink.lastMs - first)) * 1000,
      ">=",
      200_000,
      "the agent drains: records/s",
    );
    bars.bar("drainingMiB", peakBytes / 1_048_576, "<=", 140, "  resident meanwhile, at most, MiB");
    await new Promise((resolve) => setTimeout(resolve, STEADY_SECONDS * 1_000));
    bars.bar(
      "afterMiB",
      (await agent.residentBytes()) / 1_048_576,
      "<=",
      110,
      `  resident ${STEADY_SECONDS} s later, MiB`,
    );
  } finally {
    await agent.stop();
    await sink.close();
  }
}

/** As setup/demo.mjs starts it. */
const AGENT_FLAGS = ["--no-enable-source-maps", "--max-semi-space-size=2"];

async function fill(dir: string, records: number): Promise<void> {
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
      await buffer.append(Array.from({ length: CALL_RECORDS }, (_, i) => recordAt(left + i)));
    }
  };
  await Promise.all(Array.from({ length: 10 }, write));
  await buffer.close();
}
