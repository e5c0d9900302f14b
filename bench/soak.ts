/**
 * An hour of mixed load on the real gateway, at rates that leave the machine usable: does memory stay
 * flat, do descriptors, and is everything that was acknowledged read once and in order by everybody
 * who reads? `--minutes=N` makes it shorter; the first quarter warms up, and growth is from the
 * second quarter to the last.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Bars } from "./bars.ts";
import { percentile } from "./floor.ts";
import { Cameras } from "./soak/cameras.ts";
import { FootageReaders } from "./soak/footage-readers.ts";
import { Ledger } from "./soak/ledger.ts";
import { Loops } from "./soak/loops.ts";
import { Mischief } from "./soak/mischief.ts";
import { Readers } from "./soak/readers.ts";
import { type Sight, SoakPlace } from "./soak/soak-place.ts";
import { Upheaval } from "./soak/upheaval.ts";
import { Writers } from "./soak/writers.ts";

const DEFAULT_MINUTES = 60;
const SIGHT_MS = 5_000;
const MIB = 1_048_576;
/** Readers get so long to see the last of it: the delivery gathers for seconds, and the machine may be busy. */
const DRAINED_WITHIN_MS = 60_000;
/** Logged because of what mischief does. */
const PROVOKED = [
  "publish quarantined",
  "MQTT packet above the limit; disconnected",
  "bad RTSP peer",
  "device refused: certificate of another CA",
  "device refused: unknown, or wrong password",
];

export async function benchSoak(
  say: (line: string) => void,
  args: readonly string[] = [],
): Promise<Record<string, number>> {
  const minutes = Number(args.find((arg) => arg.startsWith("--minutes="))?.slice(10) ?? DEFAULT_MINUTES);
  if (!(minutes >= 2)) throw new Error("--minutes=N takes a number from 2 on");
  const dir = await mkdtemp(join(tmpdir(), "headwater-soak-"));
  const soak = new Soak(say, dir);
  try {
    return await soak.run(minutes);
  } finally {
    await soak.close();
    await rm(dir, { recursive: true, force: true });
  }
}

class Soak {
  readonly #say: (line: string) => void;
  readonly #place: SoakPlace;
  readonly #ledger = new Ledger();
  /** By what failed: how often, and how for the first time. */
  readonly #failures = new Map<string, { times: number; readonly first: string }>();
  #failed = 0;
  readonly #sights: Sight[] = [];
  /** Of each minute's PutRecords. */
  readonly #p99sMs: number[] = [];
  /** Writers and mischief end before the readers do. */
  readonly #pressing: Loops;
  readonly #reading: Loops;

  constructor(say: (line: string) => void, dir: string) {
    this.#say = say;
    this.#place = new SoakPlace(dir);
    const onFailure = (what: string, error: unknown): void => {
      this.#failed++;
      const text = error instanceof Error ? error.message || error.name : String(error);
      const known = this.#failures.get(what);
      if (known === undefined) this.#failures.set(what, { times: 1, first: text.slice(0, 500) });
      else known.times++;
    };
    this.#pressing = new Loops(onFailure);
    this.#reading = new Loops(onFailure);
  }

