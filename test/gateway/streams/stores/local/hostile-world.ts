/**
 * A random life of a local store: records of all kinds handed in at once, read from random places, shards
 * split and merged, streams made and deleted, retention, clocks that jump, a disk that refuses, power cuts,
 * bytes that flip while it is closed. All of it follows from a seed, as far as threads allow, and is held
 * against a plain model (stream-model.ts).
 */
import assert from "node:assert/strict";
import { closeSync, existsSync, openSync, rmSync, writeSync } from "node:fs";
import { mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { LocalStreams } from "../../../../../gateway/streams/stores/local/local.ts";
import { randomFrom } from "../../../../support/ordeal.ts";
import { HostileDisk } from "./hostile-disk.ts";
import { HostileReader } from "./hostile-reader.ts";
import { HostileWriters, NOTHING_STORED } from "./hostile-writers.ts";
import type { LivedIn } from "./lived-in.ts";
import { type LocalPlace, makeLocalPlace } from "./local-place.ts";
import { harmSegment } from "./segment-harm.ts";
import { audit, recordsOf } from "./stream-audit.ts";
import { StreamModel } from "./stream-model.ts";

const HOUR_MS = 3_600_000;
const RETENTION_HOURS = 24;
const NAMES = ["a", "b"];
const MAX_PENDING = 40;
/** What work may fail with. */
const EXPECTED = new Set([
  ...NOTHING_STORED,
  "LOG_FULL",
  "LOG_WRITE_FAILED",
  "DATABASE_WRITE_FAILED",
  "STREAM_EXISTS",
  "BAD_RESHARD",
  "SHARD_NOT_FOUND",
  "LEASE_LOST",
  "LEASE_HELD",
]);

export interface HostileWorldOptions {
  readonly seed: number;
  readonly steps: number;
  /** A small disk of the world's own, which becomes full at times; otherwise its folder is a temporary one. */
  readonly disk?: string;
  readonly say?: (line: string) => void;
}

/** Rejects with what went wrong. */
export async function liveThrough(options: HostileWorldOptions): Promise<Record<string, number>> {
  const world = new HostileWorld(
    options,
    await makeLocalPlace(options.disk && join(options.disk, "streams")),
  );
  try {
    return await world.run();
  } finally {
    await world.remove();
  }
}

class HostileWorld implements LivedIn {
  readonly random: () => number;
  readonly models = new Map<string, StreamModel>();
  readonly counts: Record<string, number> = {};
  streams!: LocalStreams;
  readonly #options: HostileWorldOptions;
  readonly #place: LocalPlace;
  readonly #settings: {
    segmentBytes: number;
    maxWaitingBytes: number;
    recycleSegments: "never" | "removed" | "filled";
  };
  #disk!: HostileDisk;
  readonly #writers: HostileWriters;
  readonly #pending = new Set<Promise<unknown>>();
  #readers = new Map<string, HostileReader>();

  constructor(options: HostileWorldOptions, place: LocalPlace) {
    this.#options = options;
    this.#place = place;
    this.random = randomFrom(options.seed);
    this.#writers = new HostileWriters(this);
    place.nowMs = 1_700_000_000_000;
    this.#settings = {
      segmentBytes: this.pick([3_000, 16_000, 100_000]),
      maxWaitingBytes: this.pick([4_000, 100_000, 1_048_576]),
      recycleSegments: this.pick(["never", "removed", "filled"]),
    };
  }

  /** A whole number below `limit`. */
  below(limit: number): number {
    return Math.floor(this.random() * limit);
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }

  get nowMs(): number {
    return this.#place.nowMs!;
  }

  /** What comes while the clock is behind may be taken for as old as that says. */
  get bornMs(): number {
    return this.nowMs + Math.min(0, this.#place.jumpMs);
  }

  async run(): Promise<Record<string, number>> {
    await this.#open();
    await this.#make(NAMES[0]!);
    for (let step = 0; step < this.#options.steps; step++) {
      await this.#step();
      if (this.#pending.size > MAX_PENDING) await this.#settle();
    }
    await this.#crash();
    await this.#audit();
    await this.#growOld();
    await this.streams.close();
    return this.counts;
  }

  async remove(): Promise<void> {
    await this.streams?.close().catch(() => undefined);
    await this.#place.remove();
  }

  async #step(): Promise<void> {
    const name = this.pick(NAMES);
    const chance = this.random() * 100;
    this.#place.nowMs = this.nowMs + this.below(3_000);
    if (chance < 30) this.#writers.put(name);
    else if (chance < 50) this.#writers.sendFrame(name);
    else if (chance < 68) this.start("read", this.#read(name));
    else if (chance < 76) this.start("consume", this.#consume(name));
    else if (chance < 81) this.start("reshard", this.#reshard(name));
    else if (chance < 86) await this.#settle();
    else if (chance < 89) this.#harmDisk();
    else if (chance < 92) await this.#passTime();
    else if (chance < 93) await this.#jump();
    else if (chance < 94.5) await this.#settle().then(() => this.#audit());
    else if (chance < 95.5) await this.#makeOrDelete(name);
    else if (chance < 97) await this.#restart();
    else if (chance < 98.5) await this.#crash();
    else await new Promise((resolve) => setImmediate(resolve));
  }

  /** It runs beside the others; what it may fail with is known. */
  start(what: string, work: Promise<unknown>): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
    const disk = this.#disk;
    const done = work.catch((error: { code?: string; message: string }) => {
      if (disk.isDead) return;
      if (error.code === undefined || !EXPECTED.has(error.code)) this.#failure ??= error;
      this.counts[error.code ?? "?"] = (this.counts[error.code ?? "?"] ?? 0) + 1;
    });
    this.#pending.add(done);
    void done.then(() => this.#pending.delete(done));
  }

  #failure: unknown;

  async #settle(): Promise<void> {
    await Promise.all(this.#pending);
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #open(): Promise<void> {
    // What it does with a call must not change what comes next.
    this.#disk = new HostileDisk(this.#place.dir, randomFrom(this.below(1_000_000)));
    this.#disk.slowness = this.pick([0, 0, 3, 30]);
    this.streams = await this.#place.open({ ...this.#settings, disk: this.#disk });
    this.#readers = new Map();
  }

  /** @param bytes and a share of the shard, both chosen before anything is awaited */
  async #read(name: string): Promise<void> {
    const model = this.models.get(name);
    if (model === undefined) return;
    const { streams } = this;
    const disk = this.#disk;
    const shard = this.pick(streams.describe(name).shardList);
    const from = this.below(shard.latest + 3);
    const acknowledged = model.acknowledged();
    const { parts, next, trimmed } = await streams.read(
      name,
      shard.shardId,
      from,
      this.pick([1, 300, 100_000]),
    );
    if (disk.isDead || this.models.get(name) !== model) return;
    const found = recordsOf(parts).filter(({ offset }) => offset >= from);
    const horizon = streams.shard(name, shard.index).trimHorizon;
    assert.ok(trimmed === 0 || from < horizon);
    assert.ok(next >= from, `${next} from ${from}`);
    model.judgeRead(shard.index, from, next, horizon, found, acknowledged);
  }

  async #consume(name: string): Promise<void> {
    const model = this.models.get(name);
    if (model === undefined) return;
    const known = this.#readers.get(name);
    if (known !== undefined && known.model === model) return known.goOn(this.below(4) + 1);
    const reader = new HostileReader(this, name, model);
    this.#readers.set(name, reader);
    return reader.goOn(0);
  }

  get disk(): HostileDisk {
    return this.#disk;
  }

  async #reshard(name: string): Promise<void> {
    if (!this.models.has(name)) return;
    const open = this.streams
      .describe(name)
      .shardList.filter(({ closedMs }) => closedMs === undefined)
      .sort((a, b) => (a.hashFrom < b.hashFrom ? -1 : 1));
    const at = this.below(open.length);
    const { shardId, hashFrom, hashTo } = open[at]!;
    if (open.length < 5 && this.random() < 0.6) {
      if (hashFrom < hashTo)
        await this.streams.splitShard(name, shardId, hashFrom + 1n + (hashTo - hashFrom) / 2n);
    } else if (at > 0) await this.streams.mergeShards(name, shardId, open[at - 1]!.shardId);
  }

  #harmDisk(): void {
    if (this.#filler !== undefined && this.random() < 0.5) {
      if (existsSync(this.#filler)) this.#makeRoom();
      else this.#fill(this.#filler);
      return;
    }
    const disk = this.#disk;
    disk.code = this.pick(["ENOSPC", "EIO"]);
    if (this.random() < 0.5) disk.failingWrites = 1 + this.below(3);
    else disk.failingSyncs = 1 + this.below(3);
  }

  get #filler(): string | undefined {
    return this.#options.disk && join(this.#options.disk, "filler");
  }

  /** To the last byte, but for what others take or give back meanwhile. */
  #fill(filler: string): void {
    this.#options.say?.("the disk is full");
    const file = openSync(filler, "w");
    for (const bytes of [1_048_576, 4_096]) {
      try {
        for (;;) writeSync(file, Buffer.alloc(bytes));
      } catch (error) {
        assert.equal((error as { code?: string }).code, "ENOSPC");
      }
    }
    closeSync(file);
  }

  #makeRoom(): void {
    if (this.#filler !== undefined) rmSync(this.#filler, { force: true });
  }

  async #passTime(): Promise<void> {
    this.#place.nowMs = this.nowMs + this.below(10) * HOUR_MS;
    this.#options.say?.(`it is ${this.nowMs}`);
    if (this.random() < 0.7) this.start("retention", this.streams.enforceRetention());
  }

  /** Ahead for less than the hour for which retention waits, or behind for as long as it comes. */
  async #jump(): Promise<void> {
    this.#place.jumpMs = this.#place.jumpMs === 0 ? this.pick([-100, -5, 0.5, 20, 9_000]) * HOUR_MS : 0;
    this.#options.say?.(`the clock is off by ${this.#place.jumpMs / HOUR_MS} h at ${this.nowMs}`);
    if (this.#place.jumpMs <= 0) return;
    this.start("jumped retention", this.streams.enforceRetention());
    for (const name of NAMES) this.#writers.put(name);
    this.start("reshard", this.#reshard(NAMES[0]!));
    await this.#settle();
    this.#place.jumpMs = 0;
    // As it does each minute: two jumps would look like one that lasts.
    this.start("retention", this.streams.enforceRetention());
    await this.#settle();
  }

  async #someTurns(): Promise<void> {
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
  }

  async #make(name: string): Promise<void> {
    const shards = 1 + this.below(3);
    const { streamId } = await this.streams.createStream({ name, shards, retentionHours: RETENTION_HOURS });
    this.models.set(name, new StreamModel(streamId, RETENTION_HOURS));
    this.#writers.begin(name);
  }

  async #makeOrDelete(name: string): Promise<void> {
    if (!this.models.has(name)) return this.#make(name).catch(orRefused);
    // Others go on reading and writing.
    await this.streams.deleteStream(name).then(() => this.models.delete(name), orRefused);
    this.counts.deleted = (this.counts.deleted ?? 0) + 1;
  }

  async #restart(): Promise<void> {
    this.counts.restart = (this.counts.restart ?? 0) + 1;
    const harms = this.random() < 0.5;
    if (harms) {
      await this.#settle();
      await this.#audit();
    }
    if (harms) this.#makeRoom();
    // What a disk that fails at the end leaves is in doubt.
    await Promise.all([this.streams.close(), this.#settle()]);
    for (const model of this.models.values()) model.crash();
    if (this.#place.jumpMs > 0) this.#place.jumpMs = 0;
    if (harms) {
      const [name, model] = this.pick([...this.models.entries(), undefined]) ?? [];
      if (model !== undefined) {
        const what = await harmSegment(join(this.#place.dir, "logs", model.streamId), model, this.random);
        this.#options.say?.(`${name}: ${what}`);
      }
    }
    this.#makeRoom();
    await this.#open();
    await this.#audit();
  }

  async #crash(): Promise<void> {
    this.counts.crash = (this.counts.crash ?? 0) + 1;
    this.#makeRoom();
    const image = await mkdtemp(join(this.#options.disk ?? tmpdir(), "headwater-image-"));
    const disk = this.#disk;
    const written = disk.cutAtNextWrite(image);
    for (let i = 0; i < 3; i++) {
      const name = this.pick(NAMES);
      if (this.random() < 0.6) this.#writers.put(name);
      else this.#writers.sendFrame(name);
    }
    if (this.random() < 0.3) this.start("reshard", this.#reshard(this.pick(NAMES)));
    await Promise.race([written, this.#someTurns()]);
    disk.cut(image);
    for (const model of this.models.values()) model.crash();
    await this.#settle();
    await this.streams.close();
    await rm(this.#place.dir, { recursive: true });
    await rename(image, this.#place.dir);
    this.#writers.crash();
    if (this.#place.jumpMs > 0) this.#place.jumpMs = 0;
    this.#options.say?.("after a crash");
    await this.#open();
    await this.#audit();
  }

  /** Nothing else may run. */
  async #audit(): Promise<void> {
    await this.#settle();
    assert.deepEqual(this.streams.listStreams(), [...this.models.keys()].sort());
    for (const [name, model] of this.models) {
      await audit(this.streams, name, model, () => this.pick([200, 5_000, 1_000_000]), this.nowMs);
    }
  }

  /** All that is too old goes, whatever the clock was in between. */
  async #growOld(): Promise<void> {
    this.#place.jumpMs = 0;
    this.#makeRoom();
    for (let i = 0; i < 8; i++) {
      this.#place.nowMs = this.nowMs + 10 * HOUR_MS;
      await this.streams.enforceRetention();
    }
    for (const name of this.models.keys()) {
      const { shardList, streamId } = this.streams.describe(name);
      for (const { shardId, trimHorizon, latest } of shardList)
        assert.equal(trimHorizon, latest, `${name} ${shardId}`);
      const files = (await readdir(join(this.#place.dir, "logs", streamId))).filter((file) =>
        file.endsWith(".log"),
      );
      assert.ok(files.length <= 2, `${files.length} segments of ${name} are left`);
    }
  }
}

function orRefused(error: { code?: string }): void {
  if (error.code === undefined || !EXPECTED.has(error.code)) throw error;
}
