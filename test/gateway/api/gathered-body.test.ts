import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test from "node:test";
import fc from "fast-check";
import { BodyChunks } from "../../../gateway/api/body-chunks.ts";
import { DIGESTED_ELSEWHERE_BYTES } from "../../../gateway/api/body-digest.ts";
import { BLOCK_BYTES, type BodyUse, GatheredBody, useWhole } from "../../../gateway/api/gathered-body.ts";

/** Resolves when `use` was called and has returned. */
function used(start: (use: BodyUse) => void, look: BodyUse): Promise<void> {
  return new Promise((resolve, reject) => {
    start((body, digest) => {
      try {
        look(body, digest);
        resolve();
      } catch (error) {
        reject(error);
      }
    });
  });
}

const sha256 = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");

const sizes = fc.array(
  fc.oneof(fc.nat(50), fc.nat(3_000), fc.nat(2 * BLOCK_BYTES), fc.constant(BLOCK_BYTES)),
  { maxLength: 6 },
);

test("pieces whose memory is written over are gathered as BodyChunks joins those that stay", async () => {
  const memory = Buffer.alloc(2 * BLOCK_BYTES);
  let digested = 0;
  await fc.assert(
    fc.asyncProperty(sizes, fc.boolean(), fc.nat(255), async (sizes, kept, first) => {
      const body = new GatheredBody();
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
        const look: BodyUse = (bytes, digest) => {
          assert.ok(bytes.equals(plain));
          if (digest !== undefined) {
            digested++;
            assert.ok(bytes.length >= DIGESTED_ELSEWHERE_BYTES);
            assert.equal(digest, sha256(plain));
          }
          seen = bytes;
        };
        // What another body does meanwhile is none of its business.
        const other = new GatheredBody();
        const both = [used((use) => body.use(kept, use), look)];
        other.add(memory.fill(7));
        both.push(
          used(
            (use) => other.use(false, use),
            () => {},
          ),
        );
        both.push(used((use) => useWhole(chunks, kept, use), look));
        await Promise.all(both);
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
    { numRuns: 40 },
  );
  assert.ok(digested > 10);
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
