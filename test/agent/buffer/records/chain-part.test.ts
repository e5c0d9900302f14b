/** What a part of the chain says of itself: by its name, and by its frames. */
import assert from "node:assert/strict";
import { mkdir, readdir, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import fc from "fast-check";
import { openDatabase, writeSynced } from "../../../../agent/buffer/level/leveldb.ts";
import {
  type ChainPart,
  holesIn,
  newPart,
  parsePartName,
  scanPart,
  sealedName,
} from "../../../../agent/buffer/records/chain-part.ts";
import { frameKey, markKey } from "../../../../agent/buffer/records/record-keys.ts";
import { encodeFrame } from "../../../../protocol/frame.ts";
import { encodeBatch } from "../../../../protocol/record-batch.ts";
import { crc32c } from "../../../../runtime/crc32c.ts";
import { temporaryFolder } from "./buffer-fixture.ts";

const sequence = fc.bigInt({ min: 1n, max: 2n ** 64n - 1n });

test("a sealed part's name says all that it holds, and is read back", () => {
  const count = fc.nat({ max: 999_999_999_999_999 });
  fc.assert(
    fc.property(
      fc.record({
        number: fc.oneof(fc.nat(), count),
        epochStart: fc.nat(4_294_967_295),
        epoch: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        ends: fc.tuple(sequence, sequence),
        records: count,
        bytes: count,
        oldestUs: fc.nat({ max: 9_007_199_254_740_991 }),
        newestUs: fc.nat({ max: 9_007_199_254_740_991 }),
        holes: fc.boolean(),
      }),
      ({ number, epochStart, epoch, ends: [one, other], ...rest }) => {
        const [first, last] = one < other ? [one, other] : [other, one];
        const part = Object.assign(newPart(number, epochStart, epoch), {
          first,
          last,
          sealed: true,
          ...rest,
        });
        part.name = sealedName(part);
        assert.deepEqual(parsePartName(part.name), part);
      },
    ),
  );
});

test("the name of a part that is written to says its number; what holds no frame is no sealed part", () => {
  const part = newPart(7, 0, 0n);
  assert.equal(part.name, "00000007");
  const { sealed, holes, first, last, records, bytes, removedRecords, removedBytes } = part;
  assert.deepEqual([sealed, holes, first, last], [false, false, 0n, 0n]);
  assert.deepEqual([records, bytes, removedRecords, removedBytes], [0, 0, 0, 0]);
  assert.deepEqual(parsePartName("00000007"), part);
  const named = (first: number, last: number) =>
    parsePartName(`00000007.1.00000000000000ff.${first}.${last}.3.300.1.2`);
  assert.equal(named(0, 5), undefined);
  assert.equal(named(5, 4), undefined);
  assert.equal(named(5, 5)?.first, 5n);
  for (const name of ["making", "7", "00000007.1", "00000007.1.ff.1.2.3.4.5.6", "00000007.holes"])
    assert.equal(parsePartName(name), undefined, name);
});

test("holes are the ranges in which no frame is", () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat(20)), fc.nat(20), fc.nat(20), (numbers, from, length) => {
      const there = numbers.sort((a, b) => a - b);
      const frames = new Map(there.map((n) => [BigInt(n), { bytes: 1, records: 1, storedUs: 1 }]));
      const to = from + length;
      const missing: bigint[] = [];
      for (const [first, last] of holesIn(frames, BigInt(from), BigInt(to)))
        for (let n = first; n <= last; n++) missing.push(n);
      const expected = Array.from({ length: length + 1 }, (_, i) => from + i).filter(
        (n) => !there.includes(n),
      );
      assert.deepEqual(missing.map(Number), expected);
    }),
  );
});

const EPOCH = 0xabcn;

function frame(at: number, records = 1, epoch = EPOCH): Buffer {
  const timeUs = 1_700_000_000_000_000;
  const head = { device: "pi-1", stream: "sensors", epoch, epochStart: 3, sequence: BigInt(at) };
  return encodeFrame(
    { ...head, storedUs: timeUs + at, recordCount: records, timeSource: "system" },
    encodeBatch(Array.from({ length: records }, () => ({ key: "k", timeUs, payload: Buffer.from("23.5") }))),
  );
}

/** A part with one batch for each entry. */
async function written(dir: string, frames: readonly [at: number, bytes: Buffer][]): Promise<ChainPart> {
  const part = newPart(1, 9, 1n);
  const database = await openDatabase(join(dir, part.name), true);
  for (const [at, bytes] of frames) {
    await writeSynced(database, [
      { type: "put", key: frameKey(3, BigInt(at)), value: bytes },
      { type: "put", key: markKey("tail/log"), value: Buffer.from(String(at)) },
      { type: "put", key: markKey("tail/old"), value: Buffer.alloc(0) },
    ]);
  }
  await database.close();
  return part;
}

