import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { BodyChunks } from "../../../../gateway/api/bodies/body-chunks.ts";

function bodyOf(...chunks: readonly Buffer[]): BodyChunks {
  const body = new BodyChunks();
  for (const chunk of chunks) body.add(chunk);
  return body;
}

test("chunks are joined as Buffer.concat joins them", () => {
  const bytes = (min: number, max: number) => fc.uint8Array({ minLength: min, maxLength: max });
  const chunk = fc.oneof(bytes(0, 50), bytes(1_500, 3_000)).map((array) => Buffer.from(array));
  fc.assert(
    fc.property(fc.array(chunk, { maxLength: 40 }), fc.boolean(), (chunks, kept) => {
      const body = bodyOf(...chunks);
      const plain = Buffer.concat(chunks);
      assert.equal(body.bytes, plain.length);
      assert.ok(body.join(kept).equals(plain));
      body.clear();
      assert.equal(body.join(kept).length, 0);
      for (const again of chunks) body.add(again);
      assert.ok(body.join(kept).equals(plain));
    }),
  );
  const large = [Buffer.alloc(1_500_000, "a"), Buffer.alloc(1_500_000, "b")];
  assert.ok(
    bodyOf(...large)
      .join(false)
      .equals(Buffer.concat(large)),
  );
});

test("a body that is kept has memory of its own", () => {
  const first = bodyOf(Buffer.from("a"), Buffer.from("b")).join(true);
  const second = bodyOf(Buffer.from("c"), Buffer.from("d")).join(false);
  bodyOf(Buffer.from("e"), Buffer.from("f")).join(false);
  assert.equal(first.toString(), "ab");
  assert.equal(second.toString(), "ef", "this one was not");
});

test("a body that comes byte by byte takes little more than its bytes", () => {
  const body = new BodyChunks();
  const one = Buffer.from("x");
  const { arrayBuffers } = process.memoryUsage();
  for (let i = 0; i < 1_000_000; i++) body.add(one);
  assert.ok(process.memoryUsage().arrayBuffers - arrayBuffers < 3_000_000);
  assert.equal(body.join(true).length, 1_000_000);
});
