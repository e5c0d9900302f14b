/** The check of a body against its table, where a value is made to cost time or to pass for a number. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { AwsError } from "../../../../gateway/api/aws-error.ts";
import { resourceArnField, streamArnField } from "../../../../gateway/api/kinesis/account.ts";
import { consumerArnField } from "../../../../gateway/api/kinesis/consumer-arn.ts";
import { checkShape, type Shape } from "../../../../gateway/api/kinesis/shape.ts";
import { cborCodec } from "../../../../gateway/api/kinesis/wire/codec.ts";

const ARNS = { streamArnField, resourceArnField, consumerArnField };

function refusalOf(body: unknown, shape: Shape): string {
  try {
    checkShape(body, shape);
  } catch (error) {
    assert.ok(error instanceof AwsError);
    return `${error.type}: ${error.message}`;
  }
  return "";
}

for (const [name, field] of Object.entries(ARNS)) {
  test(`no text keeps the check of its pattern busy: ${name}`, () => {
    // Each piece may begin any of the pattern's parts, and the space at the end lets all of them fail.
    const pieces = [":kinesis:", ":kinesis:000000000000:", ":kinesis:000000000000:stream/x/consumer/x:"];
    for (const piece of [...pieces, ":kinesis:000000000000:stream/"]) {
      for (const characters of [2_000, 16_777_216]) {
        const text = `arn:aws${piece.repeat(Math.floor(characters / piece.length))} `;
        const startedMs = performance.now();
        assert.match(refusalOf({ Arn: text }, { Arn: field }), /^ValidationException: 1 validation error/);
        const tookMs = performance.now() - startedMs;
        // Milliseconds here; a pattern that goes back and forth would take hours for the longer ones.
        assert.ok(tookMs < 20_000, `${piece} ${text.length}: ${tookMs} ms`);
      }
    }
  });
}

test("a text that is too long for its pattern to be tried is refused for its length", () => {
  const message = refusalOf({ Arn: "x".repeat(2_049) }, { Arn: streamArnField });
  assert.match(
    message,
    /at 'arn' failed to satisfy constraint: Member must have length less than or equal to 2048$/,
  );
  const name = { type: "string", pattern: "[a-z]+", maxLength: 4 } as const;
  assert.match(refusalOf({ Name: "A".repeat(2_048) }, { Name: name }), /^ValidationException: 2 .*pattern/);
  const digits = { type: "string", pattern: "0|([1-9]\\d{0,128})" } as const;
  assert.match(refusalOf({ Digits: "1".repeat(100_000) }, { Digits: digits }), /regular expression pattern/);
});

test("the quick form of an ARN's pattern takes what the pattern takes", () => {
  const plain = new RegExp(`^(?:${resourceArnField.pattern})$`);
  const piece = fc.constantFrom(
    "arn:aws",
    "-cn",
    ":kinesis:",
    "kinesis:",
    "us-east-1",
    ":000000000000:",
    "000000000000",
    "00",
    ":",
    "stream/",
    "/consumer/",
    "s",
    " ",
    "\n",
  );
  let taken = 0;
  const any = fc.array(piece, { maxLength: 9 }).map((pieces) => pieces.join(""));
  const likely = fc
    .tuple(any, any, any)
    .map(([a, b, c]) => `arn:aws${a}:kinesis:${b}:000000000000:${c}stream/s`);
  fc.assert(
    fc.property(
      fc.oneof(
        any,
        likely,
        fc.tuple(likely, any).map(([a, b]) => a + b),
      ),
      (text) => {
        const isTaken = plain.test(text);
        if (isTaken) taken++;
        assert.equal(resourceArnField.quickPattern.test(text), isTaken, text);
      },
    ),
    { numRuns: 5_000 },
  );
  assert.ok(taken > 500, `${taken} taken`);
});

test("what is no number is none, in any member that counts or tells a time", () => {
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    const body = cborCodec.decode(Buffer.from(cborCodec.encode({ Number: value })));
    for (const type of ["integer", "timestamp"] as const) {
      assert.match(refusalOf(body, { Number: { type } }), /^SerializationException: -?(NaN|Infinity) is no/);
    }
  }
  assert.match(refusalOf(JSON.parse('{"N":1e400}'), { N: { type: "integer" } }), /^SerializationException/);
});
