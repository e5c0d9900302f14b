import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { MessageNumbers, MessageNumbersError } from "../../firmware-sim/message-numbers.ts";
import { Pace } from "../../firmware-sim/pace.ts";

function withFolder(run: (path: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "hw-numbers-"));
  try {
    run(join(folder, "next-messages.json"));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function opened(path: string): MessageNumbers {
  const numbers = new MessageNumbers(path);
  numbers.open();
  return numbers;
}

test("a run that was killed never leaves a number to be used twice", () => {
  withFolder((path) => {
    const killed = opened(path);
    for (let n = killed.first("board"); n < 2_345; n++) killed.use("board", n);
    assert.ok(opened(path).first("board") >= 2_345);
  });
});

test("a run that was closed is continued without a gap", () => {
  withFolder((path) => {
    const numbers = opened(path);
    for (let n = 0; n < 1_500; n++) numbers.use("sensors", n);
    numbers.release("sensors", 1_500);
    const next = opened(path);
    assert.equal(next.first("sensors"), 1_500);
    assert.equal(next.first("board"), 0);
  });
});

test("a file that is not ours is refused", () => {
  withFolder((path) => {
    for (const text of ["", "{", '{"board": -1}', '{"board": "7"}']) {
      writeFileSync(path, text);
      assert.throws(() => opened(path), MessageNumbersError, text);
    }
  });
});

test("a pace does not drift, and makes up for no more than a hundred beats", () => {
  let nowMs = 5_000;
  const clock = { nowUs: () => nowMs * 1_000, monotonicMs: () => nowMs };
  const pace = new Pace(10, clock);
  let beats = 0;
  for (; nowMs <= 15_000; nowMs += 37) beats += pace.due();
  assert.ok(beats >= 99 && beats <= 100);
  nowMs += 3_600_000;
  assert.equal(pace.due(), 100);
  assert.equal(pace.due(), 0);
});
