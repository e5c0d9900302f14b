import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  type BatchRecord,
  decodeBatch,
  encodeBatch,
  encodeInOrder,
  forEachRecord,
  joinRuns,
  MAX_KEY_BYTES,
  MalformedBatchError,
  readUInt53,
  writeUInt53,
} from "../../protocol/record-batch.ts";

const key = fc.oneof(
  fc.constantFrom("a", "b", "pi-1/temperature"),
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 200 }).filter((text) => {
    // A lone surrogate has no UTF-8 and is written as U+FFFD.
    return Buffer.from(text).toString() === text && Buffer.byteLength(text) <= MAX_KEY_BYTES;
  }),
);
const record: fc.Arbitrary<BatchRecord> = fc.record({
  key,
  timeUs: fc.nat(Number.MAX_SAFE_INTEGER),
  payload: fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
});

function flatten(batch: Uint8Array): Array<{ key: string; timeUs: number; payload: string }> {
  const records: Array<{ key: string; timeUs: number; payload: string }> = [];
  for (const run of decodeBatch(batch)) {
    forEachRecord(run, (payload, timeUs, index) => {
      assert.ok(index < run.count);
      records.push({ key: run.key, timeUs, payload: payload.toString("hex") });
    });
  }
  return records;
}

function plain({ key: name, timeUs, payload }: BatchRecord) {
  return { key: name, timeUs, payload: Buffer.from(payload).toString("hex") };
}

test("a batch groups by key and keeps the order within each", () => {
  fc.assert(
    fc.property(fc.array(record, { maxLength: 40 }), (records) => {
      const keys = [...new Set(records.map((one) => one.key))];
      const grouped = keys.flatMap((name) => records.filter((one) => one.key === name));
      assert.deepEqual(flatten(encodeBatch(records)), grouped.map(plain));
      assert.equal(decodeBatch(encodeBatch(records)).length, keys.length);
    }),
  );
});

test("a batch in order keeps the order of all records", () => {
  fc.assert(
    fc.property(fc.array(record, { maxLength: 40 }), (records) => {
      assert.deepEqual(flatten(encodeInOrder(records)), records.map(plain));
    }),
  );
});

test("runs that are taken apart and joined give the same batch", () => {
  fc.assert(
    fc.property(fc.array(record, { maxLength: 40 }), (records) => {
      const batch = encodeInOrder(records);
      assert.deepEqual(joinRuns(decodeBatch(batch)), batch);
      assert.deepEqual(joinRuns(decodeBatch(batch, "trusted")), batch);
    }),
  );
});

test("what decodes can be read to the end; everything else is refused by name", () => {
  const mutation = fc.record({ at: fc.nat(), value: fc.nat(255) });
  const size = fc.nat(400);
  fc.assert(
    fc.property(
      fc.array(record, { maxLength: 8 }),
      fc.array(mutation, { maxLength: 4 }),
      size,
      (records, changes, cut) => {
        const batch = encodeInOrder(records);
        for (const { at, value } of changes) batch[at % batch.length] = value;
        const bytes = cut < 100 ? batch.subarray(0, cut) : batch;
        try {
          const read = flatten(bytes);
          assert.deepEqual(flatten(joinRuns(decodeBatch(bytes))), read);
        } catch (error) {
          assert.ok(error instanceof MalformedBatchError, String(error));
        }
      },
    ),
    { numRuns: 1_000 },
  );
});

test("random bytes are refused", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        flatten(bytes);
      } catch (error) {
        assert.ok(error instanceof MalformedBatchError, String(error));
      }
    }),
  );
});

test("a table that promises more than there is costs nothing", () => {
  const huge = Buffer.alloc(64);
  huge.writeUInt32BE(0xffff_ffff, 0);
  huge.writeUInt32BE(56, 4);
  assert.throws(() => decodeBatch(huge), MalformedBatchError);
  const batch = encodeBatch([{ key: "k", timeUs: 1, payload: Buffer.from("x") }]);
  batch.writeUInt32BE(0xffff_ffff, 10);
  assert.throws(() => decodeBatch(batch), MalformedBatchError);
});

test("records that do not fill their run, and times above 2^53, are refused before anybody reads them", () => {
  const make = () => encodeBatch([{ key: "k", timeUs: 1, payload: Buffer.from("four") }]);
  const head = make().length - 16;
  const longer = make();
  longer.writeUInt32BE(5, head);
  const shorter = make();
  shorter.writeUInt32BE(3, head);
  const late = make();
  late.writeUInt32BE(0x20_0000, head + 4);
  for (const batch of [longer, shorter, late]) assert.throws(() => decodeBatch(batch), MalformedBatchError);
});

test("a key that is not UTF-8 is refused, the replacement character itself is a key", () => {
  const batch = encodeBatch([{ key: "\ufffd", timeUs: 1, payload: Buffer.from("x") }]);
  assert.equal(decodeBatch(batch)[0]!.key, "\ufffd");
  batch.write("f0908080", batch.indexOf("\ufffd"), 3, "hex");
  assert.throws(() => decodeBatch(batch), MalformedBatchError);
});

test("a run of no records, an empty key and a key that is too long are refused", () => {
  const empty = joinRuns([{ key: "k", count: 0, body: Buffer.alloc(0) }]);
  assert.throws(() => decodeBatch(empty), MalformedBatchError);
  const long = encodeBatch([{ key: "k".repeat(MAX_KEY_BYTES + 1), timeUs: 1, payload: Buffer.from("x") }]);
  assert.throws(() => decodeBatch(long), MalformedBatchError);
  assert.throws(
    () => decodeBatch(encodeBatch([{ key: "", timeUs: 1, payload: Buffer.from("x") }])),
    MalformedBatchError,
  );
});

test("64-bit fields hold all safe integers", () => {
  fc.assert(
    fc.property(fc.nat(Number.MAX_SAFE_INTEGER), (value) => {
      const bytes = Buffer.alloc(8);
      writeUInt53(bytes, value, 0);
      assert.equal(bytes.readBigUInt64BE(0), BigInt(value));
      assert.equal(readUInt53(bytes, 0), value);
    }),
  );
  const tooLarge = Buffer.alloc(8);
  tooLarge.writeBigUInt64BE(2n ** 53n);
  assert.throws(() => readUInt53(tooLarge, 0), MalformedBatchError);
});
