import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { forEachUserRecord, userRecords } from "../../../gateway/streams/kpl-aggregate.ts";
import { decodeBatch, encodeBatch } from "../../../protocol/record-batch.ts";
import { AggregatedRecord, aggregate, envelope, type PackedRecord } from "../../support/kpl-aggregate.ts";

const packed: fc.Arbitrary<PackedRecord[]> = fc.array(
  fc.record(
    {
      partitionKey: fc
        .string({ minLength: 1, maxLength: 256, unit: "grapheme" })
        .filter((key) => key.length <= 256),
      explicitHash: fc.bigInt({ min: 0n, max: 2n ** 128n - 1n }).map(String),
      data: fc.uint8Array({ maxLength: 300 }),
      tags: fc.array(fc.record({ key: fc.string(), value: fc.string() }), { maxLength: 2 }),
    },
    { requiredKeys: ["partitionKey", "data"] },
  ),
  { minLength: 1, maxLength: 40 },
);

test("an aggregate that another program published is taken apart", () => {
  // The example of ExKpl's documentation.
  const bytes = Buffer.from([
    243, 137, 154, 194, 10, 13, 112, 97, 114, 116, 105, 116, 105, 111, 110, 95, 107, 101, 121, 26, 8, 8, 0,
    26, 4, 100, 97, 116, 97, 208, 54, 153, 218, 90, 34, 47, 163, 33, 8, 173, 27, 217, 85, 161, 78,
  ]);
  const records = userRecords(bytes);
  assert.deepEqual(
    records?.map(({ partitionKey, data }) => [partitionKey, data.toString()]),
    [["partition_key", "data"]],
  );
});

test("what an independent encoder packs comes out in order, each with its own key", () => {
  fc.assert(
    fc.property(packed, (records) => {
      const found = userRecords(aggregate(records));
      assert.deepEqual(
        found?.map(({ partitionKey, data }) => [partitionKey, data.toString("hex")]),
        records.map(({ partitionKey, data }) => [partitionKey, Buffer.from(data).toString("hex")]),
      );
    }),
  );
});

test("one flipped bit, or one byte more or less, makes it an ordinary record", () => {
  fc.assert(
    fc.property(packed, fc.nat(), fc.integer({ min: 0, max: 7 }), (records, at, bit) => {
      const whole = aggregate(records);
      const flipped = Buffer.from(whole);
      flipped[at % whole.length]! ^= 1 << bit;
      assert.equal(userRecords(flipped), undefined);
      assert.equal(userRecords(whole.subarray(0, -1)), undefined);
      assert.equal(userRecords(Buffer.concat([whole, Buffer.of(0)])), undefined);
    }),
  );
});

test("any message under a right checksum is read as protobufjs reads it, or refused, and never throws", () => {
  const mutated = fc
    .tuple(packed, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }))
    .map(([records, edits]) => {
      const message = Buffer.from(aggregate(records).subarray(4, -16));
      for (const [at, value] of edits) if (message.length > 0) message[at % message.length] = value;
      return message;
    });
  fc.assert(
    fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 200 }).map(Buffer.from)), (message) => {
      const found = userRecords(envelope(message));
      if (found === undefined) return;
      const reference = AggregatedRecord.decode(message) as unknown as {
        records: { data: Uint8Array; partition_key_index: unknown }[];
        partition_key_table: string[];
      };
      assert.deepEqual(
        found.map(({ partitionKey, data }) => [partitionKey, data.toString("hex")]),
        reference.records.map(({ data, partition_key_index }) => [
          reference.partition_key_table[Number(partition_key_index)],
          Buffer.from(data).toString("hex"),
        ]),
      );
    }),
    { numRuns: 2_000 },
  );
});

test("what the format does not allow is handed on whole", () => {
  const make = (object: object): Buffer =>
    envelope(AggregatedRecord.encode(AggregatedRecord.fromObject(object)).finish());
  const data = Buffer.from("x");
  const record = { partition_key_index: 0, data };
  assert.equal(userRecords(make({ partition_key_table: ["a"], records: [record] }))?.length, 1);
  for (const [what, bytes] of [
    ["no record", make({ partition_key_table: ["a"] })],
    [
      "a key index beyond the table",
      make({ partition_key_table: ["a"], records: [{ ...record, partition_key_index: 1 }] }),
    ],
    [
      "a hash index beyond the table",
      make({ partition_key_table: ["a"], records: [{ ...record, explicit_hash_key_index: 0 }] }),
    ],
    ["an empty key", make({ partition_key_table: [""], records: [record] })],
    ["a key of 257 characters", make({ partition_key_table: ["a".repeat(257)], records: [record] })],
    [
      "a hash of 129 bits",
      make({ partition_key_table: ["a"], explicit_hash_key_table: [String(2n ** 128n)], records: [record] }),
    ],
    ["a message of no bytes", envelope(Buffer.alloc(0))],
    ["a length beyond the end", envelope(Buffer.from("1a7f", "hex"))],
    ["a varint of eleven bytes", envelope(Buffer.from(`08${"ff".repeat(10)}01`, "hex"))],
    ["nothing but the magic", Buffer.from("f3899ac2", "hex")],
  ] as const) {
    assert.equal(userRecords(bytes), undefined, what);
  }
});

test("what has more fields than 1 MiB holds is handed on whole: nobody waits until they are read", () => {
  const record = Buffer.from("1a0408001a00", "hex");
  const made = (field: string, bytes: number): Buffer => {
    const one = Buffer.from(field, "hex");
    const fields = Buffer.alloc(Math.floor(bytes / one.length) * one.length, one);
    return envelope(Buffer.concat([Buffer.from("0a0161", "hex"), fields, record]));
  };
  for (const [what, field] of [
    ["records", "1a0408001a00"],
    ["keys", "0a0161"],
    ["hashes", "120131"],
    ["fields of a newer version", "7a00"],
  ] as const) {
    assert.ok(userRecords(made(field, 1_048_576 - 40)) !== undefined, what);
    assert.equal(userRecords(made(field, 10_485_760 - 40)), undefined, what);
  }
  const tags = Array.from({ length: 600_000 }, () => ({ key: "" }));
  const tagged = { partition_key_table: ["a"], records: [{ partition_key_index: 0, data: record, tags }] };
  const message = AggregatedRecord.encode(AggregatedRecord.fromObject(tagged)).finish();
  assert.equal(userRecords(envelope(message)), undefined, "tags");
});

test("a run gives the records of its aggregates one by one, and the others as they are", () => {
  const bad = Buffer.concat([Buffer.from("f3899ac2", "hex"), Buffer.alloc(40)]);
  const inner = aggregate([
    { partitionKey: "a", data: Buffer.from("1") },
    { partitionKey: "b", data: Buffer.from("2") },
  ]);
  const payloads = [Buffer.from("first"), inner, bad];
  const batch = encodeBatch(payloads.map((payload, i) => ({ key: "outer", timeUs: i + 7, payload })));
  const seen: unknown[] = [];
  for (const run of decodeBatch(batch)) {
    forEachUserRecord(run, (payload, timeUs, index, key, sub) => {
      seen.push([payload.equals(bad) ? "bad" : payload.toString(), timeUs, index, key, sub]);
    });
  }
  assert.deepEqual(seen, [
    ["first", 7, 0, "outer", undefined],
    ["1", 8, 1, "a", 0],
    ["2", 8, 1, "b", 1],
    ["bad", 9, 2, "outer", undefined],
  ]);
});
