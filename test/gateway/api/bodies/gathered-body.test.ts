import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { BodyChunks } from "../../../../gateway/api/bodies/body-chunks.ts";
import { BLOCK_BYTES, GatheredBody } from "../../../../gateway/api/bodies/gathered-body.ts";

const sizes = fc.array(
  fc.oneof(fc.nat(50), fc.nat(3_000), fc.nat(2 * BLOCK_BYTES), fc.constant(BLOCK_BYTES)),
  { maxLength: 6 },
);

test("pieces whose memory is written over are gathered as BodyChunks joins those that stay", () => {
  const memory = Buffer.alloc(2 * BLOCK_BYTES);
  fc.assert(
    fc.property(sizes, fc.boolean(), fc.boolean(), fc.nat(255), (sizes, grows, kept, first) => {
      const body = new GatheredBody(grows);
      const chunks = new BodyChunks();
      for (let round = 0; round < 2; round++) {
        for (const [i, bytes] of sizes.entries()) {
          const piece = memory.subarray(0, bytes).fill(first + i + round);
          body.add(piece);
          chunks.add(Buffer.from(piece));
        }
        const plain = Buffer.from(chunks.join(true));
        assert.equal(body.bytes, plain.length);
        let seen: Buffer | undefined;
        // What another body does meanwhile is none of its business.
        const other = new GatheredBody();
        body.use(kept, (bytes) => {
          assert.ok(bytes.equals(plain));
          seen = bytes;
        });
        other.add(memory.fill(7));
        other.use(false, () => {});
        if (kept) {
          other.clear();
          other.add(memory.fill(8));
          assert.ok(seen!.equals(plain), "what is kept is nobody else's");
        }
        assert.equal(body.bytes, plain.length, "it is counted until it is cleared");
        body.clear();
        chunks.clear();
        assert.equal(body.bytes, 0);
      }
    }),
    { numRuns: 80 },
  );
});

test("the next body may begin while one is used", () => {
  const body = new GatheredBody();
  const heard: string[] = [];
  body.add(Buffer.from("first"));
  body.use(false, (bytes) => {
    body.clear();
    body.add(Buffer.from("second"));
    heard.push(bytes.toString());
  });
  const another = new GatheredBody();
  another.add(Buffer.from("another"));
  body.use(false, (bytes) => heard.push(bytes.toString()));
  another.use(false, (bytes) => heard.push(bytes.toString()));
  assert.deepEqual(heard, ["first", "second", "another"]);
});

test("what is put into its place is as what is added, and whoever has no room left adds", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 20_000 }),
      fc.array(fc.tuple(fc.nat(9_000), fc.boolean()), { maxLength: 8 }),
      (expected, pieces) => {
        const body = new GatheredBody(true);
        const chunks = new BodyChunks();
        body.expect(expected);
        for (const [i, [bytes, inPlace]] of pieces.entries()) {
          const { room } = body;
          const piece = (inPlace && room !== undefined ? room : Buffer.alloc(9_000))
            .subarray(0, bytes)
            .fill(i + 1);
          chunks.add(Buffer.from(piece));
          if (!body.holds(piece)) body.add(piece);
        }
        const plain = chunks.join(true);
        assert.equal(body.bytes, plain.length);
        body.use(false, (bytes) => assert.ok(bytes.equals(plain)));
        body.clear();
      },
    ),
  );
});
