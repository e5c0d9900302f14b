/** Any one file of the buffer is damaged in any way: what is lost is told, by number; the rest goes on. */
import assert from "node:assert/strict";
import { cp, mkdir, open, readdir, readFile, rm, truncate } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { parsePartName } from "../../../../agent/buffer/records/chain-part.ts";
import type { Frame } from "../../../../protocol/frame.ts";
import { GAPS_STREAM, type GapRecord } from "../../../../protocol/topics.ts";
import { Metrics } from "../../../../runtime/metrics.ts";
import { eventually } from "../../../support/program.ts";
import { killedBuffer, openBuffer, readAll, record, temporaryFolder, texts } from "./buffer-fixture.ts";

const RECORDS = 100;

async function filesOf(dir: string): Promise<string[]> {
  const names = await readdir(dir, { recursive: true, withFileTypes: true });
  const files = names.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  // LOG is LevelDB's diary and LOCK is empty: nothing is ever read from them.
  return files.filter((file) => !/\/(LOG|LOG\.old|LOCK)$|\/lock\//.test(file)).sort();
}

const DAMAGES: Readonly<Record<string, (file: string) => Promise<void>>> = {
  cut: async (file) => truncate(file, Math.floor((await readFile(file)).length / 2)),
  "cut by a byte": async (file) => truncate(file, (await readFile(file)).length - 1),
  flipped: async (file) => {
    const bytes = await readFile(file);
    const at = Math.floor(bytes.length / 2);
    for (let i = at; i < Math.min(bytes.length, at + 64); i++) bytes[i]! ^= 0x55;
    const handle = await open(file, "r+");
    await handle.write(bytes);
    await handle.close();
  },
  emptied: (file) => truncate(file, 0),
  missing: (file) => rm(file),
};

function gapsIn(frames: Frame[]): GapRecord[] {
  return texts(frames, GAPS_STREAM).map((text) => JSON.parse(text) as GapRecord);
}

interface Outcome {
  readonly numbers: number[];
  readonly gaps: GapRecord[];
}

/** Opens, appends, reads all that is there, and closes. */
async function useOnce(dir: string, text: string): Promise<Outcome> {
  const metrics = new Metrics();
  const buffer = await openBuffer(dir, { partBytes: 8_192, metrics });
  await buffer.append([record(text)]);
  let frames = await readAll(buffer);
  // Damage that the reading found is itself told by a record.
  frames = await readAll(buffer);
  const waiting = frames.reduce((sum, frame) => sum + frame.recordCount, 0);
  assert.equal(buffer.usage().waitingRecords, waiting, "what waits is what can be read");
  const last = frames.findLast((frame) => frame.stream === "sensors")!;
  assert.equal(texts([last]).at(-1), text);
  const starts = frames.map((frame) => frame.epochStart);
  assert.deepEqual(
    starts,
    [...starts].sort((a, b) => a - b),
  );
  await buffer.close();
  const numbers = texts(frames, "sensors").map(Number);
  return { numbers, gaps: gapsIn(frames) };
}

async function checkDamage(dir: string, what: string): Promise<number> {
  const { numbers, gaps } = await useOnce(dir, "1000");
  const kept = numbers.slice(0, -1);
  assert.deepEqual(
    kept,
    [...new Set(kept)].sort((a, b) => a - b),
    `${what}: order and no doubles`,
  );
  const lost = RECORDS - kept.length;
  const told = gaps.reduce((sum, gap) => sum + (gap.records ?? 0), 0);
  assert.equal(told, lost, `${what}: ${lost} of ${RECORDS} are gone; told: ${JSON.stringify(gaps)}`);
  assert.ok(gaps.length > 0, `${what}: nothing is told`);
  assert.ok(gaps.every((gap) => gap.reason.startsWith("buffer damaged")));
  assert.ok((await readdir(dir)).some((name) => name.startsWith("damaged-")));
  const again = await useOnce(dir, "1001");
  assert.deepEqual(again.numbers, [...kept, 1000, 1001], `${what}: at the next open`);
  assert.equal(again.gaps.length, gaps.length, `${what}: told again: ${JSON.stringify(again.gaps)}`);
  return lost;
}

/** What only LevelDB itself and the sidecar need costs no mark. */
async function checkMarks(dir: string, what: string): Promise<void> {
  const copy = `${dir}-marks`;
  await cp(dir, copy, { recursive: true });
  const buffer = await openBuffer(copy);
  for (let source = 0; source < 7; source++) {
    const last = RECORDS - 1 - ((RECORDS - 1 - source) % 7);
    const mark = await buffer.mark(`source-${source}`);
    assert.equal(mark && Buffer.from(mark).toString(), String(last), `${what}: mark ${source}`);
  }
  await buffer.close();
  await rm(copy, { recursive: true });
}

for (const state of ["killed", "closed"] as const) {
  test(`each file of a ${state} buffer, damaged in each way`, async (t) => {
    const root = await temporaryFolder(t);
    const good = join(root, "good");
    await killedBuffer(good, RECORDS);
    if (state === "closed") await (await openBuffer(good, { partBytes: 8_192 })).close();
    const all = (await filesOf(good)).map((file) => file.slice(good.length + 1));
    assert.ok(all.length > 15, `${all.length} files`);
    const parts = (await readdir(join(good, "chain"))).sort();
    // The part that was made for later holds nothing that could be lost.
    const chosen = state === "killed" ? [parts[1]!, parts.at(-2)!] : [parts[0]!];
    const files = all.filter(
      (file) => !file.startsWith("chain/") || chosen.some((part) => file.includes(part)),
    );
    let cases = 0;
    for (const file of files) {
      for (const [how, damage] of Object.entries(DAMAGES)) {
        // One slot of two is left whole: nothing is lost by it, and nothing is told.
        if (file === "ends" && (how === "cut" || how.startsWith("cut by") || how === "flipped")) continue;
        const dir = join(root, "damaged");
        await cp(good, dir, { recursive: true });
        await damage(join(dir, file));
        const what = `${state}, ${file} ${how}`;
        if (!file.endsWith(".log")) await checkMarks(dir, what);
        const lost = await checkDamage(dir, what);
        const records = file.includes("chain") && file.endsWith(".log") ? RECORDS : 0;
        assert.ok(lost <= records, `${what}: ${lost} records lost`);
        await rm(dir, { recursive: true });
        cases++;
      }
    }
    assert.ok(cases > 30, `${cases} cases`);
  });
}

test("marks that the last sealed part brought are missed, also if nothing was stored behind it", async (t) => {
  const dir = join(await temporaryFolder(t), "records");
  const buffer = await openBuffer(`${dir}-live`, { partBytes: 8_192 });
  const mark = { source: "source-0", value: Buffer.from("1") };
  // So much at once that the part is sealed behind it.
  await buffer.append([{ ...record("1".padEnd(20_000)), mark }]);
  await eventually("it is sealed", 60_000, async () => {
    const names = await readdir(join(`${dir}-live`, "chain"));
    return names.some((name) => parsePartName(name)?.sealed) || undefined;
  });
  await cp(`${dir}-live`, dir, { recursive: true });
  await buffer.close();
  const [log] = (await filesOf(join(dir, "marks"))).filter((file) => file.endsWith(".log"));
  await DAMAGES["cut by a byte"]!(log!);
  const after = await openBuffer(dir);
  const told = gapsIn(await readAll(after));
  await after.close();
  assert.equal(told.length, 1, "nothing is told");
  assert.match(told[0]!.reason, /^buffer damaged: .*: marks that sources had stored are gone/);
});

test("64 bad bytes in a log cost the groups that they touch, not more", async (t) => {
  const dir = join(await temporaryFolder(t), "records");
  await killedBuffer(dir, RECORDS);
  const log = (await filesOf(dir)).find((file) => file.includes("/chain/") && file.endsWith(".log"))!;
  const bytes = await readFile(log);
  bytes.fill(0x55, 2_000, 2_064);
  const handle = await open(log, "r+");
  await handle.write(bytes);
  await handle.close();
  const lost = await checkDamage(dir, "64 bytes");
  assert.ok(lost === 1 || lost === 2, `${lost} lost`);
});

test("a whole part that is gone is told by its number of records, once", async (t) => {
  for (const which of [0, 3, -2]) {
    const dir = join(await temporaryFolder(t), "records");
    await killedBuffer(dir, RECORDS);
    const parts = (await readdir(join(dir, "chain"))).sort();
    await rm(join(dir, "chain", parts.at(which)!), { recursive: true });
    const lost = await checkDamage(dir, `part ${which}`);
    assert.ok(lost > 0 && lost < 30, `${lost} lost`);
  }
});

test("a buffer of which nothing but the sidecar is left starts a later epoch", async (t) => {
  const dir = join(await temporaryFolder(t), "records");
  await killedBuffer(dir, RECORDS);
  await rm(join(dir, "chain"), { recursive: true });
  const buffer = await openBuffer(dir);
  const frames = await readAll(buffer);
  assert.equal(frames.at(-1)!.epochStart, 2);
  assert.equal(gapsIn(frames)[0]!.records, RECORDS);
  assert.equal((await buffer.drainedEpochs()).length, 1);
  await buffer.close();
});

test("damage is told of also where the damaged part cannot be kept", async (t) => {
  const dir = join(await temporaryFolder(t), "records");
  const before = await openBuffer(dir, { partBytes: 8_192 });
  for (let i = 0; i < RECORDS; i++) await before.append([record(String(i).padEnd(400))]);
  await before.close();
  // A full disk is one reason. Here the name is taken: the number behind this one is the same number.
  await mkdir(join(dir, "damaged-100000000000000000000", "taken"), { recursive: true });
  const log = (await filesOf(dir)).filter((file) => file.includes("/chain/") && file.endsWith(".log"))[1]!;
  await DAMAGES.flipped!(log);
  const buffer = await openBuffer(dir, { partBytes: 8_192 });
  const frames = [...(await readAll(buffer)), ...(await readAll(buffer))];
  const kept = new Set(texts(frames, "sensors"));
  const [gap] = gapsIn(frames);
  assert.equal(gap?.records, RECORDS - kept.size);
  assert.ok(kept.size < RECORDS);
  await buffer.close();
});
