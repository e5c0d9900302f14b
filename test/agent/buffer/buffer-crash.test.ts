import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, open, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import test from "node:test";
import { findLogDamage } from "../../../agent/buffer/leveldb-log.ts";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { BufferLockedError } from "../../../agent/buffer/record-folder.ts";
import { ForeignBufferError } from "../../../agent/buffer/sidecar.ts";
import type { Frame } from "../../../protocol/frame.ts";
import { GAPS_STREAM, type GapRecord } from "../../../protocol/topics.ts";
import { nodeFlags, scriptPath } from "../../support/script.ts";
import { openBuffer, readAll, record, temporaryFolder, texts } from "./buffer-fixture.ts";

const child = scriptPath("./append-until-killed.ts", import.meta.url);

/** Lets a child append until it is killed at a random moment. @returns what it was told is stored */
async function appendAndKill(dir: string, from: number): Promise<number[]> {
  const running = spawn(process.execPath, [...nodeFlags, child, dir, String(from)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const acknowledged: number[] = [];
  let timer: NodeJS.Timeout | undefined;
  for await (const line of createInterface({ input: running.stdout })) {
    if (line === "open") timer = setTimeout(() => running.kill("SIGKILL"), 100 + Math.random() * 400);
    else if (/^\d+$/.test(line)) acknowledged.push(Number(line));
  }
  clearTimeout(timer);
  if (running.exitCode === null && running.signalCode === null) await once(running, "exit");
  // The last line may be cut off; a shorter number is no acknowledgement of its own.
  acknowledged.pop();
  return acknowledged;
}

function gaps(frames: Frame[]): GapRecord[] {
  return texts(frames, GAPS_STREAM).map((text) => JSON.parse(text) as GapRecord);
}

test("after SIGKILL every acknowledged record is there exactly once, with its mark", async (t) => {
  const dir = await temporaryFolder(t);
  const expected = new Set<number>();
  let from = 0;
  for (let round = 0; round < 6; round++) {
    for (const n of await appendAndKill(dir, from)) expected.add(n);
    const buffer = await openBuffer(dir);
    const frames = await readAll(buffer);
    const found = texts(frames).map(Number);
    const unique = new Set(found);
    assert.equal(found.length, unique.size, "a record is doubled");
    for (const n of expected) assert.ok(unique.has(n), `record ${n} is lost in round ${round}`);
    assert.deepEqual(gaps(frames), []);
    for (let writer = 0; writer < 12; writer++) {
      const mine = frames.flatMap((frame) =>
        texts([{ ...frame, runs: frame.runs.filter((run) => run.key === `pi-1/${writer}`) }]).map(Number),
      );
      assert.deepEqual(
        mine,
        [...mine].sort((a, b) => a - b),
      );
      const mark = await buffer.mark(`pi-1/${writer}`);
      if (mine.length > 0) assert.equal(Number(Buffer.from(mark!).toString()), mine.at(-1));
    }
    const middle = frames[Math.floor(frames.length / 2)]!;
    for (const frame of frames) {
      if (frame.epochStart > middle.epochStart) break;
      if (frame.epoch === middle.epoch && frame.sequence > middle.sequence) break;
      for (const text of texts([frame])) expected.delete(Number(text));
      await buffer.ack(frame.epoch, frame.sequence);
    }
    from = Math.max(from, ...found) + 1;
    await buffer.close();
  }
});

/** A buffer of an unclean end: its files as a kill leaves them, the log not yet turned into tables. */
async function crashedBuffer(dir: string, records: number): Promise<void> {
  const live = `${dir}-live`;
  const buffer = await openBuffer(live);
  for (let i = 0; i < records; i++) await buffer.append([record(String(i).padEnd(200))]);
  await copyBuffer(live, dir);
  await buffer.close();
  await rm(live, { recursive: true });
}

async function copyBuffer(from: string, to: string): Promise<void> {
  await mkdir(join(to, "db"), { recursive: true });
  await copyFile(join(from, "sidecar"), join(to, "sidecar"));
  for (const name of await readdir(join(from, "db"))) {
    if (name !== "LOCK") await copyFile(join(from, "db", name), join(to, "db", name));
  }
}

async function fileOf(dir: string, pattern: RegExp): Promise<string> {
  const names = (await readdir(join(dir, "db"))).filter((name) => pattern.test(name)).sort();
  return join(dir, "db", names.at(-1)!);
}

async function reopened(dir: string): Promise<{ buffer: RecordBuffer; frames: Frame[]; kept: string[] }> {
  const buffer = await openBuffer(dir);
  // The report of what is lost is itself a record.
  await buffer.append([record("after")]);
  const frames = await readAll(buffer);
  return { buffer, frames, kept: (await readdir(dir)).filter((name) => name.startsWith("damaged-")) };
}

test("flipped bytes in LevelDB's log are noticed, the rest is kept, and the gap is reported", async (t) => {
  const dir = join(await temporaryFolder(t), "records");
  await crashedBuffer(dir, 400);
  const file = await open(await fileOf(dir, /\.log$/), "r+");
  await file.write(Buffer.alloc(64, 0x55), 0, 64, 40_000);
  await file.close();
  const { buffer, frames, kept } = await reopened(dir);
  const found = texts(frames, "sensors");
  assert.ok(found.length < 401 && found.length > 200, `${found.length} records`);
  assert.equal(found.at(-1), "after");
  assert.ok(gaps(frames).length >= 1);
  assert.deepEqual(kept, ["damaged-1"]);
  for (const frame of frames) await buffer.ack(frame.epoch, frame.sequence);
  assert.equal(buffer.usage().waitingRecords, 0);
  await buffer.close();
  const again = await openBuffer(dir);
  assert.deepEqual(await readAll(again), []);
  await again.close();
});

for (const [what, damage] of [
  ["a missing CURRENT", async (dir: string) => rm(join(dir, "db", "CURRENT"))],
  ["an empty CURRENT", async (dir: string) => truncate(join(dir, "db", "CURRENT"), 0)],
  ["a truncated MANIFEST", async (dir: string) => truncate(await fileOf(dir, /^MANIFEST/), 60)],
  ["an empty MANIFEST", async (dir: string) => truncate(await fileOf(dir, /^MANIFEST/), 0)],
] as const) {
  test(`${what} costs no record`, async (t) => {
    const dir = join(await temporaryFolder(t), "records");
    const first = await openBuffer(dir);
    for (let i = 0; i < 100; i++) await first.append([record(String(i))]);
    await first.close();
    // Once more, so that the records are in a table and the MANIFEST has more than one entry.
    await (await openBuffer(dir)).close();
    await damage(dir);
    const { buffer, frames, kept } = await reopened(dir);
    assert.deepEqual(texts(frames, "sensors"), [
      ...Array.from({ length: 100 }, (_, i) => String(i)),
      "after",
    ]);
    assert.ok(gaps(frames).some((gap) => gap.reason.startsWith("buffer damaged")));
    assert.deepEqual(kept, ["damaged-1"]);
    const starts = frames.map((frame) => frame.epochStart);
    assert.ok(starts.at(-1)! > starts[0]!);
    await buffer.close();
    const again = await openBuffer(dir);
    assert.equal((await readAll(again)).length, frames.length);
    await again.close();
  });
}

test("a database that is gone altogether is noticed, and no epoch start is used twice", async (t) => {
  const dir = join(await temporaryFolder(t), "records");
  const first = await openBuffer(dir);
  for (let i = 0; i < 10; i++) await first.append([record(String(i))]);
  const [frame] = await first.read(undefined, 1);
  await first.close();
  await rm(join(dir, "db"), { recursive: true });
  const { buffer, frames } = await reopened(dir);
  assert.equal(frames.at(-1)!.epochStart, frame!.epochStart + 1);
  assert.ok(gaps(frames)[0]!.reason.includes("lacks frames 1 to 10"), gaps(frames)[0]?.reason);
  assert.deepEqual(await buffer.drainedEpochs(), [frame!.epoch]);
  await buffer.close();
});

test("a table that cannot be read is rebuilt at the next open", async (t) => {
  const dir = join(await temporaryFolder(t), "records");
  const { randomBytes } = await import("node:crypto");
  const first = await openBuffer(dir);
  for (let i = 0; i < 60; i++) await first.append([{ ...record("x"), payload: randomBytes(10_000) }]);
  await first.close();
  await (await openBuffer(dir)).close();
  const table = await readFile(await fileOf(dir, /\.ldb$/));
  table.fill(0xaa, table.length - 600, table.length - 100);
  await writeFile(await fileOf(dir, /\.ldb$/), table);
  let frames: Frame[] = [];
  for (let attempt = 0; attempt < 3 && frames.length === 0; attempt++) {
    const buffer = await openBuffer(dir);
    frames = await buffer
      .append([record("after")])
      .then(() => readAll(buffer))
      .catch(() => []);
    await buffer.close();
  }
  assert.equal(texts(frames, "sensors").at(-1), "after");
  assert.ok(gaps(frames).length > 0);
});

test("a crash while a damaged buffer was being rebuilt begins again from the old state", async (t) => {
  const dir = join(await temporaryFolder(t), "records");
  const first = await openBuffer(dir);
  for (let i = 0; i < 10; i++) await first.append([record(String(i))]);
  await first.close();
  await mkdir(join(dir, "before"));
  for (const name of await readdir(join(dir, "db"))) {
    if (name !== "LOCK") await copyFile(join(dir, "db", name), join(dir, "before", name));
  }
  await rm(join(dir, "db"), { recursive: true });
  const again = await openBuffer(dir);
  assert.equal(texts(await readAll(again)).length, 10);
  await again.close();
});

test("a folder that another buffer holds, or another device's, is refused", async (t) => {
  const dir = join(await temporaryFolder(t), "records");
  const first = await openBuffer(dir);
  await assert.rejects(openBuffer(dir), BufferLockedError);
  await first.append([record("still works")]);
  await first.close();
  await assert.rejects(openBuffer(dir, { device: "pi-2" }), ForeignBufferError);
  const again = await openBuffer(dir);
  assert.deepEqual(texts(await readAll(again)), ["still works"]);
  await again.close();
});

test("a log's torn tail is no damage; a changed byte is", async (t) => {
  const dir = join(await temporaryFolder(t), "records");
  await crashedBuffer(dir, 300);
  const log = await readFile(await fileOf(dir, /\.log$/));
  assert.ok(log.length > 70_000);
  assert.equal(findLogDamage(log), undefined);
  for (const length of [0, 3, 6, 7, 100, 32_760, 32_768, 32_770, 50_001]) {
    assert.equal(findLogDamage(log.subarray(0, length)), undefined, `cut at ${length}`);
  }
  assert.equal(findLogDamage(Buffer.concat([log, Buffer.alloc(1_000)])), undefined);
  for (const at of [0, 5, 6, 100, 33_000, log.length - 5]) {
    const changed = Buffer.from(log);
    changed[at]! ^= 0x40;
    assert.notEqual(findLogDamage(changed), undefined, `byte ${at}`);
  }
});
