import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import test from "node:test";
import { openDatabase } from "../../../../agent/buffer/level/leveldb.ts";
import { partName } from "../../../../agent/buffer/records/chain-part.ts";
import { BufferLockedError } from "../../../../agent/buffer/records/record-folder.ts";
import { ForeignBufferError } from "../../../../agent/buffer/records/sidecar.ts";
import type { Frame } from "../../../../protocol/frame.ts";
import { GAPS_STREAM, type GapRecord } from "../../../../protocol/topics.ts";
import { eventually } from "../../../support/program.ts";
import { nodeFlags, scriptPath } from "../../../support/script.ts";
import {
  killedBuffer,
  openBuffer,
  readAll,
  record,
  settled,
  temporaryFolder,
  texts,
} from "./buffer-fixture.ts";

const child = scriptPath("./append-until-killed.ts", import.meta.url);

interface Told {
  /** Numbers of records that are stored. */
  readonly stored: number[];
  /** Of these, what was about to be removed. */
  readonly removed: number[];
}

/** Lets a child append until it is killed at a random moment. */
async function appendAndKill(dir: string, from: number, mode = ""): Promise<Told> {
  const running = spawn(process.execPath, [...nodeFlags, child, dir, String(from), mode], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const told: Told = { stored: [], removed: [] };
  let timer: NodeJS.Timeout | undefined;
  for await (const line of createInterface({ input: running.stdout })) {
    if (line === "open") timer = setTimeout(() => running.kill("SIGKILL"), 50 + Math.random() * 300);
    else if (/^\d+$/.test(line)) told.stored.push(Number(line));
    else if (/^-\d+$/.test(line)) told.removed.push(-Number(line));
  }
  clearTimeout(timer);
  if (running.exitCode === null && running.signalCode === null) await once(running, "exit");
  // The last line may be cut off; a shorter number is no acknowledgement of its own.
  told.stored.pop();
  return told;
}

function gaps(frames: Frame[]): GapRecord[] {
  return texts(frames, GAPS_STREAM).map((text) => JSON.parse(text) as GapRecord);
}

test("after SIGKILL every acknowledged record is there exactly once, with its mark", async (t) => {
  const dir = await temporaryFolder(t);
  const expected = new Set<number>();
  let from = 0;
  for (let round = 0; round < 6; round++) {
    for (const n of (await appendAndKill(dir, from)).stored) expected.add(n);
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

for (const [what, mode] of [
  ["making, closing and removing parts", "ack"],
  ["beginning an epoch while another is written to", "epochs"],
] as const) {
  test(`a kill at any step of ${what} loses and doubles nothing`, async (t) => {
    const dir = await temporaryFolder(t);
    const expected = new Set<number>();
    const removed = new Set<number>();
    let from = 0;
    for (let round = 0; round < 8; round++) {
      // Two in a row: what a kill leaves is opened by one that is killed itself.
      for (let kills = 0; kills < 2; kills++) {
        const told = await appendAndKill(dir, from, mode);
        for (const n of told.stored) expected.add(n);
        for (const n of told.removed) removed.add(n);
        from += 1_000_000;
      }
      const buffer = await openBuffer(dir, { partBytes: 16_384 });
      const frames = await readAll(buffer);
      assert.deepEqual(gaps(frames), [], `round ${round}`);
      const found = texts(frames).map(Number);
      const unique = new Set(found);
      assert.equal(found.length, unique.size, "a record is doubled");
      for (const n of expected) {
        if (!removed.has(n)) assert.ok(unique.has(n), `record ${n} is lost in round ${round}`);
      }
      assert.equal(buffer.usage().waitingRecords, found.length);
      await buffer.close();
    }
  });
}

async function storedNumbers(dir: string): Promise<{ numbers: number[]; gaps: GapRecord[] }> {
  const buffer = await openBuffer(dir, { partBytes: 8_192 });
  const frames = await readAll(buffer);
  const numbers = texts(frames, "sensors").map(Number);
  assert.equal(
    buffer.usage().waitingRecords,
    frames.reduce((sum, frame) => sum + frame.recordCount, 0),
  );
  await buffer.close();
  return { numbers, gaps: gaps(frames) };
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

for (const [what, change] of [
  ["the next part was made and not used", async (dir: string) => void (await emptyPart(dir, 900))],
  ["the next part was being made", async (dir: string) => mkdir(join(dir, "chain", partName(900)))],
  [
    "several parts were not yet named",
    async (dir: string) => {
      for (const name of await readdir(join(dir, "chain"))) {
        await rename(join(dir, "chain", name), join(dir, "chain", name.split(".")[0]!));
      }
    },
  ],
] as const) {
  test(`a crash when ${what} costs nothing and is no damage`, async (t) => {
    const dir = join(await temporaryFolder(t), "records");
    await killedBuffer(dir, 100);
    await change(dir);
    assert.deepEqual(await storedNumbers(dir), { numbers: upTo(100), gaps: [] });
    // And the same again from what that open made of it.
    assert.deepEqual(await storedNumbers(dir), { numbers: upTo(100), gaps: [] });
  });
}

async function emptyPart(dir: string, number: number): Promise<void> {
  const database = await openDatabase(join(dir, "chain", partName(number)), true);
  await database.close();
}

test("a part that was being removed is no damage and sends nothing again", async (t) => {
  const dir = join(await temporaryFolder(t), "records");
  const live = `${dir}-live`;
  const buffer = await openBuffer(live, { partBytes: 8_192 });
  for (let i = 0; i < 100; i++) await buffer.append([record(String(i).padEnd(400))]);
  await settled(buffer, live);
  await cp(join(live, "chain"), join(dir, "chain"), { recursive: true });
  const frames = await readAll(buffer);
  const half = frames[60]!;
  await buffer.ack(half.epoch, half.sequence);
  for (const name of ["sidecar", "ends", "marks"]) {
    await cp(join(live, name), join(dir, name), { recursive: true });
  }
  await buffer.close();
  const [oldest] = (await readdir(join(dir, "chain"))).sort();
  await rm(join(dir, "chain", oldest!, "CURRENT"));
  for (const name of await readdir(join(dir, "chain", oldest!))) {
    if (name.endsWith(".log")) await rm(join(dir, "chain", oldest!, name));
  }
  assert.deepEqual(await storedNumbers(dir), { numbers: upTo(100).slice(61), gaps: [] });
});

test("parts of more epochs than the file of ends has room for are removed, and are no damage after a kill", async (t) => {
  const dir = join(await temporaryFolder(t), "records");
  const live = `${dir}-live`;
  const buffer = await openBuffer(live);
  for (let i = 0; i < 30; i++) {
    await buffer.append([record(String(i))]);
    await buffer.beginEpoch();
  }
  for (const { epoch, sequence } of (await readAll(buffer)).slice(0, 25)) await buffer.ack(epoch, sequence);
  await eventually("the parts of what was acknowledged go", 60_000, async () => {
    return (await readdir(join(live, "chain"))).length <= 7 || undefined;
  });
  await cp(live, dir, { recursive: true });
  await buffer.close();
  assert.deepEqual(await storedNumbers(dir), { numbers: upTo(30).slice(25), gaps: [] });
});

test("a crash when a part was written again and the whole one not yet removed brings nothing back", async (t) => {
  const dir = join(await temporaryFolder(t), "records");
  const options = {
    partBytes: 8_192,
    maxBytes: 60_000,
    whenFull: "drop-oldest",
    priorities: { alarms: 1 },
  } as const;
  const stream = (i: number): string => (i % 5 === 0 ? "alarms" : "sensors");
  let buffer = await openBuffer(dir, options);
  for (let i = 0; i < 100; i++) await buffer.append([record(String(i).padEnd(400), "k", stream(i))]);
  await settled(buffer, dir);
  await cp(join(dir, "chain"), join(dir, "whole"), { recursive: true });
  const thinnedNow = async (): Promise<string[]> =>
    (await readdir(join(dir, "chain"))).filter((name) => name.endsWith(".holes"));
  // They are written again as more comes, and a slow disk is behind.
  for (let i = 100; i < 160 || (i < 1_000 && (await thinnedNow()).length <= 2); i++)
    await buffer.append([record(String(i).padEnd(400), "k", stream(i))]);
  const kept = texts(await readAll(buffer));
  await buffer.close();
  const thinned = await thinnedNow();
  assert.ok(thinned.length > 2, `${thinned.length} parts were written again`);
  for (const name of await readdir(join(dir, "whole"))) {
    const isThinned = thinned.some((other) => other.split(".")[0] === name.split(".")[0]);
    if (isThinned && !thinned.includes(name))
      await rename(join(dir, "whole", name), join(dir, "chain", name));
  }
  await mkdir(join(dir, "chain", "making"));
  await rm(join(dir, "whole"), { recursive: true });
  for (let again = 0; again < 2; again++) {
    buffer = await openBuffer(dir, options);
    assert.deepEqual(texts(await readAll(buffer)), kept);
    await buffer.close();
  }
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
