import assert from "node:assert/strict";
import test from "node:test";
import { compileDecoder, type DecodedRecord } from "../../../gateway/analytics/decode.ts";
import { planStatement } from "../../../gateway/analytics/sql/planner.ts";

const PLAN = planStatement(`
CREATE TABLE i (s STRING, d DOUBLE, \`time\` TIMESTAMP(3), WATERMARK FOR \`time\` AS \`time\`)
WITH ('connector'='kinesis','stream'='i','format'='json');
CREATE TABLE o (s STRING, a TIMESTAMP(3), z TIMESTAMP(3), d DOUBLE)
WITH ('connector'='kinesis','stream'='o','format'='json');
INSERT INTO o SELECT s, window_start, window_end, SUM(d)
FROM TABLE(TUMBLE(TABLE i, DESCRIPTOR(\`time\`), INTERVAL '1' MINUTE)) GROUP BY s, window_start, window_end`);
const decode = compileDecoder(PLAN);

function read(text: string): DecodedRecord | string {
  const record: DecodedRecord = { timeMs: 0, keyName: "", key: [], measures: [null] };
  return decode(Buffer.from(text), 0, record) ?? record;
}

test("a record whose parsing would hold everybody up is rejected unparsed", (t) => {
  const parse = t.mock.method(JSON, "parse");
  const many = "not JSON: more than 50000 arrays, objects and members";
  const bytes = 10 * 1_048_576;
  assert.equal(read("[".repeat(bytes)), many);
  assert.equal(read(`{"time":0,"x":${"[".repeat(bytes / 2)}${"]".repeat(bytes / 2)}}`), many);
  assert.equal(read(`{"time":0,"x":[${"{},".repeat(bytes / 4)}0]}`), many);
  assert.equal(read(`{"time":0${Array.from({ length: 60_000 }, (_, i) => `,"k${i}":1`).join("")}}`), many);
  assert.equal(read(`{"time":0,"x":"${"a".repeat(20_000)}`), "not JSON: wrong at byte 14");
  assert.equal(parse.mock.callCount(), 0);
});

test("a long record of little structure is read", () => {
  const samples = `[${"1.5,".repeat(200_000)}1.5]`;
  const record = read(`{"time":0,"s":"a","d":2,"samples":${samples},"text":"${"[{,".repeat(100_000)}"}`);
  assert.deepEqual(record, { timeMs: 0, keyName: '["a"]', key: ["a"], measures: [2] });
});
