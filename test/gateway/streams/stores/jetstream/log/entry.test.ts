/** The bytes of a message: what was written is read back, and nothing else is taken for an entry. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  arrivalOf,
  decodeEntry,
  encodeEntry,
  offsetOf,
  RECORDS_PER_MESSAGE,
  runsOf,
  sequenceOf,
} from "../../../../../../gateway/streams/stores/jetstream/log/entry.ts";
import { forEachRecord, MalformedBatchError } from "../../../../../../protocol/record-batch.ts";

const record = fc.record({
  key: fc.constantFrom("a", "b", "sensor-1", "ö".repeat(512)),
  timeUs: fc.nat(Number.MAX_SAFE_INTEGER),
  payload: fc.uint8Array({ maxLength: 40 }),
  hash: fc.option(fc.bigInt(0n, 2n ** 128n - 1n), { nil: undefined }),
});
const records = fc.array(record, { minLength: 0, maxLength: 30 });

test("an entry gives back its records, keys, hashes and time", () => {
  fc.assert(
    fc.property(fc.nat(Number.MAX_SAFE_INTEGER), records, (arrivalMs, written) => {
      const bytes = encodeEntry(arrivalMs, runsOf(written));
      const entry = decodeEntry(bytes);
      const read: unknown[] = [];
      for (const run of entry.runs) {
        forEachRecord(run, (payload, timeUs) =>
          read.push({ key: run.key, timeUs, payload: Buffer.from(payload), hash: run.hash }),
        );
      }
      assert.equal(entry.arrivalMs, arrivalMs);
      assert.equal(arrivalOf(bytes), arrivalMs);
      assert.deepEqual(
        read,
        written.map((one) => ({ ...one, payload: Buffer.from(one.payload) })),
      );
    }),
  );
});

test("changed, cut and random bytes are read or refused as malformed, never otherwise", () => {
  const harm = fc.record({
    flips: fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }),
    cut: fc.option(fc.nat(), { nil: undefined }),
    more: fc.uint8Array({ maxLength: 20 }),
  });
  const check = (bytes: Uint8Array): void => {
    assert.ok(arrivalOf(bytes) >= 0);
    try {
      const { runs } = decodeEntry(bytes);
      let count = 0;
      for (const run of runs) forEachRecord(run, () => count++);
      assert.ok(count <= RECORDS_PER_MESSAGE);
    } catch (error) {
      assert.ok(error instanceof MalformedBatchError, String(error));
    }
  };
  fc.assert(
    fc.property(records, harm, (written, { flips, cut, more }) => {
      const whole = encodeEntry(1_700_000_000_000, runsOf(written));
      for (const [at, bits] of flips) whole[at % whole.length]! ^= bits;
      const bytes = Buffer.concat([
        whole.subarray(0, cut === undefined ? whole.length : cut % whole.length),
        more,
      ]);
      check(bytes);
    }),
    { numRuns: 2_000 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), check), { numRuns: 2_000 });
});

test("counts that would take gigabytes are refused at once", () => {
  const bytes = encodeEntry(1, runsOf([{ key: "k", timeUs: 1, payload: Buffer.from("x") }]));
  for (const at of [4, 16, 20]) {
    const harmed = Buffer.from(bytes);
    harmed.writeUInt32BE(0xffff_ffff, at);
    assert.throws(() => decodeEntry(harmed), MalformedBatchError);
  }
  assert.throws(() => decodeEntry(Buffer.from([2, ...bytes.subarray(1)])), /version 2/);
});

test("offsets name a message and a place in it, exactly, up to 2^36 messages", () => {
  const place = fc.tuple(fc.nat(2 ** 36 - 1), fc.nat(RECORDS_PER_MESSAGE - 1));
  fc.assert(
    fc.property(place, place, ([s1, i1], [s2, i2]) => {
      const [one, two] = [offsetOf(s1, i1), offsetOf(s2, i2)];
      assert.ok(Number.isSafeInteger(one));
      assert.equal(sequenceOf(one), s1);
      assert.equal(one - offsetOf(s1), i1);
      assert.equal(one < two, s1 < s2 || (s1 === s2 && i1 < i2));
    }),
  );
});
