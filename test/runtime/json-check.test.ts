import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { whyNotJson } from "../../runtime/json-check.ts";

const reason = (text: string): string | undefined => whyNotJson(Buffer.from(text));

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Text of what JSON is made of, so that much of it is nearly right. */
const tokens = fc
  .array(
    fc.constantFrom(
      ...'{ } [ ] , : " \\ / 0 1 9 -1 1.5 1. .5 -0 00 1e3 1E+2 1e -'.split(" "),
      ...["true", "false", "null", "nul", "é", "\u2028", "\ufeff", "\u000b", "\u0000", "\t", "\n", "\r", " "],
      ...['"a"', '"a":', '"\\n"', '"\\u12aF"', '"\\u12g4"', '"\\x"', '{"a":1}', "[]", "{}"],
    ),
    { maxLength: 12 },
  )
  .map((parts) => parts.join(""));

test("it says of any text what JSON.parse says", () => {
  fc.assert(
    fc.property(fc.oneof(tokens, fc.json(), fc.string()), (text) => {
      assert.equal(reason(text) === undefined, isJson(text), JSON.stringify(text));
    }),
    { numRuns: 5_000 },
  );
});

test("of good JSON with one character changed, put in or taken out, too", () => {
  const change = fc.tuple(fc.json(), fc.nat(), fc.nat(1), fc.string({ maxLength: 1 }));
  fc.assert(
    fc.property(change, ([json, place, taken, put]) => {
      const at = place % (json.length + 1);
      const text = json.slice(0, at) + put + json.slice(at + taken);
      // Half a surrogate is no UTF-8; what becomes of it is not asked here.
      fc.pre(Buffer.from(text).toString() === text);
      assert.equal(reason(text) === undefined, isJson(text), JSON.stringify(text));
    }),
    { numRuns: 5_000 },
  );
});

test("nesting is bounded, and as deep as the bytes go without a bound", () => {
  const deep = (levels: number): Buffer => Buffer.from(`${'{"a":['.repeat(levels)}${"]}".repeat(levels)}`);
  assert.equal(whyNotJson(deep(2), { maxDepth: 4 }), undefined);
  assert.equal(whyNotJson(deep(2), { maxDepth: 3 }), "nested deeper than 3");
  assert.equal(whyNotJson(deep(500_000)), undefined);
  assert.equal(reason("[".repeat(1_000_000)), "it ends too soon");
  assert.equal(reason(`${"[".repeat(1_000)}}`), "wrong at byte 1000");
});

test("arrays, objects and members are bounded together; items are not, nor what stands in strings", () => {
  const within = (text: string, maxParts: number): boolean =>
    whyNotJson(Buffer.from(text), { maxParts }) === undefined;
  assert.ok(within('{"a":[1,2,3],"b":{}}', 5));
  assert.equal(within('{"a":[1,2,3],"b":{}}', 4), false);
  assert.ok(within(`["${"[{,:".repeat(1_000)}",${"1,".repeat(1_000)}1]`, 1));
});
