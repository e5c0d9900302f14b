import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { SqlNotSupportedError } from "../../../gateway/analytics/sql/errors.ts";
import { planStatement } from "../../../gateway/analytics/sql/planner.ts";

const INPUT = `CREATE TABLE readings (
  sensor STRING, place STRING, temperature DOUBLE, counter BIGINT, ok BOOLEAN, tags STRING,
  \`time\` TIMESTAMP_LTZ(3), WATERMARK FOR \`time\` AS \`time\` - INTERVAL '5' SECOND
) WITH ('connector' = 'kinesis', 'stream' = 'sensors', 'format' = 'json');
`;
const OUTPUT = `CREATE TABLE minutes (
  sensor STRING, window_start TIMESTAMP(3), window_end TIMESTAMP(3), n BIGINT, mean DOUBLE
) WITH ('connector' = 'kinesis', 'stream' = 'minutes', 'format' = 'json');
`;
const INSERT = `INSERT INTO minutes
SELECT sensor, window_start, window_end, COUNT(*) AS n, AVG(temperature) AS mean
FROM TABLE(TUMBLE(TABLE readings, DESCRIPTOR(\`time\`), INTERVAL '10' SECOND))
GROUP BY sensor, window_start, window_end;
`;
const WHOLE = INPUT + OUTPUT + INSERT;

test("the accepted shape becomes a plan", () => {
  const plan = planStatement(WHOLE);
  assert.equal(plan.inputStream, "sensors");
  assert.equal(plan.outputStream, "minutes");
  assert.equal(plan.timeColumn, "time");
  assert.equal(plan.watermarkDelayMs, 5_000);
  assert.equal(plan.windowMs, 10_000);
  assert.deepEqual(
    plan.keys.map((key) => key.name),
    ["sensor"],
  );
  assert.deepEqual(
    plan.measures.map((measure) => measure.name),
    ["temperature"],
  );
  assert.deepEqual(
    plan.outputs.map((output) => output.source.kind),
    ["key", "window_start", "window_end", "count_all", "aggregate"],
  );
});

test("comments, case, backquotes, quotes in text and missing semicolons at the end do not matter", () => {
  const sql = `-- a comment; with a semicolon
    create table IF NOT EXISTS \`in \`\`put\` (a varchar(20) not null, b int, c timestamp(3),
      watermark for c as c /* no delay; 'quoted' */)
    with ('connector'='kinesis', 'stream.arn'='arn:aws:kinesis:eu-west-1:000000000000:stream/raw', 'format'='json',
      'aws.region'='eu-west-1', 'json.timestamp-format.standard'='ISO-8601');
    create table o (w0 timestamp(3), w1 timestamp_ltz(3), a string, b int, s bigint, lo int, hi double precision, x bigint)
    with ('connector'='kinesis', 'stream'='o', 'format'='json', 'sink.partitioner'='it''s');;
    insert into o select window_start, window_end, a, b, sum(b) s, min(b), max(b) as hi, count(c)
    from table(tumble(table \`in \`\`put\`, descriptor(c), interval '1.5' hours))
    group by window_end, b, window_start, a`;
  const plan = planStatement(sql);
  assert.equal(plan.inputStream, "raw");
  assert.equal(plan.windowMs, 5_400_000);
  assert.equal(plan.watermarkDelayMs, 0);
  assert.deepEqual(
    plan.keys.map((key) => key.name),
    ["b", "a"],
  );
  assert.deepEqual(
    plan.measures.map((measure) => measure.name),
    ["b", "c"],
  );
  assert.equal(plan.columns[0]!.notNull, true);
  assert.deepEqual(
    plan.outputs.map((output) => output.name),
    ["w0", "w1", "a", "b", "s", "lo", "hi", "x"],
  );
});

