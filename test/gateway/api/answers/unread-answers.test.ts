import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import test from "node:test";
import { AnswerRoom, UnreadAnswers } from "../../../../gateway/api/answers/unread-answers.ts";
import { BusyError } from "../../../../gateway/api/bodies/body-budget.ts";
import type { OutgoingReply } from "../../../../gateway/api/exchange.ts";

/** Who stays until the answer comes. */
const WAITING = { isGone: false, hasSaidAll: false };

const reply = (state: object = { destroyed: false }) =>
  Object.assign(new EventEmitter(), state) as EventEmitter & OutgoingReply;

test("large answers count until their replies have closed, small ones never", () => {
  const unread = new UnreadAnswers(1_000_000);
  const first = reply();
  unread.hold(first, 600_000, "key");
  unread.hold(reply(), 65_535, "key");
  assert.equal(unread.heldBytes, 600_000);
  assert.throws(() => unread.hold(reply(), 500_000, "key"), BusyError);
  assert.equal(unread.heldBytes, 600_000, "what is refused does not count");
  first.emit("close");
  unread.hold(reply(), 500_000, "key");
  assert.equal(unread.heldBytes, 500_000);
});

test("a single answer is taken whatever its size, one for nobody does not count", () => {
  const unread = new UnreadAnswers(1_000_000);
  unread.hold(reply({ destroyed: true }), 900_000, "key");
  unread.hold(reply({ stream: { closed: true, destroyed: false } }), 900_000, "key");
  assert.equal(unread.heldBytes, 0);
  const http2 = reply({ stream: { closed: false, destroyed: false } });
  unread.hold(http2, 2_000_000, "key");
  assert.equal(unread.heldBytes, 2_000_000);
  http2.emit("close");
  assert.equal(unread.heldBytes, 0);
});

test("who takes no answers leaves room for the keys of others, and gets it back with each answer that is taken", () => {
  const unread = new UnreadAnswers(1_000_000);
  const replies: ReturnType<typeof reply>[] = [];
  const holdAll = (keyId: string): void => {
    for (;;) {
      const one = reply();
      unread.hold(one, 70_000, keyId);
      replies.push(one);
    }
  };
  assert.throws(() => holdAll("greedy"), BusyError);
  assert.equal(unread.heldBytes, 770_000, "at most four fifths");
  assert.ok(unread.take(100_000, "other"));
  assert.ok(!unread.take(100_000, "other"), "four times what is free");
  replies[0]!.emit("close");
  assert.ok(!unread.take(70_000, "greedy"), "it still holds more than its share");
  unread.give(100_000, "other");
  for (const one of replies.slice(1)) one.emit("close");
  assert.equal(unread.heldBytes, 0);
  assert.throws(() => holdAll("other"), BusyError);
  assert.equal(unread.heldBytes, 770_000);
});

test("what is set aside for an answer counts as if it was held, and the answer takes it over", () => {
  const unread = new UnreadAnswers(1_000_000);
  const room = new AnswerRoom(unread, "key", WAITING);
  room.reserve(600_000);
  assert.equal(unread.heldBytes, 600_000);
  assert.throws(() => new AnswerRoom(unread, "key", WAITING).reserve(300_000), BusyError);
  assert.throws(() => unread.hold(reply(), 300_000, "key"), BusyError);
  room.reserve(500_000);
  assert.equal(unread.heldBytes, 500_000);
  // What others take meanwhile makes its share less, but is no reason to throw away what was made.
  assert.ok(unread.take(380_000, "other"));
  assert.ok(!room.fits(500_001));
  const own = reply();
  unread.hold(own, 450_000, "key", room);
  assert.deepEqual([room.bytes, unread.heldBytes], [0, 830_000]);
  room.giveBack();
  assert.equal(unread.heldBytes, 830_000, "it is the answer's");
  own.emit("close");
  assert.equal(unread.heldBytes, 380_000);
});

test("what is set aside and not taken goes back", () => {
  const unread = new UnreadAnswers(1_000_000);
  const room = new AnswerRoom(unread, "key", WAITING);
  room.reserve(2_000_000);
  room.reserve(3_000_000);
  assert.equal(unread.heldBytes, 3_000_000, "a single answer, whatever its size");
  unread.hold(reply({ destroyed: true }), 3_000_000, "key", room);
  unread.hold(reply(), 60_000, "key", room);
  assert.equal(room.bytes, 3_000_000, "the one has left, and the other is too small to count");
  room.giveBack();
  room.giveBack();
  assert.equal(unread.heldBytes, 0);
  room.reserve(65_535);
  assert.equal(unread.heldBytes, 0);
});
