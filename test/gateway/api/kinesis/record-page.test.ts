/** Pages written from the log's bytes against those that the codecs make of plain objects. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { type Codec, cborCodec, jsonCodec, Timestamp } from "../../../../gateway/api/kinesis/codec.ts";
import { RecordPage } from "../../../../gateway/api/kinesis/record-page.ts";
import { formatSequenceNumber, type LogPart } from "../../../../gateway/streams/streams.ts";
import { type BatchRecord, decodeBatch, encodeInOrder } from "../../../../protocol/record-batch.ts";

const shard = { createdMs: 1_763_000_000_123, index: 17 };
const members = { NextShardIterator: 'a"+/', MillisBehindLatest: 12 };

interface Written {
  readonly arrivalMs: number;
  readonly records: readonly BatchRecord[];
  /** As stores that hold no batch give it. */
  readonly asRuns: boolean;
}

const partsOf = (written: readonly Written[], start: number): LogPart[] => {
  let first = start;
  return written.map(({ records, arrivalMs, asRuns }) => {
    const batch = encodeInOrder(records);
    const part = {
      first,
      count: records.length,
      arrivalMs,
      runs: decodeBatch(batch),
      ...(!asRuns && { batch }),
    };
    first += records.length;
    return part;
  });
};

/** The plain way: an object for each record. */
function plain(
  written: readonly Written[],
  start: number,
  from: number,
  limits: { records: number; dataBytes: number },
) {
  const Records: object[] = [];
  let dataBytes = 0;
  let next = from;
  let offset = start;
  let isFull = false;
  for (const { records, arrivalMs } of written) {
    for (const { key, payload } of records) {
      const at = offset++;
      if (at < from || isFull) continue;
      if (
        Records.length >= limits.records ||
        (Records.length > 0 && dataBytes + payload.length > limits.dataBytes)
      ) {
        isFull = true;
        continue;
      }
      dataBytes += payload.length;
      next = at + 1;
      Records.push({
        ApproximateArrivalTimestamp: new Timestamp(arrivalMs),
        Data: Buffer.from(payload),
        PartitionKey: key,
        SequenceNumber: formatSequenceNumber({
          shardCreatedMs: shard.createdMs,
          shardIndex: shard.index,
          offset: at,
          arrivalMs,
        }),
      });
    }
  }
  return { Records, dataBytes, next, isFull };
}

const inBase64 = (name: string, value: unknown): unknown =>
  // What Buffer's own toJSON made of it.
  name === "Data" ? Buffer.from((value as { data: number[] }).data).toString("base64") : value;

function bytesOf(codec: Codec, answer: object): Buffer {
  return Buffer.from(codec.name === "json" ? JSON.stringify(answer, inBase64) : codec.encode(answer));
}

function agrees(
  written: readonly Written[],
  start: number,
  from: number,
  limits: { records: number; dataBytes: number },
): void {
  const expected = plain(written, start, from, limits);
  for (const codec of [jsonCodec, cborCodec]) {
    const page = new RecordPage(shard, from, limits);
    const isFull = partsOf(written, start).some((part) => !page.add(part));
    assert.equal(isFull, expected.isFull);
    assert.equal(page.count, expected.Records.length);
    assert.equal(page.dataBytes, expected.dataBytes);
    assert.equal(page.next, expected.next);
    const answer = page.encode(codec, members);
    const plainly = bytesOf(codec, { ...members, Records: expected.Records });
    assert.ok(answer.equals(plainly), `${answer.toString()}\n${plainly.toString()}`);
    const withRoom = page.encode(codec, members, Buffer.allocUnsafe, { before: 7, after: 3 });
    assert.equal(withRoom.length, 7 + plainly.length + 3);
    assert.ok(withRoom.subarray(7, -3).equals(plainly));
  }
}

const NO_LIMITS = { records: 10_000, dataBytes: 10_485_760 };

const key = fc.oneof(
  fc.constantFrom(
    "device-1",
    "device-2",
    'a"b',
    "back\\slash",
    "\u0000\u001f\n",
    "\u007f\u2028é",
    "schlüssel-鍵-🔑",
  ),
  fc.string({ unit: "binary", minLength: 1, maxLength: 256 }),
  fc.string({ unit: "grapheme-ascii", minLength: 1, maxLength: 20 }),
);
const records = fc.array(
  fc.record({
    key,
    timeUs: fc.nat(),
    payload: fc.oneof(
      { weight: 4, arbitrary: fc.uint8Array({ maxLength: 40 }) },
      fc.uint8Array({ minLength: 200, maxLength: 700 }),
    ),
  }),
  { minLength: 1, maxLength: 12 },
);
const written = fc.array(
  fc.record({ arrivalMs: fc.integer({ min: 0, max: 4_000_000_000_000 }), records, asRuns: fc.boolean() }),
  { maxLength: 4 },
);

test("any records, from any position and within any limits, are written as the codecs write them", () => {
  const limits = fc.record({
    records: fc.oneof(fc.constant(10_000), fc.integer({ min: 1, max: 20 })),
    dataBytes: fc.oneof(fc.constant(10_485_760), fc.integer({ min: 1, max: 900 })),
  });
  const start = fc.oneof(fc.nat(1_000), fc.constant(2 ** 52));
  fc.assert(
    fc.property(written, start, fc.nat(60), limits, (parts, from, skip, limit) => {
      agrees(parts, from, Math.max(0, from - 5 + skip), limit);
    }),
    { numRuns: 300 },
  );
});

test("records of any size are whole: shorter and longer than a window, and at its edges", () => {
  const sizes = [0, 1, 2, 3, 16_383, 16_384, 16_385, 262_144, 262_145, 1_048_576, 5, 100_000, 70, 3_000_001];
  const list = sizes.map((size, i) => ({
    key: `k${i % 3}`,
    timeUs: i,
    payload: Buffer.alloc(size, `${i}ab`),
  }));
  const many = Array.from({ length: 900 }, (_, i) => ({
    key: `key-${i >> 2}`,
    timeUs: i,
    payload: Buffer.alloc(1_900 + (i % 7), `${i}xyz`),
  }));
  const both = [
    { arrivalMs: 1_763_000_001_234, records: list, asRuns: false },
    { arrivalMs: 1_763_000_001_235, records: many, asRuns: false },
  ];
  agrees(both, 0, 0, NO_LIMITS);
  agrees(both, 0, 20, NO_LIMITS);
  agrees(both.reverse(), 0, 0, { records: 905, dataBytes: 10_485_760 });
});

test("the longest keys fit, also where each character is escaped", () => {
  const keys = ["\u0001".repeat(256), "🔑".repeat(256), '"'.repeat(256), "\u0001".repeat(1_024)];
  const list = keys.flatMap((name, i) =>
    Array.from({ length: 60 }, () => ({ key: name, timeUs: i, payload: Buffer.alloc(16_384, 7) })),
  );
  agrees([{ arrivalMs: 0, records: list, asRuns: false }], 0, 0, NO_LIMITS);
});

test("a page without records has the empty list", () => {
  agrees([], 0, 0, NO_LIMITS);
});

test("a page of 10,000 holds them all", () => {
  const list = Array.from({ length: 10_001 }, (_, i) => ({
    key: `d-${i % 7}`,
    timeUs: i,
    payload: Buffer.from(`${i}`),
  }));
  agrees([{ arrivalMs: 1_763_000_001_234, records: list, asRuns: false }], 0, 0, NO_LIMITS);
});
