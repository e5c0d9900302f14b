import assert from "node:assert/strict";
import test from "node:test";
import type { Client } from "aedes";
import fc from "fast-check";
import { PlainBatch } from "../../../gateway/ingest/plain-batch.ts";
import { type Answers, NO_PACKET_ID, newSession, type Publish } from "../../../gateway/ingest/publish.ts";

const answers: Answers = { acknowledge: () => {}, disconnect: () => {} };
const session = (id: string) => newSession({ id } as Client, id);

function publish(topic: string, packetId: number, payload: Uint8Array): Publish {
  // In the midst of other bytes, as in a packet.
  const bytes = Buffer.concat([Buffer.from("head"), payload, Buffer.from("next")]);
  const qos = packetId === NO_PACKET_ID ? 0 : 1;
  const destination = { kind: "stream", topic, stream: "s" } as const;
  return { destination, qos, dup: false, packetId, bytes, from: 4, end: bytes.length - 4 };
}

test("columns hold what was added, whatever becomes of the memory that it came in", () => {
  const one = fc.record({
    topic: fc.constantFrom("a", "b"),
    packetId: fc.constantFrom(NO_PACKET_ID, 1, 65_535),
    payload: fc.uint8Array({ maxLength: 9_000 }),
    mayRepeat: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(one, { maxLength: 20 }), (list) => {
      const batch = new PlainBatch(7, undefined);
      for (const { topic, packetId, payload, mayRepeat } of list) {
        const came = publish(topic, packetId, payload);
        batch.add(session("c"), came, mayRepeat, answers);
        came.bytes.fill(0);
      }
      const { count, timeUs, ...columns } = batch.columns();
      assert.deepEqual([count, timeUs], [list.length, 7]);
      assert.deepEqual(
        columns.partitionKeys,
        list.map(({ topic }) => topic),
      );
      assert.deepEqual(
        columns.packetIds,
        list.map(({ packetId }) => Math.max(packetId, 0)),
      );
      assert.deepEqual(
        columns.mayRepeat,
        list.map(({ mayRepeat }) => mayRepeat),
      );
      assert.deepEqual(columns.data, Buffer.concat(list.map(({ payload }) => payload)));
      for (const [i, { payload }] of list.entries()) {
        assert.deepEqual(batch.payload(i), Buffer.from(payload));
        assert.equal(batch.addressed(i).payloadBytes, payload.length);
      }
    }),
  );
});

test("what a withheld session sent later is left out, and only that", () => {
  const batch = new PlainBatch(7, undefined);
  const [good, bad] = [session("good"), session("bad")];
  for (const [i, from] of [good, bad, good, bad, bad].entries()) {
    batch.add(from, publish("a", i + 1, Buffer.from(`${from.clientId} ${i}`)), i % 2 === 0, answers);
  }
  assert.equal(batch.inTurn(), batch);
  bad.withheld = true;
  const rest = batch.inTurn();
  assert.deepEqual(rest.columns().packetIds, [1, 3]);
  assert.deepEqual(rest.columns().mayRepeat, [true, true]);
  assert.equal(rest.columns().data.toString(), "good 0good 2");
  good.withheld = true;
  assert.equal(rest.inTurn().count, 0);
});
