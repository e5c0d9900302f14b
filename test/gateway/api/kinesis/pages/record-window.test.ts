/** What a batch's table tells, against a walk over it. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  ESCAPE_BYTES,
  IN_BYTES,
  type Measure,
  RecordWindow,
  recordWindow,
} from "../../../../../gateway/api/kinesis/pages/record-window.ts";
import { escapedBytes } from "../../../../../gateway/api/kinesis/pages/record-writer.ts";
import { BatchWalk } from "../../../../../protocol/batch-walk.ts";
import { encodeInOrder, MalformedBatchError } from "../../../../../protocol/record-batch.ts";

function plain(batch: Buffer): Measure {
  const walk = new BatchWalk(batch);
  let [records, dataBytes, keyBytes] = [0, 0, 0];
  while (walk.nextRun()) {
    const { count, keyAt, keyEnd } = walk;
    records += count;
    dataBytes += walk.payloadBytes;
    keyBytes += count * (keyEnd - keyAt + ESCAPE_BYTES * escapedBytes(batch, keyAt, keyEnd));
  }
  return { records, dataBytes, keyBytes };
}

const records = fc.array(
  fc.record({
    key: fc.oneof(fc.constantFrom("a", "b"), fc.string({ unit: "binary", minLength: 1, maxLength: 60 })),
    timeUs: fc.nat(),
    payload: fc.uint8Array({ maxLength: 12 }),
  }),
  { maxLength: 12 },
);

test("a table tells as much as a walk over the batch", () => {
  fc.assert(
    fc.property(records, (list) => {
      const batch = encodeInOrder(list);
      assert.deepEqual(recordWindow.measure(batch), plain(batch));
    }),
    { numRuns: 1_000 },
  );
});

test("of a table that does not fit its batch nothing is told", () => {
  const cases = fc.tuple(records, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 2 }), fc.nat(2));
  fc.assert(
    fc.property(cases, ([list, changes, cut]) => {
      const whole = encodeInOrder(list);
      const tableEnd = 8 + whole.readUInt32BE(4);
      for (const [at, byte] of changes) whole[at % tableEnd] = byte;
      const batch = whole.subarray(0, whole.length - cut);
      let expected: Measure | undefined;
      try {
        expected = plain(batch);
      } catch (error) {
        assert.ok(error instanceof MalformedBatchError);
      }
      assert.deepEqual(recordWindow.measure(batch), expected);
    }),
    { numRuns: 3_000 },
  );
});

/** One run of one empty record, and what is made of its parts. */
function oneRun(parts: {
  keyBytes?: number;
  count?: number;
  bodyBytes?: number;
  behindKey?: number;
}): Buffer {
  const { keyBytes = 3, count = 1, bodyBytes = 12, behindKey = 0 } = parts;
  const table = Buffer.alloc(10 + keyBytes + behindKey, "k");
  table.writeUInt16BE(keyBytes, 0);
  table.writeUInt32BE(count, 2);
  table.writeUInt32BE(bodyBytes, 6);
  const head = Buffer.alloc(8);
  head.writeUInt32BE(1, 0);
  head.writeUInt32BE(table.length, 4);
  return Buffer.concat([head, table, Buffer.alloc(bodyBytes)]);
}

test("each bound of a table is kept", () => {
  const told = (parts: Parameters<typeof oneRun>[0]): Measure | undefined =>
    recordWindow.measure(oneRun(parts));
  assert.deepEqual(told({}), { records: 1, dataBytes: 0, keyBytes: 3 });
  assert.deepEqual(told({ keyBytes: 1_024 }), { records: 1, dataBytes: 0, keyBytes: 1_024 });
  assert.equal(told({ keyBytes: 1_025 }), undefined);
  assert.equal(told({ keyBytes: 0 }), undefined);
  assert.equal(told({ behindKey: 1 }), undefined);
  assert.equal(told({ behindKey: 12 }), undefined);
  assert.equal(told({ count: 0 }), undefined);
  assert.equal(told({ count: 2, bodyBytes: 23 }), undefined);
  assert.deepEqual(told({ count: 2, bodyBytes: 24 }), { records: 2, dataBytes: 0, keyBytes: 6 });
  assert.equal(told({ count: 0xffff_ffff }), undefined);
});

test("keys of a great many records are counted beyond 32 bits", () => {
  const bodyBytes = 12 * 800_000;
  const batch = oneRun({ keyBytes: 1_024, count: 800_000, bodyBytes });
  batch.fill(0x01, 18, 18 + 1_024);
  const keyBytes = 800_000 * 1_024 * (1 + ESCAPE_BYTES);
  assert.ok(keyBytes > 2 ** 32);
  assert.deepEqual(recordWindow.measure(batch), { records: 800_000, dataBytes: 0, keyBytes });
});

test("a table longer than the window, bytes too few for a head, and a machine without SIMD are left to the walk", () => {
  const long = Array.from({ length: 4_200 }, (_, i) => ({
    key: String(i).padStart(1_000, "k"),
    timeUs: 0,
    payload: Buffer.alloc(0),
  }));
  const batch = encodeInOrder(long);
  assert.ok(batch.readUInt32BE(4) > IN_BYTES);
  assert.equal(recordWindow.measure(batch), undefined);
  assert.equal(recordWindow.measure(Buffer.alloc(7)), undefined);
  assert.equal(new RecordWindow("plain").measure(oneRun({})), undefined);
});
