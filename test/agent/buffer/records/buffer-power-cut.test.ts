import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import test from "node:test";
import { epochName } from "../../../../protocol/frame.ts";
import { GAPS_STREAM, type GapRecord } from "../../../../protocol/topics.ts";
import { pause } from "../../../../runtime/backoff.ts";
import { nodeFlags, scriptPath } from "../../../support/script.ts";
import { SmallDisk } from "../../../support/small-disk.ts";
import { openBuffer, readAll, texts } from "./buffer-fixture.ts";

const child = scriptPath("./append-until-killed.ts", import.meta.url);
const ROUNDS = 6;

interface Told {
  readonly stored: Set<number>;
  readonly removed: Set<number>;
  readonly forgotten: Set<string>;
}

/** Of each round, however long the disk takes for them: all rounds together prove something. */
const LEAST_RECORDS = 25;
/** Of the first round of `drop`: more than its small buffer holds, so that some of them went. */
const DROPPING_RECORDS = 500;

/** Lets a child append until the disk's power is cut at a random moment, or behind so many records. */
async function appendUntilCut(
  disk: SmallDisk,
  dir: string,
  from: number,
  told: Told,
  mode: "ack" | "drop" | "epochs",
  least = LEAST_RECORDS,
): Promise<void> {
  const running = spawn(process.execPath, [...nodeFlags, child, dir, String(from), mode], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const ended = once(running, "exit");
  let stored = 0;
  let enough = (): void => {};
  const isEnough = new Promise<void>((resolve) => {
    enough = resolve;
  });
  let cut: Promise<void> | undefined;
  for await (const line of createInterface({ input: running.stdout })) {
    if (line === "open") {
      const waitMs = 100 + Math.random() * 400;
      cut = Promise.all([pause(waitMs), isEnough]).then(() => disk.cutPower(running.pid));
      void cut.finally(() => running.kill("SIGKILL"));
    } else if (/^\d+$/.test(line)) {
      told.stored.add(Number(line));
      if (++stored === least) enough();
    } else if (/^-\d+$/.test(line)) told.removed.add(-Number(line));
    else if (line.startsWith("forgot ")) told.forgotten.add(line.slice(7));
  }
  enough();
  await ended;
  await cut;
}

for (const [what, mode] of [
  ["a power cut", "ack"],
  ["a power cut while epochs begin", "epochs"],
] as const) {
  test(`${what} loses no acknowledged record, doubles none, and brings no forgotten epoch back`, async (t) => {
    const disk = await SmallDisk.make(64 * 1_048_576);
    if (typeof disk === "string") return t.skip(disk);
    t.after(() => disk.remove());
    const dir = join(disk.path, "records");
    const told: Told = { stored: new Set(), removed: new Set(), forgotten: new Set() };
    for (let round = 0; round < ROUNDS; round++) {
      await appendUntilCut(disk, dir, round * 1_000_000, told, mode);
      await disk.unmount();
      await disk.mount();
      // What one cut left is sometimes opened by an agent that meets the next.
      if (round % 3 === 1) continue;
      const buffer = await openBuffer(dir, { partBytes: 16_384 });
      const frames = await readAll(buffer);
      assert.deepEqual(texts(frames, GAPS_STREAM), [], `round ${round}: damage is told where none is`);
      const found = texts(frames).map(Number);
      const unique = new Set(found);
      assert.equal(found.length, unique.size, "a record is doubled");
      for (const n of told.stored) {
        if (!told.removed.has(n)) assert.ok(unique.has(n), `record ${n} is lost in round ${round}`);
      }
      for (const { epoch } of frames)
        assert.ok(!told.forgotten.has(epochName(epoch)), "a forgotten epoch is back");
      await buffer.close();
    }
    assert.ok(told.stored.size > 100, `${told.stored.size} records`);
  });
}

test("a power cut while the oldest are dropped loses no record that is not told of, and doubles none", async (t) => {
  const disk = await SmallDisk.make(64 * 1_048_576);
  if (typeof disk === "string") return t.skip(disk);
  t.after(() => disk.remove());
  const dir = join(disk.path, "records");
  const told: Told = { stored: new Set(), removed: new Set(), forgotten: new Set() };
  let dropped = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const least = round === 0 ? DROPPING_RECORDS : LEAST_RECORDS;
    await appendUntilCut(disk, dir, round * 1_000_000, told, "drop", least);
    await disk.unmount();
    await disk.mount();
    if (round % 3 === 1) continue;
    // Large enough to drop nothing itself.
    const buffer = await openBuffer(dir, { partBytes: 16_384 });
    const frames = await readAll(buffer);
    await buffer.close();
    const gaps = texts(frames, GAPS_STREAM).map((text) => JSON.parse(text) as GapRecord);
    for (const { stream, reason } of gaps) {
      assert.match(reason, /^buffer full/, `round ${round}: damage is told where none is`);
      assert.match(stream, /^(sensors|alarms)$/);
    }
    for (const stream of ["sensors", "alarms"]) {
      const found = texts(frames, stream).map(Number);
      const unique = new Set(found);
      assert.equal(found.length, unique.size, `round ${round}: a record of ${stream} is doubled`);
      const mine = [...told.stored].filter((n) => (n % 4 === 0) === (stream === "alarms"));
      const missing = mine.filter((n) => !unique.has(n)).length;
      const records = gaps.reduce((sum, gap) => sum + (gap.stream === stream ? (gap.records ?? 0) : 0), 0);
      // What a cut kept from going after it was told, or from being acknowledged, is told without being lost.
      assert.ok(missing <= records, `round ${round}: ${missing} of ${stream} are gone, ${records} are told`);
      dropped += missing;
    }
  }
  assert.ok(dropped > 0, "nothing was dropped");
});
