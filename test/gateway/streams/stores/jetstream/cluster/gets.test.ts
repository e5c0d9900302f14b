import assert from "node:assert/strict";
import test from "node:test";
import { Gets } from "../../../../../../gateway/streams/stores/jetstream/cluster/gets.ts";

const MIB = 1_048_576;

/** Asks for messages of one stream, of which the size of each is known here. */
class Asked {
  readonly gets = new Gets();
  readonly #underWay: Array<{ readonly bytes: number; readonly come: () => void }> = [];

  /** @returns those that are on their way then, and what resolves when all have come */
  async ask(
    bytes: number,
    sequences: ReadonlyArray<number | undefined>,
  ): Promise<{ underWay: number; bytes: number; all: Promise<unknown> }> {
    const all = Promise.all(
      sequences.map((sequence) =>
        this.gets.run("S", sequence, async () => {
          await new Promise<void>((come) => this.#underWay.push({ bytes, come }));
          return { data: Buffer.allocUnsafe(bytes) };
        }),
      ),
    );
    await new Promise(setImmediate);
    const onTheirWay = this.#underWay.reduce((sum, one) => sum + one.bytes, 0);
    return { underWay: this.#underWay.length, bytes: onTheirWay, all };
  }

  async come(all: Promise<unknown>): Promise<void> {
    let isDone = false;
    const done = all.finally(() => {
      isDone = true;
    });
    while (!isDone) {
      for (const { come } of this.#underWay.splice(0)) come();
      await new Promise(setImmediate);
    }
    await done;
  }

  async get(bytes: number, sequences: ReadonlyArray<number | undefined>): Promise<void> {
    for (const sequence of sequences) await this.come((await this.ask(bytes, [sequence])).all);
  }
}

const places = (count: number, from: number): number[] => Array.from({ length: count }, (_, i) => from + i);

test("large messages of which nothing is known are asked for three at a time, those beside them as many as have 16 MiB", async () => {
  const asked = new Asked();
  assert.equal(asked.gets.ahead("S", 1, 32), 3);
  const { underWay, all } = await asked.ask(4 * MIB, places(5, 1));
  assert.equal(underWay, 3);
  await asked.come(all);
  assert.equal(asked.gets.ahead("S", 6, 32), 4);
  // Also where the next stretch begins.
  assert.equal(asked.gets.ahead("S", 100, 32), 4);
  assert.equal((await asked.ask(4 * MIB, places(9, 100))).underWay, 4);
});

test("small messages elsewhere do not let large ones be asked for all at once", async () => {
  const asked = new Asked();
  await asked.get(12 * MIB, [1]);
  await asked.get(200, [...places(100, 10_000), undefined]);
  assert.equal(asked.gets.ahead("S", 2, 32), 1);
  const { bytes } = await asked.ask(12 * MIB, places(20, 2));
  assert.ok(bytes <= 16 * MIB);
});

test("what is small does not wait behind large ones, and is bounded, too", async () => {
  const asked = new Asked();
  await asked.get(12 * MIB, [1]);
  await asked.get(60_000, [1_000]);
  const large = await asked.ask(12 * MIB, places(3, 2));
  assert.equal(large.underWay, 1);
  const small = await asked.ask(60_000, Array<number>(200).fill(1_001));
  assert.ok(small.underWay > 100);
  assert.ok(small.bytes <= (12 + 8) * MIB);
  await asked.come(Promise.all([large.all, small.all]));
});

test("a get that fails gives its room back", async () => {
  const gets = new Gets();
  for (let i = 0; i < 100; i++) {
    await assert.rejects(
      gets.run("S", 1, () => Promise.reject(new Error("no answer"))),
      /no answer/,
    );
  }
  await gets.run("S", 1, async () => ({ data: Buffer.alloc(1) }));
});
