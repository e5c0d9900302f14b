import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { crc32c } from "../../runtime/crc32c.ts";
import { joinCrc32c } from "../../runtime/crc32c-join.ts";

test("joined checksums are those of the joined bytes", () => {
  const bytes = Buffer.alloc(100_000);
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 2_654_435_761) >>> 11;
  const place = fc.oneof(fc.nat(600), fc.nat(bytes.length), fc.constantFrom(0, 255, 256, 65_535, 65_536));
  fc.assert(
    fc.property(place, place, place, (a, b, c) => {
      const [from, middle, to] = [a, b, c].sort((x, y) => x - y) as [number, number, number];
      const joined = joinCrc32c(crc32c(bytes, from, middle), crc32c(bytes, middle, to), to - middle);
      assert.equal(joined, crc32c(bytes, from, to));
    }),
    { numRuns: 500 },
  );
});

test("lengths of three and four bytes", () => {
  const zeros = Buffer.alloc(40_000_000);
  const first = crc32c(Buffer.from("first"));
  for (const length of [16_777_215, 16_777_216, 33_554_433]) {
    const plain = crc32c(zeros, 0, length, first);
    assert.equal(joinCrc32c(first, crc32c(zeros, 0, length), length), plain);
  }
});

test("nothing before and nothing behind", () => {
  const some = crc32c(Buffer.from("some"));
  assert.equal(joinCrc32c(some, 0, 0), some);
  assert.equal(joinCrc32c(0, some, 4), some);
});
