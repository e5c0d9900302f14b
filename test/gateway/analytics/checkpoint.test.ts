import assert from "node:assert/strict";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { AnalyticsStateError, type Checkpoint } from "../../../gateway/analytics/checkpoint.ts";
import { CheckpointFile } from "../../../gateway/analytics/checkpoint-place.ts";
import { inHex } from "../../../runtime/checked-line.ts";
import { crc32c } from "../../../runtime/crc32c.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const writeCheckpoint = (file: string, checkpoint: Checkpoint): Promise<void> =>
  new CheckpointFile(file, "s").write(checkpoint);

async function readCheckpoint(file: string): Promise<Checkpoint | undefined> {
  const kept = await new CheckpointFile(file, "s").read();
  return kept?.checkpoint;
}

async function inFolder(body: (file: string) => Promise<void>): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-checkpoint-"));
  try {
    await body(join(dir, "checkpoint"));
  } finally {
    await removeFolder(dir);
  }
}

function checkpointOf(groups: number): Checkpoint {
  return {
    planHash: "plan",
    streamId: "stream",
    positions: new Map([
      ["shardId-000000000000", 7],
      ["shardId-000000000001", 0],
    ]),
    watermarkMs: undefined,
    maxTimes: new Map([["shardId-000000000000", -5]]),
    arrivals: new Map([["shardId-000000000000", 7]]),
    groups: Array.from({ length: groups }, (_, i) => ({
      key: [`k"${i}`, i % 3 === 0 ? null : i],
      paneMs: i * 1_000,
      rows: i,
      measures: [
        { count: i, sum: BigInt(i) * 10n ** 20n, lost: 0, min: i - 5, max: i },
        { count: i, sum: Number.POSITIVE_INFINITY, lost: Number.NaN, min: 0.1, max: 1e300 },
      ],
    })),
    totals: { records: 1, late: 2, rejected: 3, results: 4, trimmed: 5, skipped: 6 },
    epoch: 2n ** 64n - 1n,
    nextSequence: 9n,
    pending: [Buffer.from("a frame"), Buffer.alloc(300_000, 1)],
  };
}

async function linesWithoutArrivals(
  file: string,
  checkpoint: Checkpoint,
): Promise<{ first: string; rest: string[] }> {
  await writeCheckpoint(file, checkpoint);
  const [, first, ...rest] = (await readFile(file, "utf8")).split("\n");
  const { arrivals, ...former } = JSON.parse(first!) as Record<string, unknown>;
  assert.deepEqual(arrivals, {});
  return { first: JSON.stringify(former), rest };
}

async function writeFormer(file: string, version: number, body: string): Promise<void> {
  await writeFile(file, `headwater-analytics ${version} ${inHex(crc32c(Buffer.from(body)))}\n${body}`);
}

test("what is written is read again, however many windows are open", () =>
  inFolder(async (file) => {
    for (const groups of [0, 1, 999, 1_000, 1_001, 5_000]) {
      const checkpoint = checkpointOf(groups);
      await writeCheckpoint(file, checkpoint);
      assert.deepEqual(await readCheckpoint(file), checkpoint);
    }
  }));

test("others have their turn while many windows and frames are written and read", () =>
  inFolder(async (file) => {
    const checkpoint = { ...checkpointOf(20_000), pending: Array<Buffer>(20).fill(Buffer.alloc(1_000)) };
    for (const work of [() => writeCheckpoint(file, checkpoint), () => readCheckpoint(file)]) {
      let turns = 0;
      let working = true;
      const watch = (): void => {
        turns++;
        if (working) setImmediate(watch);
      };
      setImmediate(watch);
      await work();
      working = false;
      assert.ok(turns >= 40, `${turns} turns of the event loop`);
    }
  }));

test("a file of version 2, which tells of no arrivals, is read", () =>
  inFolder(async (file) => {
    const checkpoint = { ...checkpointOf(3), arrivals: new Map() };
    const { first, rest } = await linesWithoutArrivals(file, checkpoint);
    await writeFormer(file, 2, [first, ...rest].join("\n"));
    assert.deepEqual(await readCheckpoint(file), checkpoint);
  }));

test("a file of version 1, which was one line, is read", () =>
  inFolder(async (file) => {
    const checkpoint = { ...checkpointOf(3), arrivals: new Map() };
    const { first, rest } = await linesWithoutArrivals(file, checkpoint);
    const [groups, ...pending] = rest.filter((line) => line !== "");
    await writeFormer(file, 1, `{"groups":${groups},"pending":[${pending.join()}],${first.slice(1)}`);
    assert.deepEqual(await readCheckpoint(file), checkpoint);
  }));

test("what has keys that a program of version 2 does not know says another version, or it would pass for damage", () =>
  inFolder(async (file) => {
    const known = ["planHash", "streamId", "positions", "watermarkMs", "maxTimes", "totals", "epoch"];
    await writeCheckpoint(file, checkpointOf(0));
    const [head, first] = (await readFile(file, "utf8")).split("\n");
    const keys = Object.keys(JSON.parse(first!) as object);
    const unknown = keys.filter((key) => ![...known, "nextSequence", "unread"].includes(key));
    assert.deepEqual([head!.split(" ")[1], unknown], ["3", ["arrivals"]]);
  }));

test("a bit that is another one, or an end that is missing, is noticed", () =>
  inFolder(async (file) => {
    await writeCheckpoint(file, { ...checkpointOf(3), pending: [] });
    const good = await readFile(file);
    for (let i = 0; i < good.length; i++) {
      const bad = Buffer.from(good);
      bad[i]! ^= 1;
      await writeFile(file, bad);
      await assert.rejects(readCheckpoint(file), AnalyticsStateError, `byte ${i}`);
      await writeFile(file, good.subarray(0, i));
      await assert.rejects(readCheckpoint(file), AnalyticsStateError, `cut at ${i}`);
    }
  }));
