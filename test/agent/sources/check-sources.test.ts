import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { sourceProblems } from "../../../agent/sources/check-sources.ts";
import { unfinishedJq } from "../../../agent/sources/shape/jq-lint.ts";
import { agentConfig } from "../../../config/agent-config.ts";
import { parseConfig } from "../../../config/loader.ts";

async function problems(...filters: object[]): Promise<string[]> {
  const sources = filters.map((filter, i) => ({ name: `s${i}`, type: "host", shape: { filter } }));
  const text = JSON.stringify({ device: "a", sources });
  return sourceProblems(parseConfig("agent.yaml", text, agentConfig, {}).sources);
}

test("a filter that cannot be used is found before anything runs, with its path and the reason", async () => {
  const found = await problems(
    { javascript: "record.t < 3" },
    { javascript: "record.t <" },
    { javascript: "recrod.t < 3" },
    { javascript: "(() => { for (;;); })()", timeoutMs: 20 },
    { jq: "select(.t < 3)" },
    { jq: "select(.t < )" },
    { jq: ".[" },
    { jq: ".cells[] | {voltage: .v}" },
    { jq: "select(.t < 3) | nosuch" },
  );
  const expected = [
    /^sources\[1\]\.shape\.filter\.javascript: Unexpected token .*; an expression over record, such as/,
    /^sources\[2\]\.shape\.filter\.javascript: recrod is not defined; /,
    /^sources\[5\]\.shape\.filter\.jq: nothing follows "<" in "select\(\.t < \)"; .*select\(\.temperature/,
    /^sources\[6\]\.shape\.filter\.jq: .*end-of-program/,
    /^sources\[8\]\.shape\.filter\.jq: no such function nosuch\/0/,
  ];
  assert.equal(found.length, expected.length, found.join("\n"));
  for (const [i, pattern] of expected.entries()) assert.match(found[i]!, pattern);
});

test("jq that is whole is not called unfinished", () => {
  const whole = [
    ".",
    "..",
    ".a.b",
    '.["a b"]',
    ".a[]?",
    "-1",
    ".a // 3",
    ".a as [$x, $y] | $x + $y",
    '"ends in +"',
    '{a: .b, "c-": 1}',
    ".a |= . + 1 # and more |",
    "if .a then . else empty end",
    ".a[1:]",
    '"\\(.a) or "',
    ".. | numbers",
    "limit(3; .[])",
    ".nor",
  ];
  for (const text of whole) assert.equal(unfinishedJq(text), undefined, text);
  for (const text of ["", " # nothing", ".a +", ".a.", "map(.a.)", "[1,]", ".a and", ".a |", "{a: .b | }"])
    assert.notEqual(unfinishedJq(text), undefined, text);
});

test("any text at all is looked at without a throw", () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 200 }), (text) => {
      unfinishedJq(text);
    }),
    { numRuns: 1_000 },
  );
});