const holding = ({ epochStart, epoch, first, last, records, bytes, oldestUs, newestUs }: ChainPart) => ({
  epochStart,
  epoch,
  ends: [first, last],
  records,
  bytes,
  times: [oldestUs, newestUs].map((us) => us - 1_700_000_000_000_000),
});

test("a part that a crash left is known by its frames: its epoch, ends, records, bytes, times and marks", async (t) => {
  const dir = await temporaryFolder(t);
  const frames: [number, Buffer][] = [
    [5, frame(5, 2)],
    [6, frame(6, 1)],
    [9, frame(9, 4)],
  ];
  const part = await written(dir, frames);
  const visited: bigint[] = [];
  const scan = await scanPart(join(dir, part.name), part, (each) => visited.push(each.sequence));
  const bytes = frames.reduce((sum, [, each]) => sum + each.length, 0);
  const ends = [5n, 9n];
  assert.deepEqual(holding(scan.found), {
    epochStart: 3,
    epoch: EPOCH,
    ends,
    records: 7,
    bytes,
    times: [5, 9],
  });
  assert.deepEqual(visited, [5n, 6n, 9n]);
  assert.deepEqual([...scan.frames.keys()], visited);
  assert.deepEqual(
    [...scan.marks].map(([source, value]) => [source, value.toString()]),
    [
      ["tail/log", "9"],
      ["tail/old", ""],
    ],
  );
  assert.deepEqual(scan.damage, []);
});

test("a frame that is bad, of another epoch, or there again is told of and not counted; the others are", async (t) => {
  const dir = await temporaryFolder(t);
  const bad = frame(7);
  bad[bad.length - 1]! ^= 1;
  const part = await written(dir, [
    [5, frame(5)],
    [6, frame(6, 1, EPOCH + 1n)],
    [7, bad],
    [8, frame(5)],
    [9, frame(9, 2)],
  ]);
  const visited: bigint[] = [];
  const { found, damage } = await scanPart(join(dir, part.name), part, (each) => visited.push(each.sequence));
  assert.deepEqual(visited, [5n, 9n]);
  assert.deepEqual([found.first, found.last, found.records], [5n, 9n, 3]);
  const told = damage.map((detail) => /frame (\d+): (out of its place)?/.exec(detail)?.slice(1));
  assert.deepEqual(told, [
    ["6", "out of its place"],
    ["7", undefined],
    ["8", "out of its place"],
  ]);
});

/** As LevelDB's log format has it: a masked CRC-32C, the length, the type FULL. */
function logRecord(data: Buffer): Buffer {
  const record = Buffer.concat([Buffer.alloc(6), Buffer.of(1), data]);
  const crc = crc32c(record, 6, record.length);
  record.writeUInt32LE((((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0, 0);
  record.writeUInt16LE(data.length, 4);
  return record;
}

test("bad bytes in a part's log, an end that is missing, and a log that is gone are told of", async (t) => {
  const dir = await temporaryFolder(t);
  const part = await written(dir, [
    [5, frame(5)],
    [6, frame(6)],
  ]);
  const folder = join(dir, part.name);
  const name = (await readdir(folder)).find((file) => file.endsWith(".log"))!;
  const bytes = await readFile(join(folder, name));
  bytes[20]! ^= 0xff;
  await writeFile(join(folder, name), bytes);
  const hit = await scanPart(folder, part);
  assert.equal(hit.damage.length, 1);
  assert.match(hit.damage[0]!, /its log is damaged in 1 places, first at byte 0/);

  bytes[20]! ^= 0xff;
  await writeFile(join(folder, name), bytes);
  await truncate(join(folder, name), bytes.length - 1);
  const cut = await scanPart(folder, part);
  assert.deepEqual([cut.found.first, cut.found.last], [5n, 5n]);

  // A record of the log that is whole by its checksum, and is nothing that LevelDB writes.
  await writeFile(join(folder, name), Buffer.concat([bytes, logRecord(Buffer.from("nothing"))]));
  const strange = await scanPart(folder, part);
  assert.deepEqual([strange.found.last, strange.damage.length], [6n, 1]);

  await mkdir(join(dir, "00000002"));
  const none = await scanPart(join(dir, "00000002"), newPart(2, 3, EPOCH));
  assert.deepEqual([none.found.first, none.damage], [0n, ["00000002: its log is missing"]]);
});
