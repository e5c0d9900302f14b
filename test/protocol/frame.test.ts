import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  cutFrames,
  decodeFrame,
  decodeFrames,
  encodeFrame,
  epochName,
  type FrameHead,
  MAX_FRAME_BYTES,
  MalformedFrameError,
  soundFrames,
} from "../../protocol/frame.ts";
import { encodeBatch, MalformedBatchError } from "../../protocol/record-batch.ts";
import { crc32c } from "../../runtime/crc32c.ts";

const MAX_U64 = 2n ** 64n - 1n;
const frame = fc
  .record({
    device: fc.stringMatching(/^[A-Za-z0-9_.-]{1,64}$/),
    stream: fc.stringMatching(/^[A-Za-z0-9_.-]{1,128}$/),
    epoch: fc.bigInt({ min: 0n, max: MAX_U64 }),
    epochStart: fc.nat(0xffff_ffff),
    sequence: fc.bigInt({ min: 1n, max: MAX_U64 }),
    storedUs: fc.nat(Number.MAX_SAFE_INTEGER),
    timeSource: fc.constantFrom("system" as const, "estimated" as const, "ntp" as const, "gateway" as const),
    payloads: fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 10 }),
  })
  .map(({ payloads, ...rest }) => {
    const head: FrameHead = { ...rest, recordCount: payloads.length };
    const records = payloads.map((payload, i) => ({ key: `k${i % 3}`, timeUs: i, payload }));
    return { head, batch: encodeBatch(records) };
  });

function isRefusal(error: unknown): boolean {
  return error instanceof MalformedFrameError || error instanceof MalformedBatchError;
}

/** A checksum that fits, so that what lies behind it is tried as well. */
function reseal(bytes: Buffer): Buffer {
  bytes.writeUInt32BE(crc32c(bytes, 12), 8);
  return bytes;
}

test("a frame comes back as it was", () => {
  fc.assert(
    fc.property(frame, ({ head, batch }) => {
      const {
        bytes,
        batch: decodedBatch,
        runs,
        runChecksums,
        ...decoded
      } = decodeFrame(encodeFrame(head, batch));
      assert.ok(runChecksums === undefined || runChecksums.length === runs.length);
      assert.deepEqual({ ...decoded }, { ...head });
      assert.deepEqual(decodedBatch, batch);
      assert.equal(
        runs.reduce((sum, run) => sum + run.count, 0),
        head.recordCount,
      );
      assert.deepEqual(encodeFrame(decoded, decodedBatch), bytes);
    }),
  );
});

test("the frames of a publish come back in their order", () => {
  fc.assert(
    fc.property(fc.array(frame, { minLength: 1, maxLength: 5 }), (frames) => {
      const payload = Buffer.concat(frames.map(({ head, batch }) => encodeFrame(head, batch)));
      const decoded = decodeFrames(payload);
      assert.deepEqual(
        decoded.map(({ sequence }) => sequence),
        frames.map(({ head }) => head.sequence),
      );
      assert.throws(() => decodeFrames(payload.subarray(0, payload.length - 1)), isRefusal);
      assert.throws(() => decodeFrames(Buffer.concat([payload, Buffer.from([0])])), isRefusal);
    }),
  );
  assert.throws(() => decodeFrames(Buffer.alloc(0)), isRefusal);
});

test("every changed bit is noticed, but for the time source, which takes no record with it", () => {
  fc.assert(
    fc.property(frame, fc.nat(), fc.nat(7), ({ head, batch }, anywhere, bit) => {
      const bytes = encodeFrame(head, batch);
      const at = anywhere % bytes.length;
      bytes[at]! ^= 1 << bit;
      if (at !== 3) assert.throws(() => decodeFrame(bytes), isRefusal);
      else {
        const { timeSource } = decodeFrame(bytes);
        assert.equal(timeSource, ["system", "estimated", "ntp", "gateway"][bytes[3]!] ?? "system");
        assert.deepEqual(decodeFrame(bytes).batch, batch);
      }
    }),
    { numRuns: 1_000 },
  );
});