  async run(minutes: number): Promise<Record<string, number>> {
    await this.#place.start();
    const writers = new Writers(this.#place, this.#ledger, this.#pressing);
    const readers = new Readers(this.#place, this.#ledger, this.#reading);
    const upheaval = new Upheaval(this.#place, this.#pressing);
    const mischief = new Mischief(this.#place, this.#pressing);
    const cameras = new Cameras(this.#place, this.#ledger, this.#pressing);
    const footage = new FootageReaders(this.#place, this.#ledger);
    await readers.start();
    await writers.start();
    await cameras.start();
    footage.start(this.#reading, this.#pressing);
    upheaval.start();
    mischief.start();
    await this.#watch(minutes, writers);

    await this.#pressing.stop();
    await writers.close();
    await cameras.close();
    upheaval.close();
    mischief.close();
    const end = performance.now() + DRAINED_WITHIN_MS;
    while (this.#ledger.missing() > 0 && performance.now() < end) await this.#reading.wait(200);
    const stopping = this.#reading.stop();
    readers.close();
    await stopping;
    this.#ledger.close();
    const ends = await this.#place.close();
    await this.#place.readLog();

    const bars = new Bars(this.#say);
    this.#judge(bars, ends);
    bars.note("subscriptions", readers.subscriptions, "subscriptions begun");
    bars.note("replays", readers.replays, "streams read whole");
    bars.note("streams", upheaval.streams, "streams that came and went");
    bars.note("reshards", upheaval.reshards, "splits and merges");
    bars.note("scales", upheaval.scales, "times that UpdateShardCount was asked for");
    bars.note("cameraVisits", cameras.visits, "times that a camera came");
    bars.note("watched", footage.watched, "times that somebody watched it");
    bars.note("fragments", footage.fragments, "fragments compared");
    bars.note("mischief", mischief.done, "refused, cut and silent");
    bars.end();
    return bars.figures;
  }

  /** Safe after a failure at any place. */
  async close(): Promise<void> {
    await this.#place.close();
    await Promise.all([this.#pressing.stop(), this.#reading.stop()]);
  }

  /** Looks at the gateway every few seconds, and says a line each minute. */
  async #watch(minutes: number, writers: Writers): Promise<void> {
    const began = performance.now();
    let before = await this.#place.sight();
    let saidMs = began;
    while (performance.now() - began < minutes * 60_000) {
      await this.#pressing.wait(SIGHT_MS);
      const sight = await this.#place.sight();
      this.#sights.push(sight);
      const now = performance.now();
      if (now - saidMs < 60_000) continue;
      const p99Ms = percentile(writers.waits, 0.99);
      this.#p99sMs.push(p99Ms);
      writers.waits = [];
      await this.#place.readLog();
      const cores = (sight.cpuSeconds - before.cpuSeconds) / ((now - saidMs) / 1_000);
      const { acknowledgedRecords, readRecords, lost, doubled } = this.#ledger;
      this.#say(
        [
          `${Math.round((now - began) / 60_000)} min`,
          `RSS ${mib(sight.residentBytes)} MiB (${mib(sight.anonymousBytes)} anonymous)`,
          `${sight.descriptors} descriptors`,
          `${sight.threads} threads`,
          `${cores.toFixed(2)} cores`,
          `agent ${mib(await this.#place.agentResidentBytes())} MiB`,
          `${((await this.#place.storedBytes()) / 1e9).toFixed(2)} GB`,
          `in ${thousands(acknowledgedRecords)}, out ${thousands(readRecords)}`,
          `PutRecords p99 ${p99Ms.toFixed(1)} ms`,
          `lost ${lost}, doubled ${doubled}, failed ${this.#failed}`,
        ].join("; "),
      );
      before = sight;
      saidMs = now;
    }
  }

  #judge(bars: Bars, ends: ReadonlyArray<number | string>): void {
    for (const finding of this.#ledger.findings) this.#say(`  found: ${finding}`);
    for (const [what, { times, first }] of this.#failures)
      this.#say(`  failed ${times} ×: ${what}; the first: ${first}`);
    let unexpected = 0;
    for (const [says, { times, first }] of this.#place.logged) {
      const provoked = PROVOKED.includes(says);
      if (!provoked) unexpected += times;
      this.#say(`  logged ${times} ×${provoked ? `, as provoked: ${says}` : `; the first: ${first}`}`);
    }
    const quarter = Math.floor(this.#sights.length / 4);
    const growth = (of: (sight: Sight) => number): number => {
      const values = this.#sights.map(of);
      return percentile(values.slice(-quarter), 0.5) - percentile(values.slice(quarter, 2 * quarter), 0.5);
    };
    bars.note("putRecordsP99Ms", percentile(this.#p99sMs, 0.5), "PutRecords' p99 in ms, median of minutes");
    const resident = this.#sights.map(({ residentBytes }) => residentBytes);
    bars.note("acknowledgedRecords", this.#ledger.acknowledgedRecords, "records acknowledged");
    bars.note("readRecords", this.#ledger.readRecords, "records read, by all readers");
    bars.note(
      "residentMiB",
      percentile(resident.slice(-quarter), 0.5) / MIB,
      "gateway's memory, last quarter, MiB",
    );
    bars.note("residentPeakMiB", Math.max(...resident) / MIB, "the same at its highest, MiB");
    bars.bar(
      "memoryGrowthMiB",
      growth((sight) => sight.residentBytes) / MIB,
      "<=",
      32,
      "growth of memory, MiB",
    );
    bars.bar(
      "descriptorGrowth",
      growth((sight) => sight.descriptors),
      "<=",
      16,
      "growth of open descriptors",
    );
    // LevelDB has one of its own from its first compaction on.
    bars.bar(
      "threadGrowth",
      growth((sight) => sight.threads),
      "<=",
      1,
      "growth of threads",
    );
    bars.bar("lost", this.#ledger.lost, "<=", 0, "records lost");
    bars.bar("doubled", this.#ledger.doubled, "<=", 0, "records doubled or out of order");
    bars.bar("failed", this.#failed, "<=", 0, "calls that failed and should not");
    bars.bar("unexpectedLogLines", unexpected, "<=", 0, "warnings and errors that nobody provoked");
    bars.bar("badEnds", ends.filter((end) => end !== 0).length, "<=", 0, "programs that did not end well");
  }
}

function mib(bytes: number): string {
  return (bytes / MIB).toFixed(0);
}

function thousands(count: number): string {
  return `${(count / 1_000).toFixed(0)}k`;
}
