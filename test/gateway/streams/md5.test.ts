/** MD5 by WebAssembly against OpenSSL's. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test from "node:test";
import fc from "fast-check";
import { md5, md5Words } from "../../../gateway/streams/md5.ts";

const words = new Uint32Array(4);

function hexByWords(text: string): string {
  md5Words(text, words);
  return [...words].map((word) => word.toString(16).padStart(8, "0")).join("");
}

test("every length up to two blocks hashes as OpenSSL hashes it", () => {
  for (let length = 0; length <= 130; length++) {
    const text = "0123456789abcdefghij~".repeat(7).slice(0, length);
    assert.equal(hexByWords(text), createHash("md5").update(text).digest("hex"), `${length} bytes`);
    assert.equal(md5(text), hexByWords(text));
  }
});

test("any text hashes as OpenSSL hashes its UTF-8", () => {
  const text = fc.oneof(fc.string({ unit: "binary-ascii" }), fc.string({ unit: "binary" }));
  fc.assert(
    fc.property(text, (key) => {
      assert.equal(hexByWords(key), createHash("md5").update(key, "utf8").digest("hex"));
    }),
    { numRuns: 2_000 },
  );
});
