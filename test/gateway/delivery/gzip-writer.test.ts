import assert from "node:assert/strict";
import test from "node:test";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { GzipWriter } from "../../../gateway/delivery/gzip-writer.ts";

async function compressed(lines: readonly Buffer[], drainAfter: (i: number) => boolean): Promise<Buffer> {
  const writer = new GzipWriter();
  for (const [i, line] of lines.entries()) {
    writer.addLine(line);
    if (drainAfter(i)) await writer.drain();
  }
  return writer.finish();
}

test("all lines come out, and when they are drained does not change a byte", async () => {
  const line = fc
    .tuple(
      fc.integer({ min: 0, max: 255 }),
      fc.oneof(fc.nat(100), fc.integer({ min: 262_100, max: 262_200 })),
    )
    .map(([byte, length]) => Buffer.alloc(length, byte));
  await fc.assert(
    fc.asyncProperty(fc.array(line, { maxLength: 12 }), fc.array(fc.boolean()), async (lines, drains) => {
      const bytes = await compressed(lines, (i) => drains[i] === true);
      const expected = Buffer.concat(lines.flatMap((each) => [each, Buffer.from("\n")]));
      assert.ok(gunzipSync(bytes).equals(expected));
      assert.ok(bytes.equals(await compressed(lines, () => false)));
    }),
    { numRuns: 60 },
  );
});
