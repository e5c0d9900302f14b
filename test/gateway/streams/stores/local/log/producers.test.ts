/** What is remembered of frames and publishes: against a plain model, whatever comes, is stored, dropped or forgotten. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { publishesOf } from "../../../../../../gateway/streams/stores/entry-producer.ts";
import {
  MAX_CLIENTS,
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

test("frames of several epochs in turn leave nothing for collections of the whole heap", async () => {
  const producers = new Producers();
  const bytes = await oldGarbageOf((i) => {
    const next = frame(i % 16, i + 1);
    producers.expect(next);
    producers.settle(next);
    return undefined;
  });
  assert.ok(bytes < 30, `${bytes} bytes each`);
});

for (const [clients, together] of [
  [1, 1],
  [20, 1],
  [20, 16],
] as const) {
  test(`publishes of ${clients} clients, ${together} of each together, leave nothing for such collections`, async () => {
    const producers = new Producers();
    const clientIds = Array.from(
      { length: clients * together },
      (_, i) => `plug-${Math.floor(i / together)}`,
    );
    let told = 0;
    const rounds = 100_000 / clientIds.length;
    const bytes = await oldGarbageOf(() => {
      const identities = clientIds.map(() => `${1e17 + told++}`);
      const together = publishesOf(clientIds, identities);
      producers.expect(together);
      producers.settle(together);
      return undefined;
    }, rounds);
    assert.ok(bytes / clientIds.length < 10, `${bytes / clientIds.length} bytes each`);
  });
}

const CLIENTS = 3;
const publishStep = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.array(fc.record({ client: fc.nat(CLIENTS - 1), packetId: fc.nat(9), letter: fc.nat(3) }), {
      minLength: 1,
      maxLength: 60,
    }),
  },
  { weight: 6, arbitrary: fc.constant("stored" as const) },
  { weight: 1, arbitrary: fc.constant("dropped" as const) },
  { weight: 1, arbitrary: fc.constant("started anew" as const) },
  { weight: 1, arbitrary: fc.record({ ended: fc.nat(CLIENTS - 1) }) },
);

test("a publish is new, on disk or on its way there, as a model that keeps lists of them says", () => {
  const identityOf = ({ packetId, letter }: { packetId: number; letter: number }): string =>
    String.fromCharCode(0, packetId) + String.fromCharCode(128 + letter).repeat(16);
  fc.assert(
    fc.property(fc.array(publishStep, { maxLength: 60 }), (steps) => {
      let producers = new Producers();
      /** On disk of each client, the one that was silent for longest first. */
      const stored = new Map<number, string[]>();
      type Told = { readonly client: number; readonly identity: string; ended: boolean };
      let waiting: Array<readonly Told[]> = [];
      const of = (told: readonly Told[]): Producer => {
        const clientIds = told.map(({ client }) => `plug-${client}`);
        const identities = told.map(({ identity }) => identity);
        return told.length === 1
          ? { kind: "publish", clientId: clientIds[0]!, identity: identities[0]! }
          : publishesOf(clientIds, identities);
      };
      for (const now of steps) {
        if (now === "stored") {
          const told = waiting.shift();
          if (told === undefined) continue;
          producers.settle(of(told));
          for (const { client, identity, ended } of told) {
            if (ended) continue;
            const seen = stored.get(client) ?? [];
            stored.delete(client);
            stored.set(client, [...seen, identity].slice(-64));
          }
        } else if (now === "dropped") {
          producers.dropWaiting();
          waiting = [];
        } else if (now === "started anew") {
          const again = new Producers();
          again.restore(producers.snapshot());
          producers = again;
          waiting = [];
        } else if ("ended" in now) {
          producers.endSession(`plug-${now.ended}`);
          stored.delete(now.ended);
          for (const told of waiting.flat()) if (told.client === now.ended) told.ended = true;
        } else {
          const told = now.map((one) => ({ client: one.client, identity: identityOf(one), ended: false }));
          producers.expect(of(told));
          waiting.push(told);
        }
        const onTheirWay = waiting.flat().filter(({ ended }) => !ended);
        for (let client = 0; client < CLIENTS; client++) {
          const id = `plug-${client}`;
          const seen = stored.get(client) ?? [];
          const coming = onTheirWay.filter((told) => told.client === client).map(({ identity }) => identity);
          assert.equal(producers.knowsClient(id), seen.length + coming.length > 0);
          for (let packetId = 0; packetId < 10; packetId++) {
            const known = [...seen, ...coming].some((identity) => identity.charCodeAt(1) === packetId);
            assert.equal(producers.remembersPacket(id, packetId), known);
            for (let letter = 0; letter < 4; letter++) {
              const identity = identityOf({ packetId, letter });
              const verdict = coming.includes(identity) ? "duplicate-of-waiting" : "new";
              assert.equal(
                producers.judgePublish(id, identity),
                seen.includes(identity) ? "duplicate" : verdict,
              );
            }
          }
        }
        assert.equal(producers.size, stored.size);
        assert.deepEqual(
          producers.snapshot().clients,
          Array.from(stored, ([client, seen]) => [
            `plug-${client}`,
            seen.map((identity) => Buffer.from(identity, "latin1").toString("base64")),
          ]),
        );
      }
    }),
  );
});

test("the clients silent for longest are forgotten first, and what waits of them stays known", () => {
  const producers = new Producers();
  const publish = (client: number, letter: string): Producer => ({
    kind: "publish",
    clientId: `plug-${client}`,
    identity: letter.repeat(18),
  });
  const tell = (client: number): void => {
    producers.expect(publish(client, "a"));
    producers.settle(publish(client, "a"));
  };
  for (let client = 0; client < MAX_CLIENTS; client++) tell(client);
  producers.expect(publish(1, "b"));
  tell(0);
  for (let client = MAX_CLIENTS; client < MAX_CLIENTS + 2; client++) tell(client);
  assert.equal(producers.size, MAX_CLIENTS);
  const judged = (client: number, letter: string): Verdict =>
    producers.judgePublish(`plug-${client}`, letter.repeat(18));
  assert.deepEqual(
    [judged(0, "a"), judged(1, "a"), judged(1, "b"), judged(2, "a"), judged(3, "a")],
    ["duplicate", "new", "duplicate-of-waiting", "new", "duplicate"],
  );
  producers.settle(publish(1, "b"));
  assert.deepEqual([judged(1, "b"), judged(3, "a")], ["duplicate", "new"]);
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
