import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { ordinaryPut, plainPut } from "../../../../../gateway/api/kinesis/puts/put-record.ts";
import { toBlob } from "../../../../../gateway/api/kinesis/shape.ts";
import { strictBase64 } from "../../../../../gateway/api/kinesis/wire/strict-base64.ts";

/** What `give` gives; undefined when it throws. */
function attempt<T>(give: () => T): T | undefined {
  try {
    return give();
  } catch {
    return undefined;
  }
}

test("base64 is taken exactly where the plain way takes it", () => {
  const right = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString("base64"));
  const near = fc
    .tuple(right, fc.nat(60), fc.constantFrom("=", "-", "_", "A", " ", "\n", "é", "Ł", "😀", "", "==", "="))
    .map(([text, at, odd]) => text.slice(0, at) + odd + text.slice(at + odd.length));
  const any = fc.string({ unit: fc.constantFrom(..."AQgw9+/=-_ Ł"), maxLength: 12 });
  fc.assert(
    fc.property(fc.oneof(right, near, any), (text) => {
      assert.deepEqual(
        strictBase64(text),
        attempt(() => toBlob(text)),
      );
    }),
    { numRuns: 20_000 },
  );
});

test("what is taken for an ordinary put, the plain way understands alike", () => {
  const text = fc.oneof(
    fc.constantFrom(
      "s",
      "a.b-C_9",
      "",
      "k",
      "ä",
      "\ud800",
      "aGVsbG8=",
      "aGVsbG9=",
      "x".repeat(128),
      "x".repeat(257),
    ),
    fc.string({ maxLength: 10 }),
  );
  const value = fc.oneof(
    { weight: 8, arbitrary: text },
    fc.constantFrom(null, 1, true, [], {}, Buffer.from("b")),
  );
  const body = fc.record(
    {
      StreamName: value,
      Data: value,
      PartitionKey: value,
      StreamARN: value,
      ExplicitHashKey: value,
      Unknown: value,
    },
    { requiredKeys: [] },
  );
  let taken = 0;
  const usual = fc.record({ StreamName: value, Data: value, PartitionKey: value });
  fc.assert(
    fc.property(fc.oneof(body, usual), (put) => {
      const ours = ordinaryPut(put);
      if (ours === undefined) return;
      taken++;
      assert.deepEqual(ours, plainPut(put));
    }),
    { numRuns: 20_000 },
  );
  assert.ok(taken > 20, `only ${taken} were taken`);
});

test("data of more than 1 MiB goes the plain way, which knows the limits", () => {
  const put = (bytes: number): object => ({
    StreamName: "s",
    Data: Buffer.alloc(bytes).toString("base64"),
    PartitionKey: "k",
  });
  assert.equal(ordinaryPut(put(1_048_577)), undefined);
  assert.equal(ordinaryPut(put(1_048_576))?.columns.data.length, 1_048_576);
});