test("a publish is cut into pieces of so many frames, of which one is refused where the whole is", () => {
  const frames = fc.array(frame, { minLength: 1, maxLength: 9 });
  const damage = fc.record({ cutBytes: fc.nat(200), behind: fc.uint8Array({ maxLength: 60 }) });
  const countOf = (bytes: Buffer): number => {
    try {
      return decodeFrames(bytes).length;
    } catch (error) {
      assert.ok(isRefusal(error));
      return Number.NaN;
    }
  };
  fc.assert(
    fc.property(frames, fc.integer({ min: 1, max: 4 }), damage, (list, most, { cutBytes, behind }) => {
      const whole = Buffer.concat(list.map(({ head, batch }) => encodeFrame(head, batch)));
      const counts = cutFrames(whole, most).map(countOf);
      assert.deepEqual(counts.slice(0, -1), Array(Math.ceil(list.length / most) - 1).fill(most));
      assert.equal(
        counts.reduce((sum, count) => sum + count),
        list.length,
      );
      const payload = Buffer.concat([whole.subarray(0, whole.length - cutBytes), behind]);
      const pieces = cutFrames(payload, most);
      assert.deepEqual(Buffer.concat(pieces), payload);
      assert.equal(
        pieces.map(countOf).reduce((sum, count) => sum + count),
        countOf(payload),
      );
      assert.deepEqual(
        pieces.flatMap((piece) => soundFrames(piece)).map(({ bytes }) => bytes),
        soundFrames(payload).map(({ bytes }) => bytes),
      );
    }),
  );
});

test("bytes whose checksum fits but whose fields do not are refused by name, never otherwise", () => {
  const change = fc.record({ at: fc.nat(), value: fc.nat(255) });
  fc.assert(
    fc.property(frame, fc.array(change, { minLength: 1, maxLength: 4 }), ({ head, batch }, changes) => {
      const bytes = encodeFrame(head, batch);
      for (const { at, value } of changes) bytes[12 + (at % (bytes.length - 12))] = value;
      try {
        decodeFrame(reseal(bytes));
      } catch (error) {
        assert.ok(isRefusal(error), String(error));
      }
    }),
    { numRuns: 1_000 },
  );
});

test("random bytes are refused", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      assert.throws(() => decodeFrames(bytes), isRefusal);
    }),
  );
});

test("what a frame may not say", () => {
  const batch = encodeBatch([{ key: "k", timeUs: 1, payload: Buffer.from("x") }]);
  const head: FrameHead = {
    device: "pi",
    stream: "s",
    epoch: 1n,
    epochStart: 1,
    sequence: 1n,
    storedUs: 1,
    recordCount: 1,
    timeSource: "system",
  };
  const edited = (edit: (bytes: Buffer) => void): Buffer => {
    const bytes = encodeFrame(head, batch);
    edit(bytes);
    return reseal(bytes);
  };
  assert.equal(decodeFrame(edited(() => undefined)).sequence, 1n);
  const wrong = [
    edited((bytes) => bytes.writeUInt8(2, 2)),
    edited((bytes) => bytes.writeUInt32BE(MAX_FRAME_BYTES + 1, 4)),
    edited((bytes) => bytes.writeUInt32BE(10, 4)),
    edited((bytes) => bytes.writeBigUInt64BE(0n, 24)),
    edited((bytes) => bytes.writeBigUInt64BE(2n ** 53n, 32)),
    edited((bytes) => bytes.writeUInt32BE(2, 40)),
    edited((bytes) => bytes.writeUInt16BE(0xffff, 44)),
    edited((bytes) => bytes.write("XX", 0)),
    // More runs than a frame may have records, before anything is made of them.
    edited((bytes) => bytes.writeUInt32BE(100_001, 51)),
  ];
  for (const bytes of wrong) assert.throws(() => decodeFrame(bytes), isRefusal);
});

test("an epoch is written with 16 digits", () => {
  assert.equal(epochName(0xabn), "00000000000000ab");
  assert.equal(epochName(MAX_U64), "ffffffffffffffff");
});

test("frames around a damaged one are told apart, and what is no frame ends it", () => {
  fc.assert(
    fc.property(fc.array(frame, { minLength: 1, maxLength: 5 }), fc.nat(), fc.nat(7), (list, which, bit) => {
      const frames = list.map(({ head, batch }) => encodeFrame(head, batch));
      const hit = frames[which % frames.length]!;
      // Anywhere in what its checksum covers.
      hit[12 + (which % (hit.length - 12))]! ^= 1 << bit;
      const found = soundFrames(Buffer.concat(frames)).map(({ bytes }) => bytes);
      const others = frames.filter((bytes) => bytes !== hit);
      assert.deepEqual(found, others);
    }),
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => assert.deepEqual(soundFrames(noise), [])),
  );
});
