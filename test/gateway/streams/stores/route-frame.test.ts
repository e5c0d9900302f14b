/** What a frame becomes in the log: its parts, and the checksum of its entry, which is made of those of its runs. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { ENTRY_KIND, entryAt, entrySize, writeEntry } from "../../../../gateway/streams/stores/log-entry.ts";
import { routeFrame } from "../../../../gateway/streams/stores/routing.ts";
import { decodeFrame } from "../../../../protocol/frame.ts";
import { decodeBatch, encodeBatch } from "../../../../protocol/record-batch.ts";
import { crc32c } from "../../../../runtime/crc32c.ts";
import { frameOf, shardsOf } from "./frames.ts";

const record = fc.record({
  key: fc.constantFrom("a", "b", "ü", "device-7/temperature"),
  timeUs: fc.nat(),
  payload: fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc.nat(2_000).map((bytes) => new Uint8Array(bytes + 900).fill(bytes)),
    fc.constant(new Uint8Array(150_000).fill(9)),
  ),
});

test("an entry of known checksums is the entry of its bytes", () => {
  let known = 0;
  fc.assert(
    fc.property(
      fc.array(record, { minLength: 1, maxLength: 12 }),
      fc.constantFrom(1, 2, 16),
      (records, shards) => {
        const frame = decodeFrame(frameOf(records.length, encodeBatch(records)));
        for (const [i, checksum] of (frame.runChecksums ?? []).entries()) {
          assert.equal(checksum, crc32c(frame.runs[i]!.body));
        }
        const routed = routeFrame(frame, shardsOf(shards));
        const parts = routed.map((part) => ({ ...part, first: 11 }));
        const plain = parts.map((part) => ({ ...part, checksum: undefined }));
        if (parts[0]!.checksum !== undefined) known++;
        const head = {
          kind: ENTRY_KIND.records,
          generation: 1,
          number: 2,
          arrivalMs: 3,
          recordsBefore: 4,
          groupOffset: 0,
        };
        const size = entrySize(undefined, parts);
        const [fast, slow] = [Buffer.alloc(size), Buffer.alloc(size)];
        assert.equal(writeEntry(fast, 0, head, undefined, parts), size);
        writeEntry(slow, 0, head, undefined, plain);
        assert.ok(fast.equals(slow));
        assert.equal(typeof entryAt(fast, 0, 1), "object");
        const stored = routed.flatMap(({ batch }) => decodeBatch(batch));
        assert.equal(
          stored.reduce((sum, run) => sum + run.count, 0),
          records.length,
        );
      },
    ),
  );
  assert.ok(known > 10, "both ways were gone");
});

test("a byte that was damaged anywhere in a frame of long runs is noticed", () => {
  const long = ["a", "b"].map((key) => ({ key, timeUs: 1, payload: new Uint8Array(4_000).fill(1) }));
  const sound = frameOf(long.length, encodeBatch(long));
  assert.ok(decodeFrame(sound).runChecksums !== undefined);
  fc.assert(
    fc.property(
      fc.integer({ min: 12, max: sound.length - 1 }),
      fc.integer({ min: 1, max: 255 }),
      (at, flip) => {
        const damaged = Buffer.from(sound);
        damaged[at]! ^= flip;
        assert.throws(() => decodeFrame(damaged), {
          code: "FRAME_MALFORMED",
          message: /checksum does not match/,
        });
      },
    ),
    { numRuns: 400 },
  );
});
