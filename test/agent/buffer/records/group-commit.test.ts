import assert from "node:assert/strict";
import test from "node:test";
import { type Append, GroupCommit } from "../../../../agent/buffer/records/group-commit.ts";

const append = (records: number): Append => ({
  records: Array.from({ length: records }, () => ({
    stream: "s",
    partitionKey: "k",
    timeUs: 1,
    payload: Buffer.from("x"),
  })),
  marks: [],
  bytes: records,
});

test("whoever pushes a full group as soon as the one before is stored is answered too", {
  timeout: 30_000,
}, async () => {
  let commits = 0;
  const groups = new GroupCommit({ commitDelayMs: 60_000, commitRecords: 10 }, async () => {
    commits++;
  });
  for (let i = 0; i < 100; i++) await groups.push(append(10));
  assert.equal(commits, 100);
});

test("what is pushed while a group is being committed goes into the next, in order", async () => {
  const stored: number[][] = [];
  let release = (): void => {};
  const groups = new GroupCommit({ commitDelayMs: 1, commitRecords: 100 }, async (group) => {
    stored.push(group.map(({ bytes }) => bytes));
    if (stored.length === 1) await new Promise<void>((resolve) => (release = resolve));
  });
  const first = groups.push(append(1));
  await new Promise((resolve) => setTimeout(resolve, 10));
  const rest = [2, 3, 4].map((records) => groups.push(append(records)));
  release();
  await Promise.all([first, ...rest]);
  assert.deepEqual(stored, [[1], [2, 3, 4]]);
});

test("a flush waits for what was pushed before it, and not for what comes without end", {
  timeout: 30_000,
}, async () => {
  let ended = false;
  const groups = new GroupCommit({ commitDelayMs: 60_000, commitRecords: 10 }, async () => {
    await new Promise((resolve) => setTimeout(resolve, 1));
  });
  const before = groups.push(append(1));
  const busy = (async () => {
    while (!ended) await Promise.race([groups.push(append(9)), groups.push(append(9))]);
  })();
  await groups.flush();
  await before;
  ended = true;
  await groups.flush();
  await busy;
});
