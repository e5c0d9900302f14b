/** The judge itself: it must find what is wrong, and nothing else. */
import assert from "node:assert/strict";
import test from "node:test";
import type { GapRecord } from "../../protocol/topics.ts";
import { AgentVerdict, bySensor, judgeBoard, judgeNumbered, judgeUnits } from "./agent-verdict.ts";
import { type NumberedSource, numbered } from "./numbered-sources.ts";

const START_MS = Date.parse("2026-01-01T00:00:00Z");

function source(sent: number): NumberedSource {
  const moments = new Map<number, { sentMs: number; acknowledgedMs: number }>();
  for (let n = 1; n <= sent; n++) moments.set(n, { sentMs: START_MS + n, acknowledgedMs: START_MS + n + 5 });
  const nothing = { start() {}, finish() {}, idle: true, close: async () => {} };
  return { sensor: "s", sent, acknowledged: sent, moments, ...nothing };
}

function came(numbers: readonly number[]): string[] {
  return numbers.map((n) =>
    JSON.stringify({ sensor: "s", time: new Date(START_MS + n).toISOString(), ...numbered("s", n) }),
  );
}

function judged(texts: readonly string[], ordered = true): AgentVerdict {
  const verdict = new AgentVerdict();
  judgeNumbered([source(5)], bySensor(texts, verdict), ordered, verdict);
  return verdict;
}

function counts({ lost, doubled, corrupted }: AgentVerdict): number[] {
  return [lost, doubled, corrupted];
}

test("what came once, whole and in order is good", () => {
  const verdict = judged(came([1, 2, 3, 4, 5]));
  assert.deepEqual([...counts(verdict), verdict.findings.length], [0, 0, 0, 0]);
});

test("what is missing, doubled, changed, late or misdated is found and counted", () => {
  assert.deepEqual(counts(judged(came([1, 4, 5]))), [2, 0, 0]);
  assert.deepEqual(counts(judged(came([1, 2, 3, 2, 3, 4, 5]))), [0, 2, 0]);
  assert.deepEqual(counts(judged(came([1, 3, 2, 4, 5]))), [0, 0, 1]);
  assert.deepEqual(counts(judged(came([1, 3, 2, 4, 5]), false)), [0, 0, 0]);
  const [one, two, ...others] = came([1, 2, 3, 4, 5]) as [string, string, ...string[]];
  assert.deepEqual(counts(judged([one, two.replace(/"proof":"./, '"proof":"z'), ...others])), [0, 0, 1]);
  assert.deepEqual(counts(judged([one, two.replace("2026", "1970"), ...others])), [0, 0, 1]);
  assert.deepEqual(counts(judged([one, two, ...others, "{"])), [0, 0, 1]);
  assert.deepEqual(judged(came([1, 4, 5])).findings, ["lost: s 2 to 3"]);
});

function board(counters: readonly number[], gaps: ReadonlyArray<[number, number]>): AgentVerdict {
  const verdict = new AgentVerdict();
  const lines = Array.from({ length: 10 }, (_, counter) => ({ counter, temperature: counter / 2 }));
  const readings = counters.map((counter) => ({
    ...{ sensor: "board", counter, temperature: counter / 2 },
    time: new Date(START_MS + counter * 1_000).toISOString(),
  }));
  const told = gaps.map(([from, to]) => ({
    ...{ fromUs: (START_MS + from * 1_000) * 1_000, toUs: (START_MS + to * 1_000) * 1_000 },
  })) as GapRecord[];
  judgeBoard(lines, readings, told, true, verdict);
  return verdict;
}

test("lines of the board may be missing where a gap was reported, and nowhere else", () => {
  assert.deepEqual(counts(board([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [])), [0, 0, 0]);
  assert.deepEqual(counts(board([0, 1, 2, 6, 7, 8, 9], [])), [3, 0, 0]);
  assert.deepEqual(counts(board([0, 1, 2, 6, 7, 8, 9], [[2, 6]])), [0, 0, 0]);
  assert.deepEqual(counts(board([0, 1, 2, 6, 7, 9], [[2, 6]])), [1, 0, 0]);
  assert.deepEqual(counts(board([0, 1, 2, 3, 4, 5, 6], [])), [3, 0, 0]);
  assert.deepEqual(counts(board([3, 4, 5, 6, 7, 8, 9], [])), [0, 0, 0]);
  assert.deepEqual(counts(board([0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9], [])), [0, 1, 0]);
});

test("of pictures that are alike nobody can say where they belong, and the judge says so", () => {
  const verdict = new AgentVerdict();
  judgeUnits([], new Set(), ["a", "b", "a"], verdict);
  assert.deepEqual(verdict.findings, ["wrong: the camera sent pictures that are alike"]);
});
