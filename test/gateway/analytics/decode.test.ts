import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { compileDecoder, type DecodedRecord } from "../../../gateway/analytics/decode.ts";
import { planStatement } from "../../../gateway/analytics/sql/planner.ts";

const PLAN = planStatement(`
CREATE TABLE i (s STRING, k INT, d DOUBLE, b BIGINT, f FLOAT, t TINYINT, ok BOOLEAN, must STRING NOT NULL,
  \`time\` TIMESTAMP(3), WATERMARK FOR \`time\` AS \`time\`) WITH ('connector'='kinesis','stream'='i','format'='json');
CREATE TABLE o (s STRING, k INT, a TIMESTAMP(3), z TIMESTAMP(3), d DOUBLE, b BIGINT, f FLOAT, t TINYINT, ok BIGINT)
WITH ('connector'='kinesis','stream'='o','format'='json');
INSERT INTO o SELECT s, k, window_start, window_end, SUM(d), SUM(b), SUM(f), MAX(t), COUNT(ok)
FROM TABLE(TUMBLE(TABLE i, DESCRIPTOR(\`time\`), INTERVAL '1' MINUTE)) GROUP BY s, k, window_start, window_end`);
const NOW_MS = Date.UTC(2026, 10, 21);
const decode = compileDecoder(PLAN);

function read(text: string): DecodedRecord | string {
  const record: DecodedRecord = { timeMs: 0, keyName: "", key: [], measures: PLAN.measures.map(() => null) };
  return decode(Buffer.from(text), NOW_MS, record) ?? record;
}
const readTime = (time: unknown): number | string => {
  const record = read(JSON.stringify({ time, must: "" }));
  return typeof record === "string" ? record : record.timeMs;
};

test("fields become values of their column's type, and missing ones NULL", () => {
  assert.deepEqual(
    read('{"s":"a","k":"7","d":"1.5","b":9007199254740991,"f":0.1,"t":-128,"ok":false,"must":"","time":0}'),
    {
      timeMs: 0,
      keyName: '["a",7]',
      key: ["a", 7],
      measures: [1.5, 9_007_199_254_740_991, Math.fround(0.1), -128, 1],
    },
  );
  assert.deepEqual(read('{"time":1,"must":1,"d":null}'), {
    timeMs: 1,
    keyName: "[null,null]",
    key: [null, null],
    measures: [null, null, null, null, null],
  });
});

test("times are RFC 3339, without a zone UTC, or milliseconds", () => {
  const at = Date.UTC(2026, 1, 3, 4, 5, 6, 789);
  for (const text of [
    "2026-02-03T04:05:06.789Z",
    "2026-02-03 04:05:06.789",
    "2026-02-03T04:05:06.789999z",
    "2026-02-03T06:05:06.789+02:00",
    "2026-02-02T22:35:06.789-0530",
  ]) {
    assert.equal(readTime(text), at, text);
  }
  assert.equal(readTime(at), at);
  assert.equal(readTime("2016-12-31T23:59:60Z"), Date.UTC(2016, 11, 31, 23, 59, 59, 999));
  for (const wrong of [
    "2026-02-30T00:00:00Z",
    "2026-13-01T00:00:00Z",
    "2026-01-01T24:00:00Z",
    "2026-01-01T00:00:00+24:00",
    "2026-01-01T00:00:00+00:60",
    "0050-01-01T00:00:00Z",
    "2026-01-01",
    "soon",
    {},
    -1e15,
  ]) {
    assert.match(String(readTime(wrong)), /^time: no time/, JSON.stringify(wrong));
  }
  assert.equal(readTime(null), "time: null");
  assert.match(String(readTime(NOW_MS + 3_600_001)), /ahead/);
});

test("what does not fit is rejected with the column's name", () => {
  for (const [text, reason] of [
    ['{"time":0}', "must: null"],
    ['{"time":0,"must":"","k":2147483648}', "k: no INT"],
    ['{"time":0,"must":"","t":128}', "t: no TINYINT"],
    ['{"time":0,"must":"","b":9007199254740993}', "b: no BIGINT"],
    ['{"time":0,"must":"","b":1.5}', "b: no BIGINT"],
    ['{"time":0,"must":"","d":1e999}', "d: no finite number"],
    ['{"time":0,"must":"","f":1e39}', "f: too large for FLOAT"],
    ['{"time":0,"must":"","ok":1}', "ok: no BOOLEAN"],
    [`{"time":0,"must":"","s":"${"x".repeat(1_025)}"}`, "s: more than 1024 characters"],
    ["null", "not a JSON object"],
    ["", "not JSON"],
  ] as const) {
    assert.equal(read(text), reason);
  }
});

test("a value of any depth is rejected where it is a key, and counted where it is not", () => {
  const deep = (levels: number): string => `${"[".repeat(levels)}${"]".repeat(levels)}`;
  for (const levels of [600, 5_000, 40_000]) {
    assert.equal(read(`{"time":0,"must":"","s":${deep(levels)}}`), "s: more than 1024 characters");
    assert.equal(typeof read(`{"time":0,"must":${deep(levels)}}`), "object");
  }
  assert.equal(typeof read(`{"time":0,"must":"${"x".repeat(5_000)}"}`), "object");
});

test("no payload makes the decoder throw, and what it takes fits its columns", () => {
  const column = fc.constantFrom(
    "s",
    "k",
    "d",
    "b",
    "f",
    "t",
    "ok",
    "must",
    "time",
    "__proto__",
    "constructor",
  );
  const hostile = fc.oneof(
    fc
      .dictionary(column, fc.oneof(fc.jsonValue(), fc.double(), fc.date(), fc.bigInt().map(String)))
      .map((value) => Buffer.from(JSON.stringify({ time: 0, must: "", ...value }))),
    fc.json().map((text) => Buffer.from(text)),
    fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
  );
  fc.assert(
    fc.property(hostile, (payload) => {
      const record: DecodedRecord = {
        timeMs: 0,
        keyName: "",
        key: [],
        measures: PLAN.measures.map(() => null),
      };
      if (decode(payload, NOW_MS, record) !== undefined) return;
      assert.ok(Number.isSafeInteger(record.timeMs));
      for (const measure of record.measures) assert.ok(measure === null || Number.isFinite(measure));
    }),
    { numRuns: 5_000 },
  );
});
