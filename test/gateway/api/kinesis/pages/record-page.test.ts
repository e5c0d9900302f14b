/** Pages written from the log's bytes against those that the codecs make of plain objects. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { placeJob, putFrame, writeJob } from "../../../../../gateway/api/kinesis/pages/page-job.ts";
import { RecordPage } from "../../../../../gateway/api/kinesis/pages/record-page.ts";
import {
  IN_AT,
  IN_BYTES,
  MAX_SHORT_BYTES,
  RecordWindow,
  recordWindow,
} from "../../../../../gateway/api/kinesis/pages/record-window.ts";
import { RecordWriter } from "../../../../../gateway/api/kinesis/pages/record-writer.ts";
import {
  type Codec,
  cborCodec,
  jsonCodec,
  Timestamp,
} from "../../../../../gateway/api/kinesis/wire/codec.ts";
import { formatSequenceNumber, type LogPart } from "../../../../../gateway/streams/streams.ts";
import { BatchWalk } from "../../../../../protocol/batch-walk.ts";
import {
  type BatchRecord,
  decodeBatch,
  encodeInOrder,
  MalformedBatchError,
} from "../../../../../protocol/record-batch.ts";

const shard = { createdMs: 1_763_000_000_123, index: 17 };
const windows = [recordWindow, new RecordWindow("plain")];
const sharedWindow = new RecordWindow("shared");
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

/** As the thread for large pages writes it: in the memory that holds its batches, too. */
function writtenInPlace(page: RecordPage, codec: Codec): Buffer {
  const { arena, outAt } = sharedWindow;
  const job = page.job(codec, members);
  const placed = placeJob(job, arena.memory, outAt);
  assert.ok(placed !== undefined);
  const end = putFrame(job.frame, arena.memory, placed.at, writeJob(placed, sharedWindow));
  return arena.memory.subarray(outAt, end);
}

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
    const plainly = bytesOf(codec, { ...members, Records: expected.Records });
    for (const window of windows) {
      const page = new RecordPage(shard, from, limits, window);
      const isFull = partsOf(written, start).some((part) => !page.add(part));
      assert.equal(isFull, expected.isFull);
      assert.equal(page.count, expected.Records.length);
      assert.equal(page.dataBytes, expected.dataBytes);
      assert.equal(page.next, expected.next);
      const answer = page.encode(codec, members);
      assert.ok(answer.equals(plainly), `${answer.toString()}\n${plainly.toString()}`);
      const withRoom = page.encode(codec, members, Buffer.allocUnsafe, { before: 7, after: 3 });
      assert.equal(withRoom.length, 7 + plainly.length + 3);
      assert.ok(withRoom.subarray(7, -3).equals(plainly));
      const inPlace = writtenInPlace(page, codec);
      assert.ok(inPlace.equals(plainly), `${inPlace.toString()}\n${plainly.toString()}`);
    }
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

test("this machine takes the functions of record-simd.ts, so that both ways are tried here", () => {
  assert.ok(windows[0]!.arena.more !== undefined);
  assert.equal(windows[1]!.arena.more, undefined);
  assert.ok(sharedWindow.arena.memory.buffer instanceof SharedArrayBuffer);
});

test("numbers are right where a carry runs into their upper digits, and across many carries", () => {
  const small = Array.from({ length: 30 }, (_, i) => ({ key: "k", timeUs: i, payload: Buffer.from("abc") }));
  const { createdMs: shardCreatedMs, index: shardIndex } = shard;
  const arrivalMs = 1_763_000_001_234;
  const zero = BigInt(formatSequenceNumber({ shardCreatedMs, shardIndex, offset: 0, arrivalMs }));
  for (const digits of [25n, 28n, 31n, 32n]) {
    // The next but ten carries out of so many digits.
    const before = Number((10n ** digits - (zero % 10n ** digits)) / 2n ** 80n);
    agrees([{ arrivalMs, records: small, asRuns: false }], Math.max(0, before - 10), 0, NO_LIMITS);
  }
  const many = Array.from({ length: 3_000 }, (_, i) => ({ key: "k", timeUs: i, payload: Buffer.from("") }));
  for (const start of [0, 79_999_000, 2 ** 40, 2 ** 53 - 4_000]) {
    agrees([{ arrivalMs, records: many, asRuns: false }], start, 0, NO_LIMITS);
  }
});

test("keys and data of all lengths around a step, with what JSON escapes at each place", () => {
  const list: BatchRecord[] = [];
  for (const length of [1, 2, 15, 16, 17, 31, 32, 33, 64, 65]) {
    const payload = Buffer.alloc(length, 0xe7);
    list.push({ key: "x".repeat(length), timeUs: 1, payload });
    for (let at = 0; at < length; at++) {
      const odd = ['"', "\\", "\u001f", "\u0000"][at % 4]!;
      list.push({ key: "x".repeat(at) + odd + "x".repeat(length - at - 1), timeUs: 1, payload });
    }
  }
  agrees([{ arrivalMs: 1, records: list, asRuns: false }], 5, 0, NO_LIMITS);
  // Each by itself, as what comes behind one is written in the plain way.
  for (const record of list) agrees([{ arrivalMs: 1, records: [record], asRuns: false }], 5, 0, NO_LIMITS);
  const lengths = Array.from({ length: 300 }, (_, i) => ({
    key: `key-${i}`,
    timeUs: i,
    payload: Buffer.from(Array.from({ length: i }, (_, j) => (i * 7 + j * 31) & 255)),
  }));
  agrees([{ arrivalMs: 1, records: lengths, asRuns: false }], 5, 0, NO_LIMITS);
});

