import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import test from "node:test";
import { BusyError } from "../../../gateway/api/body-budget.ts";
import type { OutgoingReply } from "../../../gateway/api/exchange.ts";
import { UnreadAnswers } from "../../../gateway/api/unread-answers.ts";

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
