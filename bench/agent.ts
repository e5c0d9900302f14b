/**
 * The agent's record buffer: how fast records are stored and read back, and what they cost the disk and
 * the memory. Beside it, in the same run and with the same bytes: LevelDB alone, and one file that is
 * appended to with an fdatasync a batch. All three take turns, as the disk is faster at some moments
 * than at others, and the median counts.
 *
 * `--full` drains ten million records by the real agent instead of one million.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openDatabase, writeSynced } from "../agent/buffer/level/leveldb.ts";
import type { FramePlace, RecordBuffer } from "../agent/buffer/record-buffer.ts";
import { openLevelRecordBuffer } from "../agent/buffer/records/level-record-buffer.ts";
import { systemClock } from "../runtime/clock.ts";
import { silentLog } from "../runtime/log.ts";
import { Metrics } from "../runtime/metrics.ts";
import { SmallDisk } from "../test/support/small-disk.ts";
import { benchAgentDrain } from "./agent-drain.ts";
import { benchAgentLive } from "./agent-live.ts";
import { payloads, RECORD_BYTES, recordAt } from "./agent-records.ts";
import { Bars } from "./bars.ts";
import { appendFloor, percentile } from "./floor.ts";
import { writtenTo } from "./written-bytes.ts";

const CALL_RECORDS = 100;
const ROUNDS = 5;
const ROUND_RECORDS = 200_000;
const SINGLE_RECORDS = 100_000;
/** What the agent's config says unless told otherwise. */
const GROUP_RECORDS = 1_000;
/** Sources that hand over records at the same time, each waiting for its answer. */
const WRITERS = 10;
const SINGLE_WRITERS = 64;
const PUBLISH_BYTES = 262_144;
const DISK_BYTES = 512 * 1_048_576;
/** A call as it stands in a frame, nearly. */
const BATCH_BYTES = CALL_RECORDS * (RECORD_BYTES + 12) + 600;