test("batches as large as the window, and larger", () => {
  const last = { key: "last", timeUs: 0, payload: Buffer.from("!") };
  const many = Array.from({ length: 3_422 }, (_, i) => ({
    key: `key-${i >> 1}`,
    timeUs: i,
    payload: Buffer.alloc(1_200 + (i % 5), i),
  }));
  const missing = IN_BYTES - encodeInOrder([...many, last]).length;
  assert.ok(missing > 0 && missing < MAX_SHORT_BYTES);
  for (const more of [-1, 0, 1]) {
    const payload = Buffer.alloc(1 + missing + more, 9);
    const list = [...many, { ...last, payload }];
    assert.equal(encodeInOrder(list).length, IN_BYTES + more);
    agrees([{ arrivalMs: 1, records: list, asRuns: false }], 0, more, NO_LIMITS);
  }
});

test("a few records of a large batch, and data just short enough among short ones", () => {
  const list = Array.from({ length: 1_000 }, (_, i) => ({
    key: `key-${i % 3}`,
    timeUs: i,
    payload: Buffer.alloc(i % 100 === 50 ? MAX_SHORT_BYTES + (i > 500 ? 1 : 0) : 300, i),
  }));
  for (const from of [0, 3, 540, 995]) {
    for (const records of [1, 40, 10_000]) {
      agrees([{ arrivalMs: 1, records: list, asRuns: false }], 0, from, { ...NO_LIMITS, records });
    }
  }
});

/** Where the numbers of a batch stand, and how many bytes each has. */
function numbersOf(batch: Buffer): (readonly [at: number, bytes: number])[] {
  const numbers: [number, number][] = [
    [0, 4],
    [4, 4],
  ];
  const walk = new BatchWalk(batch);
  while (walk.nextRun()) {
    const head = walk.keyAt - 10;
    numbers.push([head, 2], [head + 2, 4], [head + 6, 4]);
    while (walk.nextRecord()) numbers.push([walk.payloadAt - 12, 4]);
  }
  return numbers;
}

const lies = fc.array(
  fc.record({
    which: fc.nat(),
    by: fc.oneof(fc.constantFrom(-12, -11, -10, -3, -2, -1, 1, 2, 3, 10, 11, 12), fc.integer()),
    instead: fc.option(
      fc.constantFrom(0, 1_024, 1_025, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0xffff_ffff),
    ),
  }),
  { minLength: 1, maxLength: 3 },
);

function lying(
  batch: Buffer,
  told: readonly { which: number; by: number; instead: number | null }[],
): Buffer {
  const numbers = numbersOf(batch);
  const out = Buffer.from(batch);
  for (const { which, by, instead } of told) {
    const [at, bytes] = numbers[which % numbers.length]!;
    const value = instead ?? out.readUIntBE(at, bytes) + by;
    // As many of the lowest bits as there is room for.
    out.writeUIntBE(bytes === 2 ? value & 0xffff : value >>> 0, at, bytes);
  }
  return out;
}

/** What comes of it: bytes, or an error. */
function outcome(write: () => Buffer): string {
  try {
    return write().toString("latin1");
  } catch (error) {
    // A key that is not UTF-8, which no store takes, may become longer than it was measured.
    assert.ok(error instanceof MalformedBatchError || error instanceof RangeError, String(error));
    return `${error.name}: ${error.message}`;
  }
}

const damaged = fc.record({
  list: records,
  told: lies,
  cut: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.nat(20)),
  from: fc.nat(8),
});

function damagedBatch({
  list,
  told,
  cut,
}: {
  list: BatchRecord[];
  told: Parameters<typeof lying>[1];
  cut: number;
}): Buffer {
  const batch = lying(encodeInOrder(list), told);
  return batch.subarray(0, Math.max(0, batch.length - cut));
}

for (const codec of [jsonCodec, cborCodec]) {
  const inEachWay = (way: (window: RecordWindow) => Buffer): string => {
    const plainly = outcome(() => way(windows[1]!));
    for (const around of [0x00, 0x01, 0xff]) {
      windows[0]!.arena.memory.fill(around, IN_AT, IN_AT + 16_384);
      assert.equal(
        outcome(() => way(windows[0]!)),
        plainly,
      );
    }
    return plainly;
  };

  test(`of bytes that are no batch both ways make the same, whatever stands around them: ${codec.name}`, () => {
    let pages = 0;
    fc.assert(
      fc.property(damaged, (bad) => {
        const part = { first: 0, count: bad.list.length, arrivalMs: 5, runs: [], batch: damagedBatch(bad) };
        const result = inEachWay((window) => {
          const page = new RecordPage(shard, bad.from, NO_LIMITS, window);
          page.add(part);
          return page.encode(codec, members);
        });
        const inPlace = outcome(() => {
          const page = new RecordPage(shard, bad.from, NO_LIMITS);
          page.add(part);
          return writtenInPlace(page, codec);
        });
        // There is room for a key that became longer.
        if (!result.startsWith("RangeError")) assert.equal(inPlace, result);
        if (result.includes("Records")) pages++;
      }),
      { numRuns: 2_000 },
    );
    assert.ok(pages > 50, String(pages));
  });

  test(`a writer that is given bytes that nobody has measured writes no others: ${codec.name}`, () => {
    fc.assert(
      fc.property(damaged, fc.nat(14), (bad, to) => {
        const batch = damagedBatch(bad);
        inEachWay((window) => {
          const target = Buffer.alloc(100_000);
          const writer = new RecordWriter(codec.name, shard, target, 0, window);
          writer.write({ batch, arrivalMs: 5, first: 0, from: Math.min(bad.from, to), to });
          return target.subarray(0, writer.end());
        });
      }),
      { numRuns: 2_000 },
    );
  });
}
