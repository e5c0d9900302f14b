import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { cutRecords, MAX_RECORD_BYTES } from "../../../../agent/sources/tail/cut-records.ts";

const text = fc.stringMatching(/^[a-c#\r ]{0,12}$/);
const contents = fc.array(text, { maxLength: 30 }).map((lines) => lines.join("\n"));

function cutAll(content: Buffer, windows: readonly number[], first?: RegExp): string[] {
  const found: string[] = [];
  let at = 0;
  let shown = 0;
  const take = (ends: "open" | "final"): void => {
    const records = cutRecords(content.subarray(at, shown), ends, first);
    for (const { bytes } of records) if (bytes.length > 0) found.push(bytes.toString());
    at += records.at(-1)?.end ?? 0;
  };
  for (const size of windows) {
    shown = Math.min(content.length, shown + size);
    take("open");
  }
  shown = content.length;
  take("open");
  take("final");
  return found;
}

test("however a file grows, the same records are cut", () => {
  fc.assert(
    fc.property(contents, fc.array(fc.nat(20)), fc.boolean(), (content, windows, several) => {
      const bytes = Buffer.from(content);
      const first = several ? /^#/u : undefined;
      assert.deepEqual(cutAll(bytes, windows, first), cutAll(bytes, [bytes.length], first));
    }),
    { numRuns: 2_000 },
  );
});

test("nothing but line ends is lost", () => {
  fc.assert(
    fc.property(contents, (content) => {
      const lines = content
        .split("\n")
        .map((line, i, all) => (i < all.length - 1 ? line.replace(/\r$/, "") : line))
        .filter((line) => line !== "");
      assert.deepEqual(cutAll(Buffer.from(content), []), lines);
    }),
  );
});

test("a line without end is cut into pieces, and a hole of zeros is skipped", () => {
  const long = Buffer.alloc(MAX_RECORD_BYTES * 2 + 10, "x");
  const pieces = cutRecords(long, "open");
  assert.deepEqual(
    pieces.map(({ bytes }) => bytes.length),
    [MAX_RECORD_BYTES, MAX_RECORD_BYTES],
  );
  const holed = cutRecords(Buffer.concat([Buffer.alloc(1_000), Buffer.from("a\n")]), "open");
  assert.deepEqual(
    holed.map(({ bytes, end }) => [bytes.toString(), end]),
    [["a", 1_002]],
  );
  assert.equal(cutRecords(Buffer.alloc(1_000), "open")[0]!.end, 1_000);
});

test("any bytes at all are cut without a throw, and each step goes forward", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 300 }),
      fc.constantFrom("open", "quiet", "final"),
      (bytes, ends) => {
        let before = 0;
        for (const { end } of cutRecords(Buffer.from(bytes), ends, /^#/u)) {
          assert.ok(end > before && end <= bytes.length);
          before = end;
        }
      },
    ),
  );
});
