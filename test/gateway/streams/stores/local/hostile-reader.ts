/** A consumer in a hostile world: reads what it may, checkpoints, and must be given each key's records in order. */
import assert from "node:assert/strict";
import type { Consumer } from "../../../../../gateway/streams/streams.ts";
import type { LivedIn } from "./lived-in.ts";
import { indexOf, recordsOf } from "./stream-audit.ts";
import type { StreamModel } from "./stream-model.ts";

export class HostileReader {
  readonly model: StreamModel;
  readonly #world: LivedIn;
  readonly #name: string;
  #consumer: Promise<Consumer> | undefined;
  #last: Promise<void> = Promise.resolve();
  /** By key, the newest that was read; since this consumer was opened. */
  readonly #newest = new Map<string, number>();

  constructor(world: LivedIn, name: string, model: StreamModel) {
    this.#world = world;
    this.#name = name;
    this.model = model;
  }

  /** Some reads and a checkpoint, behind those under way. */
  goOn(reads: number): Promise<void> {
    const maxBytes = this.#world.pick([1, 500, 100_000]);
    const done = this.#last.catch(() => undefined).then(() => this.#goOn(reads, maxBytes));
    this.#last = done;
    return done;
  }

  async #goOn(reads: number, maxBytes: number): Promise<void> {
    const { streams, disk } = this.#world;
    this.#consumer ??= streams.openConsumer(this.#name, "c");
    this.#consumer.catch(() => {
      this.#consumer = undefined;
    });
    const consumer = await this.#consumer;
    const moved = new Map<string, number>();
    for (const [shardId, from] of [...consumer.positions()].slice(0, reads)) {
      const acknowledged = this.model.acknowledged();
      const { parts, next } = await streams.read(this.#name, shardId, from, maxBytes);
      if (disk.isDead) return;
      const index = indexOf(shardId);
      const horizon = streams.shard(this.#name, index).trimHorizon;
      const found = recordsOf(parts).filter(({ offset }) => offset >= from);
      this.model.judgeRead(index, from, next, horizon, found, acknowledged);
      for (const { text, key } of found) {
        const { order } = this.model.records.get(text)!;
        const newest = this.#newest.get(key) ?? -1;
        assert.ok(order > newest, `${text} comes behind ${newest} of its key`);
        this.#newest.set(key, order);
      }
      moved.set(shardId, next);
    }
    try {
      await consumer.checkpoint(moved);
    } catch (error) {
      // What was read and not checkpointed comes again.
      this.#newest.clear();
      throw error;
    }
  }
}
