import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { type BatchKind, decodeJsonBatch } from "../../../../agent/sources/decode/json-batch.ts";
import { readingRecord } from "../../../../agent/sources/reading-record.ts";

const NOW_US = Date.UTC(2026, 10, 21) * 1_000;
const KINDS: readonly BatchKind[] = ["json", "lines", "senml"];

test("no body of any kind throws; what is read makes records that can be stored", () => {
  const object = fc.dictionary(fc.constantFrom("sensor", "time", "t", "bn", "n", "v"), fc.jsonValue());
  const bodies = fc.oneof(
    fc.string(),
    fc.json(),
    object.map((one) => JSON.stringify(one)),
    fc.array(object).map((all) => JSON.stringify(all)),
    fc.array(object).map((all) => all.map((one) => JSON.stringify(one)).join("\n")),
  );
  fc.assert(
    fc.property(fc.constantFrom(...KINDS), bodies, (kind, text) => {
      const { readings, reason } = decodeJsonBatch(kind, text, "door", NOW_US);
      if (reason !== undefined) assert.ok(reason.length > 0 && reason.length < 300);
      for (const reading of readings ?? []) {
        const { payload, partitionKey } = readingRecord("pi-1", "sensors", reading, NOW_US);
        assert.ok(JSON.parse(Buffer.from(payload).toString()).sensor.length > 0);
        assert.ok(partitionKey.length <= 256);
      }
    }),
    { numRuns: 2_000 },
  );
});

test("nesting that would exhaust the stack is refused with a reason", () => {
  for (const depth of [100, 10_000, 200_000]) {
    for (const [open, close] of [
      ["[", "]"],
      ['{"a":', "}"],
    ] as const) {
      const nested = `${open.repeat(depth)}1${close.repeat(depth)}`;
      for (const text of [nested, `{"t":${nested}}`, `[{"t":${nested}}]`]) {
        for (const kind of KINDS)
          assert.match(decodeJsonBatch(kind, text, "door", NOW_US).reason ?? "", /\w/, `${kind} ${depth}`);
      }
    }
  }
});
