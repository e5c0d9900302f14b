/** What is remembered of frames: against a plain model, whatever comes, is stored, dropped or forgotten. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  MAX_EPOCHS_OF_DEVICE,
  Producers,
  type Verdict,
} from "../../../../../../gateway/streams/stores/local/log/producers.ts";
import type { Producer } from "../../../../../../gateway/streams/stores/log-entry.ts";
import { oldGarbageOf } from "../../../../../support/old-garbage.ts";

const EPOCHS = 3;
const frame = (epoch: number, sequence: number): Producer => ({
  kind: "frame",
  device: "d",
  epoch: BigInt(epoch + 1),
  epochStart: 1,
  sequence: BigInt(sequence),
});

const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ epoch: fc.nat(EPOCHS - 1), sequence: fc.integer({ min: 1, max: 12 }) }),
  },
  { weight: 6, arbitrary: fc.constant("stored" as const) },
  { weight: 1, arbitrary: fc.constant("dropped" as const) },
  { weight: 1, arbitrary: fc.record({ forget: fc.nat(EPOCHS - 1) }) },
);

test("a frame is new, on disk or on its way there, as a model that keeps all of it says", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const producers = new Producers();
      const onDisk = new Map<number, number>();
      let order: number[] = [];
      let waiting: { readonly epoch: number; readonly sequence: number }[] = [];
      const judged = (epoch: number, sequence: number): Verdict => {
        if (sequence <= (onDisk.get(epoch) ?? 0)) return "duplicate";
        const isOnItsWay = waiting.some((one) => one.epoch === epoch && one.sequence >= sequence);
        return isOnItsWay ? "duplicate-of-waiting" : "new";
      };
      for (const now of steps) {
        if (now === "stored") {
          const stored = waiting.shift();
          if (stored === undefined) continue;
          producers.settle(frame(stored.epoch, stored.sequence));
          onDisk.set(stored.epoch, Math.max(onDisk.get(stored.epoch) ?? 0, stored.sequence));
          order = [...order.filter((epoch) => epoch !== stored.epoch), stored.epoch];
        } else if (now === "dropped") {
          producers.dropWaiting();
          waiting = [];
        } else if ("forget" in now) {
          producers.forgetProducer(frame(now.forget, 0));
          onDisk.delete(now.forget);
          order = order.filter((epoch) => epoch !== now.forget);
        } else if (judged(now.epoch, now.sequence) === "new") {
          producers.expect(frame(now.epoch, now.sequence));
          waiting.push(now);
        }
        for (let epoch = 0; epoch < EPOCHS; epoch++) {
          for (let sequence = 1; sequence <= 13; sequence++) {
            assert.equal(
              producers.judgeFrame("d", BigInt(epoch + 1), BigInt(sequence)),
              judged(epoch, sequence),
            );
          }
          const isKnown = onDisk.has(epoch) || waiting.some((one) => one.epoch === epoch);
          assert.equal(producers.knowsEpoch("d", BigInt(epoch + 1)), isKnown);
        }
        assert.equal(producers.size, onDisk.size);
        // In the order of last use: the one that is silent for longest is forgotten first.
        const kept = producers
          .snapshot()
          .epochs.map(([, epoch, , last]) => [Number(epoch) - 1, Number(last)]);
        assert.deepEqual(
          kept,
          order.map((epoch) => [epoch, onDisk.get(epoch)]),
        );
      }
    }),
  );
});

test("frames of one epoch leave nothing for collections of the whole heap", async () => {
  const producers = new Producers();
  const bytes = await oldGarbageOf((i) => {
    const next = frame(0, i + 1);
    producers.expect(next);
    producers.settle(next);
    return undefined;
  });
  assert.ok(bytes < 40, `${bytes} bytes each`);
});

test("a device that begins an epoch with each frame forgets its own first ones, and no other device's", () => {
  const settled = (producers: Producers, device: string, epoch: number): void => {
    const one = { ...frame(epoch, 1), device } as Producer;
    producers.expect(one);
    producers.settle(one);
  };
  const producers = new Producers();
  settled(producers, "honest", 0);
  for (let i = 0; i < 101_000; i++) settled(producers, "broken", i);
  const again = new Producers();
  again.restore(producers.snapshot());
  for (const known of [producers, again]) {
    assert.equal(known.judgeFrame("honest", 1n, 1n), "duplicate");
    assert.equal(known.judgeFrame("broken", 101_000n, 1n), "duplicate");
    assert.equal(known.judgeFrame("broken", 1n, 1n), "new");
    assert.equal(known.size, 1 + MAX_EPOCHS_OF_DEVICE);
  }
});

test("what waits of a session that has ended is no longer known, and takes nothing from the next one", () => {
  const publish = (letter: string): Producer => ({
    kind: "publish",
    clientId: "plug",
    identity: letter.repeat(18),
  });
  const judged = (letter: string): Verdict => producers.judgePublish("plug", letter.repeat(18));
  const producers = new Producers();
  for (const letter of ["a", "b"]) producers.expect(publish(letter));
  producers.settle(publish("a"));
  producers.endSession("plug");
  assert.deepEqual(["a", "b"].map(judged), ["new", "new"]);
  producers.expect(publish("b"));
  // The first of them, of the session that has ended.
  producers.settle(publish("b"));
  assert.deepEqual(["a", "b"].map(judged), ["new", "duplicate-of-waiting"]);
  producers.forgetProducer(publish("b"));
  producers.settle(publish("b"));
  assert.equal(judged("b"), "duplicate");
  producers.endSession("plug");
  producers.expect(publish("c"));
  producers.dropWaiting();
  producers.expect(publish("d"));
  producers.settle(publish("d"));
  assert.deepEqual(["b", "c", "d"].map(judged), ["new", "new", "duplicate"]);
});