export async function benchAgent(
  say: (line: string) => void,
  flags: readonly string[],
): Promise<Record<string, number>> {
  const bars = new Bars(say);
  const dir = await mkdtemp(join(tmpdir(), "headwater-bench-"));
  try {
    await storing(bars, dir);
    await wear(bars);
    await benchAgentDrain(bars, join(dir, "drain"), flags.includes("--full"));
    await benchAgentLive(bars, join(dir, "live"));
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
  bars.end();
  return bars.figures;
}

async function storing(bars: Bars, dir: string): Promise<void> {
  const grouped = await open(join(dir, "grouped"), GROUP_RECORDS);
  const apart = await open(join(dir, "apart"), CALL_RECORDS);
  const runs: Record<"floor" | "groupFloor" | "level" | "grouped" | "apart" | "drain", Measured[]> = {
    floor: [],
    groupFloor: [],
    level: [],
    grouped: [],
    apart: [],
    drain: [],
  };
  for (let round = 0; round < ROUNDS; round++) {
    runs.floor.push(await oneFile(join(dir, "floor"), ROUND_RECORDS / 4, CALL_RECORDS));
    runs.groupFloor.push(await oneFile(join(dir, "floor"), ROUND_RECORDS, GROUP_RECORDS));
    runs.level.push(await levelAlone(join(dir, `level-${round}`), ROUND_RECORDS / CALL_RECORDS));
    // One at a time, as the two above: with ten writers each would wait for the commits of the other nine.
    runs.apart.push(await store(apart, ROUND_RECORDS, CALL_RECORDS, 1));
    runs.grouped.push(await store(grouped, ROUND_RECORDS, CALL_RECORDS, WRITERS));
    runs.drain.push(await drain(grouped));
  }
  await grouped.close();
  await apart.close();
  const of = (name: keyof typeof runs, field: keyof Measured): number =>
    percentile(
      runs[name].map((run) => run[field]),
      0.5,
    );
  bars.note("floorRecordsPerSecond", of("floor", "perSecond"), "one file, an fdatasync per 100: records/s");
  bars.note("floorP99Ms", of("floor", "p99Ms"), "  p99, ms");
  bars.note(
    "levelRecordsPerSecond",
    of("level", "perSecond"),
    "LevelDB alone, a synced entry per 100: records/s",
  );
  bars.note("levelP99Ms", of("level", "p99Ms"), "  p99, ms");
  bars.note(
    "apartRecordsPerSecond",
    of("apart", "perSecond"),
    "the buffer, a commit per 100, one writer: records/s",
  );
  bars.note("apartP99Ms", of("apart", "p99Ms"), "  p99, ms");
  bars.note("groupFloorP99Ms", of("groupFloor", "p99Ms"), "one file, an fdatasync per 1,000: p99, ms");
  const stored = of("grouped", "perSecond");
  bars.bar(
    "storedRecordsPerSecond",
    stored,
    ">=",
    250_000,
    "the buffer as configured, 100 a call: records/s",
  );
  bars.bar("storedP99Ms", of("grouped", "p99Ms"), "<=", 5, "  p99, ms");
  bars.note("storedCpuUsPerRecord", of("grouped", "cpuUs"), "  CPU of a record, µs");
  bars.note("storedToFloor", stored / of("floor", "perSecond"), "  times the one file");
  bars.note("storedToLevel", stored / of("level", "perSecond"), "  times LevelDB alone");
  bars.bar(
    "readRecordsPerSecond",
    of("drain", "perSecond"),
    ">=",
    200_000,
    "read back and acknowledged: records/s",
  );
  bars.note("readCpuUsPerRecord", of("drain", "cpuUs"), "  CPU of a record, µs");
  const single = await open(join(dir, "single"), GROUP_RECORDS);
  const singles = await store(single, SINGLE_RECORDS, 1, SINGLE_WRITERS);
  bars.bar("singleRecordsPerSecond", singles.perSecond, ">=", 20_000, "one record a call: records/s");
  bars.note("singleP99Ms", singles.p99Ms, "  p99, ms");
  await single.close();
}

/** On a file system of its own, whose device counts all that reaches it: data, journal and folders. */
async function wear(bars: Bars): Promise<void> {
  const disk = await SmallDisk.make(DISK_BYTES);
  if (typeof disk === "string")
    return bars.bar("writtenPerByte", undefined, "<=", 1.5, `written per byte (${disk})`);
  try {
    const perByte = async (work: () => Promise<Measured>, records: number): Promise<number> => {
      const before = await writtenTo(disk.path);
      await work();
      return ((await writtenTo(disk.path)) - before) / (records * RECORD_BYTES);
    };
    const level = await perByte(
      () => levelAlone(join(disk.path, "level"), ROUND_RECORDS / CALL_RECORDS),
      ROUND_RECORDS,
    );
    await rm(join(disk.path, "level"), { recursive: true });
    bars.note("levelWrittenPerByte", level, "LevelDB alone: bytes written per byte");
    const grouped = await open(join(disk.path, "grouped"), GROUP_RECORDS);
    const stored = await perByte(() => store(grouped, ROUND_RECORDS, CALL_RECORDS, WRITERS), ROUND_RECORDS);
    bars.bar("writtenPerByte", stored, "<=", 1.5, "the buffer as configured: written per byte");
    const drained = await perByte(() => drain(grouped), ROUND_RECORDS);
    bars.note("drainWrittenPerByte", drained, "  and to read back and remove them");
    await grouped.close();
    await rm(join(disk.path, "grouped"), { recursive: true });
    const apart = await open(join(disk.path, "apart"), CALL_RECORDS);
    const synced = await perByte(() => store(apart, ROUND_RECORDS, CALL_RECORDS, 1), ROUND_RECORDS);
    bars.note("apartWrittenPerByte", synced, "the buffer, a commit per 100: written per byte");
    await apart.close();
    const single = await open(join(disk.path, "single"), 1);
    const alone = await perByte(() => store(single, 1_000, 1, 1), 1_000);
    bars.note("commitKiB", (alone * RECORD_BYTES) / 1_024, "written by a commit of one record, KiB");
    await single.close();
  } finally {
    await disk.remove();
  }
}

interface Measured {
  readonly perSecond: number;
  readonly p99Ms: number;
  readonly cpuUs: number;
}

function open(dir: string, commitRecords: number): Promise<RecordBuffer> {
  return openLevelRecordBuffer({
    dir,
    device: "pi-1",
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    maxBytes: 16 * 2 ** 30,
    whenFull: "pause",
    commitDelayMs: 0,
    commitRecords,
  });
}

async function measured(records: number, work: (waits: number[]) => Promise<void>): Promise<Measured> {
  const waits: number[] = [];
  const cpuBefore = process.cpuUsage();
  const began = performance.now();
  await work(waits);
  const seconds = (performance.now() - began) / 1000;
  const { user, system } = process.cpuUsage(cpuBefore);
  return { perSecond: records / seconds, p99Ms: percentile(waits, 0.99), cpuUs: (user + system) / records };
}

/** As little as a synced commit can be. */
async function oneFile(file: string, records: number, perCommit: number): Promise<Measured> {
  const batchBytes = (perCommit / CALL_RECORDS) * BATCH_BYTES;
  const floor = await appendFloor(file, (records / perCommit) * batchBytes, batchBytes);
  return { perSecond: (floor.bytesPerSecond / batchBytes) * perCommit, p99Ms: floor.p99Ms, cpuUs: 0 };
}

/** Each writer waits for its records to be on disk before it hands over the next ones. */
function store(buffer: RecordBuffer, records: number, perCall: number, writers: number): Promise<Measured> {
  return measured(records, async (waits) => {
    let left = records;
    const write = async (): Promise<void> => {
      while (left > 0) {
        left -= perCall;
        const given = Array.from({ length: perCall }, (_, i) => recordAt(left + i));
        const start = performance.now();
        await buffer.append(given);
        waits.push(performance.now() - start);
      }
    };
    await Promise.all(Array.from({ length: writers }, write));
  });
}

/** As the uplink does, with an acknowledgement a publish. */
function drain(buffer: RecordBuffer): Promise<Measured> {
  const { waitingRecords } = buffer.usage();
  return measured(waitingRecords, async () => {
    let last: FramePlace | undefined;
    for (;;) {
      const frames = await buffer.read(last, PUBLISH_BYTES);
      if (frames.length === 0) return;
      const { epoch, sequence } = frames.at(-1)!;
      last = { epoch, sequence };
      await buffer.ack(epoch, sequence);
    }
  });
}

function levelAlone(dir: string, batches: number): Promise<Measured> {
  return measured(batches * CALL_RECORDS, async (waits) => {
    const database = await openDatabase(dir, true);
    for (let n = 0; n < batches; n++) {
      const value = Buffer.concat(
        Array.from({ length: CALL_RECORDS }, (_, i) => payloads[(n + i * 7) % payloads.length]!),
      );
      const start = performance.now();
      await writeSynced(database, [{ type: "put", key: `f/${String(n).padStart(12, "0")}`, value }]);
      waits.push(performance.now() - start);
    }
    await database.close();
  });
}
