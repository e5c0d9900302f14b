/** Random use of the buffer against a list in memory: what waits, in which order, and how it is counted. */
import assert from "node:assert/strict";
import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import fc from "fast-check";
import type { RecordBuffer } from "../../../../agent/buffer/record-buffer.ts";
import type { Frame } from "../../../../protocol/frame.ts";
import { openBuffer, readAll, record, settled, temporaryFolder, texts } from "./buffer-fixture.ts";

type Step =
  | { readonly do: "append"; readonly sizes: readonly number[] }
  | { readonly do: "ack"; readonly share: number }
  | { readonly do: "ackWithoutReading"; readonly share: number }
  | { readonly do: "forget" | "reopen" | "kill" };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("append" as const),
      sizes: fc.array(fc.integer({ min: 1, max: 1_500 }), { minLength: 1, maxLength: 8 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("ack" as const),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("ackWithoutReading" as const),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constantFrom("forget" as const, "reopen" as const, "kill" as const) }),
  },
);

/** The waiting frames, each as the numbers of its records. */
type Model = { epoch: bigint; sequence: bigint; numbers: number[] }[];

class Used {
  readonly #root: string;
  #copies = 0;
  #dir: string;
  #next = 0;
  buffer!: RecordBuffer;
  model: Model = [];

  constructor(root: string) {
    this.#root = root;
    this.#dir = join(root, "records");
  }

  async open(): Promise<void> {
    this.buffer = await openBuffer(this.#dir, { partBytes: 4_096 });
  }

  async run(next: Step): Promise<void> {
    if (next.do === "append") await this.#append(next.sizes);
    else if (next.do === "ack") await this.#ack(next.share, await readAll(this.buffer));
    else if (next.do === "ackWithoutReading") await this.#ack(next.share, this.model);
    else if (next.do === "forget") {
      for (const epoch of await this.buffer.drainedEpochs()) await this.buffer.forgetEpoch(epoch);
    } else await this.#openAgain(next.do);
  }

  async #append(sizes: readonly number[]): Promise<void> {
    const records = sizes.map((size) => record(String(this.#next++).padEnd(size)));
    await this.buffer.append(records);
    const known = new Set(this.model.map((frame) => `${frame.epoch}/${frame.sequence}`));
    for (const frame of await readAll(this.buffer)) {
      if (!known.has(`${frame.epoch}/${frame.sequence}`)) this.model.push(entryOf(frame));
    }
  }

  async #ack(share: number, frames: readonly { epoch: bigint; sequence: bigint }[]): Promise<void> {
    const count = Math.floor(share * frames.length);
    const last = frames[count - 1];
    if (last === undefined) return;
    // Strictly oldest first: an earlier epoch is finished before a later one is begun.
    const ends = new Map(frames.slice(0, count).map(({ epoch, sequence }) => [epoch, sequence]));
    for (const [epoch, sequence] of ends) await this.buffer.ack(epoch, sequence);
    this.model.splice(0, count);
  }

  async #openAgain(how: "reopen" | "kill"): Promise<void> {
    const from = this.#dir;
    if (how === "kill") {
      await settled(this.buffer, from);
      this.#dir = join(this.#root, `copy-${this.#copies++}`);
      await cp(from, this.#dir, { recursive: true });
    }
    await this.buffer.close();
    if (how === "kill") await rm(from, { recursive: true });
    await this.open();
  }

  async check(): Promise<void> {
    const frames = await readAll(this.buffer);
    assert.deepEqual(frames.map(entryOf), this.model);
    const { waitingRecords, waitingBytes, oldestUs } = this.buffer.usage();
    assert.equal(
      waitingRecords,
      frames.reduce((sum, frame) => sum + frame.recordCount, 0),
    );
    assert.equal(
      waitingBytes,
      frames.reduce((sum, frame) => sum + frame.bytes.length, 0),
    );
    assert.equal(oldestUs === undefined, frames.length === 0);
  }
}

function entryOf(frame: Frame): Model[number] {
  return { epoch: frame.epoch, sequence: frame.sequence, numbers: texts([frame]).map(Number) };
}

test("whatever is done to it, the buffer holds what was stored and not acknowledged, in order", async (t) => {
  const root = await temporaryFolder(t);
  let run = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 18 }), async (steps) => {
      const used = new Used(join(root, `run-${run++}`));
      await used.open();
      try {
        for (const next of steps) {
          await used.run(next);
          await used.check();
        }
      } finally {
        await used.buffer.close();
      }
    }),
    { numRuns: 25 },
  );
});
