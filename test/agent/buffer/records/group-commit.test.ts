import assert from "node:assert/strict";
import test from "node:test";
import {
  type Append,
  GroupCommit,
  type GroupOptions,
} from "../../../../agent/buffer/records/group-commit.ts";

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

/** Sizes of the appends of each group, as they are committed. */
function recorded(options: Partial<GroupOptions>): { groups: GroupCommit; stored: number[][] } {
  const stored: number[][] = [];
  const groups = new GroupCommit(
    { commitDelayMs: 60_000, commitRecords: 1_000, ...options },
    async (group) => {
      stored.push(group.map(({ bytes }) => bytes));
    },
  );
  return { groups, stored };
}

const ofBytes = (bytes: number): Append => ({ ...append(1), bytes });

test("a group holds no more than it may, and what did not fit waits no longer", {
  timeout: 30_000,
}, async () => {
  const byRecords = recorded({ commitRecords: 10 });
  await Promise.all([4, 6, 6, 5].map((records) => byRecords.groups.push(append(records))));
  assert.deepEqual(byRecords.stored, [[4, 6], [6], [5]]);
  const byBytes = recorded({ commitBytes: 100 });
  await Promise.all([40, 60, 60, 500, 1, 99].map((bytes) => byBytes.groups.push(ofBytes(bytes))));
  assert.deepEqual(byBytes.stored, [[40, 60], [60], [500], [1, 99]]);
});

test("a group is full at 1 MiB, or at what the config says up to 16 MiB", { timeout: 30_000 }, async () => {
  const MIB = 1_048_576;
  for (const [commitBytes, full] of [
    [undefined, MIB],
    [4 * MIB, 4 * MIB],
    [1_000 * MIB, 16 * MIB],
  ] as const) {
    const { groups, stored } = recorded(commitBytes === undefined ? {} : { commitBytes });
    const first = groups.push(ofBytes(full - 1));
    // A commit of a full group would be under way by now.
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(stored, []);
    await Promise.all([first, groups.push(ofBytes(1))]);
    assert.deepEqual(stored, [[full - 1, 1]]);
  }
});

test("the first of a group waits so long for company, and no longer for what comes then", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { groups, stored } = recorded({ commitDelayMs: 10, commitBytes: 5 });
  const first = groups.push(append(1));
  t.mock.timers.tick(9);
  const second = groups.push(append(2));
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(stored, []);
  t.mock.timers.tick(1);
  await Promise.all([first, second]);
  assert.deepEqual(stored, [[1, 2]]);
  // The next one has a time of its own.
  const third = groups.push(append(3));
  t.mock.timers.tick(9);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(stored, [[1, 2]]);
  t.mock.timers.tick(1);
  await third;
  assert.deepEqual(stored, [[1, 2], [3]]);
});

test("when a commit fails all of its group are told, and nobody else", { timeout: 30_000 }, async () => {
  let commits = 0;
  const groups = new GroupCommit({ commitDelayMs: 60_000, commitRecords: 10 }, async () => {
    if (++commits === 1) throw new Error("no space left");
  });
  const settled = await Promise.allSettled([4, 6, 10].map((records) => groups.push(append(records))));
  assert.deepEqual(
    settled.map(({ status }) => status),
    ["rejected", "rejected", "fulfilled"],
  );
  // Who flushes is not told: those who pushed are.
  const refused = groups.push(append(1));
  commits = 0;
  await Promise.all([assert.rejects(refused, /no space left/), groups.flush()]);
});

test("a flush of nothing commits nothing", async () => {
  const { groups, stored } = recorded({});
  await groups.flush();
  assert.deepEqual(stored, []);
});

test("nobody is told that something is stored before it is, neither who pushed it nor who flushes", async () => {
  const order: string[] = [];
  let release = (): void => {};
  const groups = new GroupCommit({ commitDelayMs: 60_000, commitRecords: 10 }, async () => {
    order.push("commit");
    await new Promise<void>((resolve) => (release = resolve));
    order.push("stored");
  });
  const pushed = groups.push(append(1)).then(() => order.push("pushed"));
  const flushed = groups.flush().then(() => order.push("flushed"));
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(order, ["commit"]);
  release();
  await Promise.all([pushed, flushed]);
  assert.deepEqual(order.slice(0, 2), ["commit", "stored"]);
});