/** [what is changed, into what, what the message names] */
const REFUSED: readonly (readonly [string, string, string, RegExp])[] = [
  ["WHERE", "GROUP BY", "WHERE temperature > 1 GROUP BY", /WHERE is not supported/],
  ["HAVING", "window_end;\n", "window_end HAVING COUNT(*) > 1;", /HAVING is not supported/],
  ["ORDER BY", "window_end;\n", "window_end ORDER BY n;", /ORDER is not supported/],
  ["LIMIT", "window_end;\n", "window_end LIMIT 5;", /LIMIT is not supported/],
  ["UNION", "window_end;\n", "window_end UNION ALL SELECT 1;", /UNION is not supported/],
  ["DISTINCT", "SELECT sensor", "SELECT DISTINCT sensor", /DISTINCT is not supported/],
  ["COUNT DISTINCT", "COUNT(*)", "COUNT(DISTINCT sensor)", /DISTINCT is reserved and not supported/],
  ["JOIN", "SECOND))\nGROUP", "SECOND)) JOIN other ON 1 = 1 GROUP", /JOIN is not supported/],
  ["HOP", "TUMBLE(", "HOP(", /HOP is not supported/],
  ["SESSION", "TUMBLE(", "SESSION(", /SESSION is not supported/],
  ["CUMULATE", "TUMBLE(", "CUMULATE(", /CUMULATE is not supported/],
  ["window offset", "'10' SECOND)", "'10' SECOND, INTERVAL '1' SECOND)", /, is not supported/],
  [
    "a plain table",
    "TABLE(TUMBLE(TABLE readings, DESCRIPTOR(`time`), INTERVAL '10' SECOND))",
    "readings",
    /READINGS is not supported/,
  ],
  [
    "a subquery",
    "FROM TABLE(TUMBLE(TABLE readings, DESCRIPTOR(`time`), INTERVAL '10' SECOND))",
    "FROM (SELECT 1)",
    /\( is not supported/,
  ],
  [
    "an unknown function",
    "AVG(temperature)",
    "STDDEV_POP(temperature)",
    /the function STDDEV_POP is not supported/,
  ],
  ["an expression", "AVG(temperature)", "AVG(temperature * 2)", /\* is not supported/],
  ["arithmetic", "AVG(temperature)", "AVG(temperature) + 1", /\+ is not supported/],
  ["a literal", "AVG(temperature)", "1", /1 is not supported/],
  ["CASE", "AVG(temperature)", "CASE WHEN ok THEN 1 END", /CASE is not supported/],
  ["CAST", "AVG(temperature)", "CAST(temperature AS INT)", /CAST is not supported/],
  ["OVER", "AVG(temperature)", "AVG(temperature) OVER w", /OVER is not supported/],
  ["FILTER", "COUNT(*)", "COUNT(*) FILTER (WHERE ok)", /FILTER is not supported/],
  ["SELECT *", "SELECT sensor,", "SELECT *,", /\* is not supported/],
  [
    "an ungrouped column",
    "AVG(temperature)",
    "temperature",
    /the column TEMPERATURE, which is not grouped by/,
  ],
  ["a sum of text", "AVG(temperature)", "AVG(tags)", /AVG over STRING is not supported/],
  ["an unknown column", "AVG(temperature)", "AVG(humidity)", /has no column HUMIDITY/],
  ["an unknown table", "TABLE readings,", "TABLE reading,", /no table READING/],
  ["a third key", "BY sensor,", "BY sensor, place, ok,", /a third key column/],
  ["no key", "BY sensor,", "BY", /this grouping/],
  ["no window", "BY sensor, window_start, window_end", "BY sensor", /this grouping/],
  ["GROUPING SETS", "BY sensor,", "BY GROUPING SETS ((sensor)),", /GROUPING is not supported/],
  ["ROLLUP", "BY sensor,", "BY ROLLUP(sensor),", /ROLLUP is not supported/],
  ["a key that is not selected", "BY sensor,", "BY sensor, place,", /SELECT without `place`/],
  ["an interval in days", "'10' SECOND", "'10' DAY", /DAY is not supported/],
  ["an interval of zero", "'10' SECOND", "'0' SECOND", /an interval of '0'/],
  ["an unquoted interval", "'10' SECOND", "10 SECOND", /10 is not supported/],
  ["another descriptor", "DESCRIPTOR(`time`)", "DESCRIPTOR(sensor)", /DESCRIPTOR\(SENSOR\) is not supported/],
  ["too few columns", ", AVG(temperature) AS mean", "", /4 selected columns for 5/],
  ["a wrong output type", "n BIGINT", "n INT", /column `n` as INT for a value of BIGINT/],
  ["DECIMAL", "temperature DOUBLE", "temperature DECIMAL(10, 2)", /the type DECIMAL is not supported/],
  ["ARRAY", "tags STRING", "tags ARRAY<STRING>", /the type ARRAY is not supported/],
  ["ROW", "tags STRING", "tags ROW<a INT>", /the type ROW is not supported/],
  ["MAP", "tags STRING", "tags MAP<STRING, STRING>", /the type MAP is not supported/],
  ["TIMESTAMP(6)", "TIMESTAMP_LTZ(3)", "TIMESTAMP_LTZ(6)", /TIMESTAMP_LTZ of another precision than 3/],
  ["a computed column", "tags STRING", "tags AS sensor", /the type AS is not supported/],
  ["PRIMARY KEY", "tags STRING", "PRIMARY KEY (sensor) NOT ENFORCED", /PRIMARY is not supported/],
  ["METADATA", "tags STRING", "tags STRING METADATA", /METADATA is not supported/],
  ["an unquoted reserved word", "`time` TIMESTAMP_LTZ(3)", "time TIMESTAMP_LTZ(3)", /TIME is reserved/],
  ["no watermark", ", WATERMARK FOR `time` AS `time` - INTERVAL '5' SECOND", "", /without WATERMARK/],
  [
    "a watermark over text",
    "WATERMARK FOR `time` AS `time`",
    "WATERMARK FOR tags AS tags",
    /a watermark over STRING/,
  ],
  [
    "another connector",
    "'connector' = 'kinesis', 'stream' = 'sensors'",
    "'connector' = 'kafka', 'stream' = 'sensors'",
    /'connector' = 'kafka'/,
  ],
  [
    "another format",
    "'stream' = 'sensors', 'format' = 'json'",
    "'stream' = 'sensors', 'format' = 'csv'",
    /'format' = 'csv'/,
  ],
  ["an unknown option", "'stream' = 'sensors'", "'stream' = 'sensors', 'topic' = 'x'", /'topic' = 'x'/],
  ["no stream", "'stream' = 'sensors', ", "", /without a stream/],
  ["writing where it reads", "'stream' = 'minutes'", "'stream' = 'sensors'", /which is read/],
  ["CREATE VIEW", "INSERT INTO", "CREATE VIEW v AS SELECT 1; INSERT INTO", /VIEW is not supported/],
  [
    "CREATE TEMPORARY TABLE",
    "CREATE TABLE minutes",
    "CREATE TEMPORARY TABLE minutes",
    /TEMPORARY is not supported/,
  ],
  ["INSERT OVERWRITE", "INSERT INTO", "INSERT OVERWRITE", /OVERWRITE is not supported/],
  ["VALUES", "minutes\nSELECT", "minutes VALUES (1)", /VALUES is not supported/],
  ["a column list", "INTO minutes\n", "INTO minutes (sensor, n)\n", /\( is not supported/],
  [
    "UPDATE",
    "INSERT INTO minutes",
    "UPDATE minutes SET n = 1; INSERT INTO minutes",
    /UPDATE is not supported/,
  ],
  ["DELETE", "INSERT INTO minutes", "DELETE FROM minutes; INSERT INTO minutes", /DELETE is not supported/],
  ["DROP", "INSERT INTO minutes", "DROP TABLE minutes; INSERT INTO minutes", /DROP is not supported/],
  ["SET", "INSERT INTO minutes", "SET 'a' = 'b'; INSERT INTO minutes", /SET is not supported/],
  ["WITH before SELECT", "SELECT sensor", "WITH x AS (SELECT 1) SELECT sensor", /WITH is not supported/],
  [
    "a second INSERT",
    "window_end;\n",
    "window_end; INSERT INTO minutes SELECT 1",
    /INSERT after INSERT INTO/,
  ],
  ["text that never ends", "'10' SECOND", "'10 SECOND", /never ends/],
  ["a comment that never ends", "INSERT INTO", "/* INSERT INTO", /never ends/],
  ["a sign of another language", "sensor,", "sensor; €,", /€|; between|is not supported/],
];

for (const [what, from, to, message] of REFUSED) {
  test(`refused by name: ${what}`, () => {
    assert.ok(WHOLE.includes(from), `the test's text has no ${from}`);
    const at = WHOLE.lastIndexOf(from);
    const sql = WHOLE.slice(0, at) + to + WHOLE.slice(at + from.length);
    assert.throws(
      () => planStatement(sql),
      (error) => {
        assert.ok(error instanceof SqlNotSupportedError, String(error));
        assert.equal(error.code, "SQL_NOT_SUPPORTED");
        assert.match(error.message, message);
        assert.match(error.message, /^line \d+, column \d+: /);
        assert.match(error.hint ?? "", /^accepted: ./);
        return true;
      },
    );
  });
}

test("the place is that of the word which is refused", () => {
  const sql = WHOLE.replace("GROUP BY", "WHERE x GROUP BY");
  const before = sql.slice(0, sql.indexOf("WHERE")).split("\n");
  assert.throws(
    () => planStatement(sql),
    (error) => {
      assert.ok(error instanceof SqlNotSupportedError);
      assert.deepEqual(error.place, { line: before.length, column: before.at(-1)!.length + 1 });
      return true;
    },
  );
});

test("nothing at all, a lone CREATE TABLE and a text above 64 KiB are refused", () => {
  for (const sql of ["", ";;", INPUT, `${WHOLE}${" ".repeat(65_536)}`]) {
    assert.throws(() => planStatement(sql), SqlNotSupportedError);
  }
});

test("no text crashes or hangs the parser", () => {
  const before = process.cpuUsage();
  const refusedOrPlanned = (sql: string): void => {
    try {
      planStatement(sql);
    } catch (error) {
      assert.ok(error instanceof SqlNotSupportedError, `${String(error)} for ${JSON.stringify(sql)}`);
    }
  };
  fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 300 }), refusedOrPlanned), { numRuns: 2_000 });
  // Words of the language in any order reach deeper than noise does.
  const words = fc.constantFrom(...new Set(WHOLE.match(/\w+|[^\s\w]|\s/g)), "(", "`", "'", "/*", "--", "''");
  fc.assert(
    fc.property(fc.array(words, { maxLength: 200 }), (parts) => refusedOrPlanned(parts.join(""))),
    {
      numRuns: 2_000,
    },
  );
  // The whole statement with a piece cut out and another put in.
  const edit = fc.tuple(fc.nat(WHOLE.length), fc.nat(30), fc.oneof(words, fc.string({ maxLength: 5 })));
  fc.assert(
    fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
      let sql = WHOLE;
      for (const [at, length, text] of edits) sql = sql.slice(0, at) + text + sql.slice(at + length);
      refusedOrPlanned(sql);
    }),
    { numRuns: 3_000 },
  );
  for (const hostile of ["(", "'", "`", "/*", "--", "a ", "1", ",", "CREATE TABLE ", "INTERVAL ", "\n"]) {
    refusedOrPlanned(hostile.repeat(Math.floor(65_536 / hostile.length)));
    refusedOrPlanned(WHOLE.slice(0, 400) + hostile.repeat(Math.floor(60_000 / hostile.length)));
  }
  // Our own work alone: others may have the processor meanwhile.
  const { user, system } = process.cpuUsage(before);
  assert.ok(user + system < 30_000_000, `${user + system} µs`);
});
