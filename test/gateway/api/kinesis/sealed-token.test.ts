import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { TokenSealer } from "../../../../gateway/api/kinesis/sealed-token.ts";

const sealer = new TokenSealer(["one secret", "another secret"], "shard iterator");

test("what was sealed opens again, also by another process with the same keys in another order", () => {
  const later = new TokenSealer(["another secret", "one secret"], "shard iterator");
  fc.assert(
    fc.property(fc.jsonValue(), fc.nat(), (content, issuedMs) => {
      const opened = later.open(sealer.seal(content, issuedMs));
      if (opened === undefined)
        return assert.ok(JSON.stringify(content).length > 500, "too long for a token");
      assert.equal(opened.issuedMs, issuedMs);
      assert.deepEqual(opened.content, JSON.parse(JSON.stringify(content)));
    }),
  );
});

test("an iterator of the longest stream name fits into Kinesis' 512 characters", () => {
  const token = sealer.seal(["s".repeat(128), "f".repeat(32), 4_095, Number.MAX_SAFE_INTEGER], Date.now());
  assert.ok(token.length <= 512, `${token.length} characters`);
});

test("a token that was altered, made up, or sealed for another purpose or by other keys stays shut", () => {
  const token = sealer.seal(["s", "id", 0, 5], 1);
  assert.equal(new TokenSealer(["one secret", "another secret"], "next token").open(token), undefined);
  assert.equal(new TokenSealer(["one secret"], "shard iterator").open(token), undefined);
  const bytes = Buffer.from(token, "base64");
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const altered = Buffer.from(bytes);
    altered[bit >> 3]! ^= 1 << (bit & 7);
    assert.equal(sealer.open(altered.toString("base64")), undefined);
  }
  for (let length = 0; length < token.length; length++) {
    assert.equal(sealer.open(token.slice(0, length)), undefined);
  }
  assert.equal(sealer.open(`${token}\n`), undefined, "one token has one spelling");
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => sealer.open(text) === undefined));
});
