import assert from "node:assert/strict";
import test from "node:test";
import { MEMORY_ENTRIES, PublishMemory, publishKey } from "../../../../agent/sources/mqtt/publish-memory.ts";

const key = (packetId: number, text: string): string => publishKey(packetId, "t", Buffer.from(text));
const done = Promise.resolve();

function remembering(count: number): PublishMemory {
  const memory = new PublishMemory();
  for (let i = 0; i < count; i++) memory.add(key(i, String(i)), done, memory.leading());
  return memory;
}

test("only a run of leading publishes up to the newest is recognised", () => {
  const memory = remembering(10);
  const leading = memory.leading();
  assert.ok(leading.match(key(8, "8")));
  assert.ok(leading.match(key(9, "9")));
  assert.equal(leading.match(key(9, "9")), undefined);
  const broken = memory.leading();
  assert.ok(broken.match(key(3, "3")));
  assert.equal(broken.match(key(5, "5")), undefined);
  assert.equal(broken.match(key(6, "6")), undefined, "after the first that is new none is recognised");
  assert.equal(memory.leading().match(key(9, "other payload")), undefined);
  assert.equal(memory.leading().match(key(8, "9")), undefined);
});

test("a mark brings the memory back, and holds the newest only", () => {
  const memory = remembering(200);
  const back = new PublishMemory(memory.encodeWith(key(200, "200")));
  assert.ok(back.leading().match(key(200, "200")));
  assert.ok(back.leading().match(key(201 - MEMORY_ENTRIES, String(201 - MEMORY_ENTRIES))));
  assert.equal(back.leading().match(key(200 - MEMORY_ENTRIES, String(200 - MEMORY_ENTRIES))), undefined);
  assert.equal(new PublishMemory(Buffer.from("short")).hasPending, false);
});

test("a publish that could not be stored is forgotten, and whoever waited for it hears so", async () => {
  const memory = new PublishMemory();
  let fail = (_: Error): void => {};
  memory.add(key(9, "1"), new Promise((_, reject) => (fail = reject)), memory.leading());
  const again = memory.leading().match(key(9, "1"))!;
  assert.equal(memory.hasPending, true);
  fail(new Error("full"));
  await assert.rejects(again, /full/);
  assert.equal(memory.leading().match(key(9, "1")), undefined);
});

test("a sensor that lost its power and numbers anew says something new, also with the same words", () => {
  const memory = new PublishMemory();
  for (const packetId of [1, 2, 3]) memory.add(key(packetId, "21.5"), done, memory.leading());
  const rebooted = memory.leading();
  for (const packetId of [1, 2, 3]) assert.equal(rebooted.match(key(packetId, "21.5")), undefined);
  assert.ok(memory.leading().match(key(1, "21.5"), true), "DUP says that it is a resend");
  assert.ok(memory.leading().match(key(3, "21.5")), "the packet before it is remembered: numbering goes on");
});

test("packet ids that have come round are no new beginning", () => {
  const memory = new PublishMemory();
  for (const packetId of [65_534, 65_535, 1]) memory.add(key(packetId, "on"), done, memory.leading());
  assert.ok(memory.leading().match(key(1, "on")));
});

test("what bears DUP is known by what came on its own connection, not by what came earlier", async () => {
  const memory = new PublishMemory();
  const [first, second] = [memory.leading(), memory.leading()];
  memory.add(key(1, "0"), done, first);
  assert.notEqual(memory.sentBefore(key(1, "0"), first), undefined);
  assert.equal(memory.sentBefore(key(1, "0"), second), undefined);
  assert.equal(memory.sentBefore(key(2, "0"), first), undefined);
  let fail: (reason: Error) => void = () => {};
  memory.add(key(3, "0"), new Promise((_, reject) => (fail = reject)), first);
  const waiting = memory.sentBefore(key(3, "0"), first);
  fail(new Error("full"));
  await assert.rejects(waiting!, /full/);
  assert.equal(memory.sentBefore(key(3, "0"), first), undefined);
});
