/** Who hands records in, in a hostile world: clients that never try again, and devices that do until it is stored. */
import assert from "node:assert/strict";
import { makeFrame } from "../../../../contract/stream-records.ts";
import type { LivedIn } from "./lived-in.ts";
import { indexOf } from "./stream-audit.ts";
import type { Handed } from "./stream-model.ts";

const DEVICES = 2;
/** What an answer says of which nothing was stored, whatever comes. */
export const NOTHING_STORED = new Set(["LOG_BUSY", "STREAM_NOT_FOUND", "STREAMS_CLOSED"]);

/** An agent's frames to one stream: one under way, and none before the one before is stored. */
interface Device {
  readonly epoch: bigint;
  sequence: bigint;
  frame: { texts: string[]; records: Handed[] } | undefined;
  isBusy: boolean;
}

export class HostileWriters {
  readonly #world: LivedIn;
  #devices = new Map<string, Device[]>();
  #order = 0;
  #unit = 0;

  constructor(world: LivedIn) {
    this.#world = world;
  }

  /** A stream was made. */
  begin(name: string): void {
    const device = (): Device => ({
      epoch: BigInt(this.#order++ + 1),
      sequence: 0n,
      frame: undefined,
      isBusy: false,
    });
    this.#devices.set(name, Array.from({ length: DEVICES }, device));
  }

  /** Nobody hears an answer any more. */
  crash(): void {
    for (const devices of this.#devices.values()) for (const device of devices) device.isBusy = false;
  }

  #newText(key: string): string {
    return `${key}=${this.#order++}/${"x".repeat(this.#world.below(this.#world.random() < 0.05 ? 5_000 : 200))}`;
  }

  /** What became of records that were handed in together. */
  #answered(records: readonly Handed[], work: Promise<unknown>): Promise<void> {
    const disk = this.#world.disk;
    return work.then(
      () => {
        if (disk.isDead) return;
        for (const record of records) record.fate = "acknowledged";
      },
      (error: { code?: string }) => {
        if (disk.isDead) return;
        const fate = NOTHING_STORED.has(error.code ?? "") ? "refused" : "failed";
        for (const record of records) record.fate = fate;
        throw error;
      },
    );
  }

  /** Some records, as entries or in columns. */
  put(name: string): void {
    const model = this.#world.models.get(name);
    if (model === undefined) return;
    const unit = this.#unit++;
    const records = Array.from({ length: 1 + this.#world.below(6) }, () => {
      const key = `p${this.#world.below(8)}`;
      const order = this.#order;
      return model.hand(this.#newText(key), key, order, unit, this.#world.bornMs);
    });
    const entries = records.map(({ key, text }) => ({ partitionKey: key, data: Buffer.from(text) }));
    const stored =
      this.#world.random() < 0.5 ? this.#append(name, records, entries) : this.#appendColumns(name, records);
    this.#world.start("put", this.#answered(records, stored));
  }

  async #append(
    name: string,
    records: readonly Handed[],
    entries: readonly { partitionKey: string; data: Buffer }[],
  ): Promise<void> {
    const model = this.#world.models.get(name)!;
    const disk = this.#world.disk;
    const placed = await this.#world.streams.append(name, entries);
    if (disk.isDead) return;
    for (const [i, { shardId, offset }] of placed.entries())
      model.place(records[i]!, indexOf(shardId), offset);
  }

  async #appendColumns(name: string, records: readonly Handed[]): Promise<void> {
    const model = this.#world.models.get(name)!;
    const disk = this.#world.disk;
    const data = records.map(({ text }) => Buffer.from(text));
    let end = 0;
    const { shards, offsets } = await this.#world.streams.appendColumns(name, {
      count: records.length,
      keys: records.map(({ key }) => key),
      hashes: undefined,
      data: Buffer.concat(data),
      ends: Uint32Array.from(data, ({ length }) => (end += length)),
    });
    if (disk.isDead) return;
    for (const [i, record] of records.entries()) model.place(record, shards[i]!, offsets[i]!);
  }

  /** The device's next frame, or once more the one that was not stored. */
  sendFrame(name: string): void {
    const which = this.#world.below(DEVICES);
    const model = this.#world.models.get(name);
    const device = this.#devices.get(name)?.[which];
    if (model === undefined || device === undefined || device.isBusy) return;
    if (device.frame === undefined) {
      device.sequence++;
      const unit = this.#unit++;
      const records = Array.from({ length: 1 + this.#world.below(12) }, () => {
        const key = `d${which}-${this.#world.below(4)}`;
        const order = this.#order;
        return model.hand(this.#newText(key), key, order, unit, this.#world.bornMs);
      });
      device.frame = { records, texts: records.map(({ text }) => text) };
    }
    const { records, texts } = device.frame;
    device.isBusy = true;
    const disk = this.#world.disk;
    // A frame whose fate is in doubt stays so until it is answered.
    for (const record of records) {
      record.bornMs = Math.min(record.bornMs, this.#world.bornMs);
      if (record.fate !== "doubtful" && record.fate !== "acknowledged") record.fate = "waiting";
    }
    const before = records.map(({ fate }) => fate);
    const work = this.#world.streams.appendFrame(makeFrame(name, device.sequence, texts, device.epoch)).then(
      (outcome) => {
        if (disk.isDead) return;
        if (outcome === "duplicate") {
          const known = before.some((fate) => fate === "doubtful" || fate === "acknowledged");
          assert.ok(known, `frame ${device.sequence} of ${name} is told to be known, and was never stored`);
        }
        for (const record of records) record.fate = "acknowledged";
        device.frame = undefined;
      },
      (error: unknown) => {
        if (disk.isDead) return;
        for (const record of records) if (record.fate === "waiting") record.fate = "failed";
        throw error;
      },
    );
    this.#world.start(
      "frame",
      work.finally(() => {
        device.isBusy = false;
      }),
    );
  }
}
