import assert from "node:assert/strict";
import test from "node:test";
import {
  clientToken,
  epochToken,
  ProducerStates,
  UNKNOWN,
} from "../../../../../../gateway/streams/stores/jetstream/log/producer-states.ts";

const LIMITS = { clients: 3, epochs: 4, epochsOfDevice: 2 };

const client = (sequence: number) => ({
  ...UNKNOWN,
  sequence,
  counted: { sequence, id: "" },
  recent: ["0123456789"],
});
const epoch = (sequence: number) => ({
  ...UNKNOWN,
  sequence,
  counted: { sequence, id: "" },
  lastFrame: 1n,
});

test("the client that is silent for longest is forgotten first, but not where its next publish has to stand", () => {
  const states = new ProducerStates(LIMITS);
  states.restored();
  const tokens = ["a", "b", "c", "d"].map(clientToken);
  for (const [i, token] of tokens.slice(0, 3).entries()) states.set(token, client(i + 1));
  states.set(tokens[0]!, client(4));
  states.set(tokens[3]!, client(5));
  assert.deepEqual(
    tokens.map((token) => states.knows(token)),
    [true, false, true, true],
  );
  assert.equal(states.get(tokens[1]!).sequence, 2);
  assert.deepEqual(states.rememberedBefore(Infinity).length, 3);
  // It comes again, and is remembered anew.
  states.set(tokens[1]!, client(6));
  assert.deepEqual(
    tokens.map((token) => states.knows(token)),
    [true, true, false, true],
  );
  assert.equal(states.size, 3);
});

test("a device that begins one epoch after the other pushes out its own", () => {
  const states = new ProducerStates(LIMITS);
  states.restored();
  const of = (device: string, count: number) =>
    Array.from({ length: count }, (_, i) => epochToken(device, BigInt(i + 1)));
  let sequence = 0;
  for (const token of [...of("sound", 1), ...of("broken", 5)]) states.set(token, epoch(++sequence));
  assert.equal(states.size, 3);
  assert.ok(states.knows(epochToken("sound", 1n)));
  assert.ok(states.knows(epochToken("broken", 5n)) && states.knows(epochToken("broken", 4n)));
  for (const device of ["x", "y"]) states.set(epochToken(device, 1n), epoch(++sequence));
  assert.equal(states.size, LIMITS.epochs);
  assert.ok(!states.knows(epochToken("sound", 1n)), "of all devices the one silent for longest");
  states.set(epochToken("x", 1n), { ...epoch(++sequence), lastFrame: 0n });
  states.forget(epochToken("y", 1n));
  assert.equal(states.size, 2);
});

test("what was there at the start is bounded by its order in the log, in whatever order it came", () => {
  const states = new ProducerStates(LIMITS);
  for (const sequence of [5, 1, 4, 2, 3]) states.set(clientToken(`c${sequence}`), client(sequence));
  states.restored();
  assert.deepEqual(
    [1, 2, 3, 4, 5].map((sequence) => states.knows(clientToken(`c${sequence}`))),
    [false, false, true, true, true],
  );
});
