import assert from "node:assert/strict";
import { execFile, fork } from "node:child_process";
import { once } from "node:events";
import { watch } from "node:fs";
import { mkdtemp, readdir, readFile, rm, stat, truncate, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { promisify } from "node:util";
import { Level } from "level";
import { FootageLockedError } from "../../../../agent/buffer/footage/footage-folder.ts";
import { FootageVersionError } from "../../../../agent/buffer/footage/footage-sidecar.ts";
import { openLevelFootageBuffer } from "../../../../agent/buffer/footage/level-footage-buffer.ts";
import type { FootageBuffer, FootageGap, UnitPlace } from "../../../../agent/buffer/footage-buffer.ts";
import { BufferFullError } from "../../../../agent/buffer/record-buffer.ts";
import { epochName } from "../../../../protocol/frame.ts";
import { systemClock } from "../../../../runtime/clock.ts";
import { silentLog } from "../../../../runtime/log.ts";
import { Metrics } from "../../../../runtime/metrics.ts";
import { eventually } from "../../../support/program.ts";
import { removeFolder } from "../../../support/remove-folder.ts";
import { nodeFlags, scriptPath } from "../../../support/script.ts";
import { madeUnit } from "./made-unit.ts";

async function folder(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "hw-footage-"));
  t.after(() => removeFolder(dir));
  return dir;
}

function open(dir: string, gaps: FootageGap[] = [], maxBytes = 1 << 28): Promise<FootageBuffer> {
  const metrics = new Metrics();
  return openLevelFootageBuffer({
    dir,
    clock: systemClock,
    log: silentLog,
    metrics,
    maxBytes,
    onGap: (gap) => gaps.push(gap),
  });
}

async function sequences(buffer: FootageBuffer, camera: string): Promise<number[]> {
  const found: number[] = [];
  let after: UnitPlace | undefined;
  for (;;) {
    const unit = await buffer.read(camera, after);
    if (unit === undefined) return found;
    found.push(Number(unit.sequence));
    after = unit;
  }
}

/** Bytes of all files below. */
async function sizeOf(dir: string): Promise<number> {
  let bytes = 0;
  for (const file of await readdir(dir, { recursive: true })) {
    // Temporary files may go meanwhile.
    bytes += await stat(join(dir, file)).then(
      ({ size }) => size,
      () => 0,
    );
  }
  return bytes;
}

test("units come back in their order, byte for byte, until they are acknowledged", async (t) => {
  const dir = await folder(t);
  const buffer = await open(dir);
  const units = [1, 2, 3, 4].map((number) => madeUnit("yard", number, 5_000));
  for (const unit of units) await buffer.append(unit);
  await buffer.append(madeUnit("door", 9, 2_000));
  const first = await buffer.read("yard", undefined);
  assert.ok(first);
  assert.equal(first.sequence, 1n);
  assert.deepEqual(
    first.packets.map(({ rtp }) => Buffer.from(rtp)),
    units[0]!.packets.map(({ rtp }) => Buffer.from(rtp)),
  );
  assert.deepEqual((await buffer.cameras()).sort(), ["door", "yard"]);
  assert.equal(buffer.usage().waitingUnits, 5);
  assert.equal(buffer.usage().oldestUs, units[0]!.producerUs);
  await buffer.ack("yard", first.epoch, 2n, 3n);
  await buffer.ack("yard", first.epoch, 2n, 3n);
  assert.deepEqual(await sequences(buffer, "yard"), [1, 4]);
  await buffer.ack("yard", first.epoch, 1n, 99n);
  assert.deepEqual(await buffer.cameras(), ["door"]);
  await buffer.close();
});

test("units of an earlier start come first, and no place is given twice", async (t) => {
  const dir = await folder(t);
  const before = await open(dir);
  const place = await before.append(madeUnit("door", 8, 3_000));
  await before.append(madeUnit("yard", 1, 3_000));
  await before.ack("door", place.epoch, 1n, 1n);
  await before.close();
  const buffer = await open(dir);
  assert.equal(buffer.newestUs("door"), madeUnit("door", 8, 1).endUs);
  assert.equal(buffer.newestUs("roof"), undefined);
  await buffer.append(madeUnit("yard", 2, 3_000));
  const first = await buffer.read("yard", undefined);
  const second = await buffer.read("yard", first);
  assert.equal(first?.producerUs, madeUnit("yard", 1, 1).producerUs);
  assert.equal(second?.producerUs, madeUnit("yard", 2, 1).producerUs);
  assert.notEqual(first?.epoch, second?.epoch);
  // A place in an epoch that has drained meanwhile still tells what comes behind it.
  await buffer.ack("yard", first!.epoch, 1n, 1n);
  assert.equal((await buffer.read("yard", first))?.sequence, second?.sequence);
  await buffer.close();
});

test("whoever waits is woken by the unit, by the abort and by the close", async (t) => {
  const buffer = await open(await folder(t));
  const never = new AbortController();
  const woken = buffer.waiting("yard", undefined, never.signal);
  const other = buffer.waitingOther(new Set(["door"]), never.signal);
  const place = await buffer.append(madeUnit("yard", 1, 1_000));
  await woken;
  await other;
  const abort = new AbortController();
  const aborted = buffer.waiting("yard", place, abort.signal);
  abort.abort();
  await aborted;
  const closed = buffer.waiting("yard", place, never.signal);
  await buffer.close();
  await closed;
  await buffer.close();
});

test("a full buffer drops its oldest unit and reports the gap", async (t) => {
  const gaps: FootageGap[] = [];
  const buffer = await open(await folder(t), gaps, 25_000);
  for (const number of [1, 2, 3]) await buffer.append(madeUnit("yard", number, 10_000));
  assert.deepEqual(await sequences(buffer, "yard"), [2, 3]);
  const dropped = madeUnit("yard", 1, 1);
  assert.deepEqual(gaps, [
    {
      camera: "yard",
      fromUs: dropped.producerUs,
      toUs: dropped.endUs,
      reason: "the footage buffer was full",
    },
  ]);
  assert.equal(buffer.usage().droppedUnits, 1);
  await assert.rejects(buffer.append(madeUnit("yard", 4, 30_000)), BufferFullError);
  assert.deepEqual(await sequences(buffer, "yard"), [2, 3]);
  await buffer.close();
});

test("a buffer that was made smaller writes down once what it drops", async (t) => {
  const dir = await folder(t);
  const before = await open(dir);
  for (let number = 1; number <= 300; number++) await before.append(madeUnit("yard", number, 2_000));
  await before.close();
  const gaps: FootageGap[] = [];
  const buffer = await open(dir, gaps, 20_000);
  let writes = 0;
  const watcher = watch(dir, (_, name) => {
    if (name === "footage.json") writes++;
  });
  t.after(() => watcher.close());
  await buffer.append(madeUnit("yard", 301, 2_000));
  assert.ok(gaps.length > 250);
  assert.equal(buffer.usage().droppedUnits, gaps.length);
  const left = await sequences(buffer, "yard");
  assert.equal(left.length, 301 - gaps.length);
  await buffer.close();
  assert.ok(writes < 50, `${writes} times`);
  const after = await open(dir);
  t.after(() => after.close());
  assert.deepEqual(await sequences(after, "yard"), left);
});

test("what was made while the time is not known is newer than all before that start", async (t) => {
  const dir = await folder(t);
  const before = await open(dir);
  for (const number of [1, 2]) await before.append(madeUnit("yard", number, 20_000));
  await before.close();
  const gaps: FootageGap[] = [];
  const buffer = await open(dir, gaps, 60_000);
  const startUs = 200 * 86_400_000_000;
  const provisional = [1, 2].map((second) => {
    const producerUs = startUs + second * 1_000_000;
    return { ...madeUnit("door", second, 20_000), producerUs, endUs: producerUs + 960_000 };
  });
  for (const unit of provisional) await buffer.append(unit);
  assert.deepEqual(
    gaps.map(({ camera }) => camera),
    ["yard", "yard"],
  );
  assert.deepEqual(await sequences(buffer, "door"), [1, 2]);
  await buffer.append({ ...provisional[1]!, camera: "yard" });
  assert.equal(buffer.newestUs("yard"), provisional[1]!.endUs);
  await buffer.close();
  const after = await open(dir);
  t.after(() => after.close());
  assert.equal(after.newestUs("yard"), provisional[1]!.endUs);
});

test("a damaged unit is set aside and reported, and those behind it are read", async (t) => {
  const dir = await folder(t);
  const before = await open(dir);
  for (const number of [1, 2, 3]) await before.append(madeUnit("yard", number, 4_000));
  await before.close();
  const db = new Level<string, Buffer>(join(dir, "units"), { valueEncoding: "buffer" });
  const [key] = await db.keys({ gt: "u!", lt: "u~" }).all();
  const value = (await db.get(key!))!;
  value[2_000]! ^= 1;
  await db.put(key!, value);
  await db.close();
  const gaps: FootageGap[] = [];
  const buffer = await open(dir, gaps);
  assert.deepEqual(await sequences(buffer, "yard"), [2, 3]);
  assert.equal(gaps.length, 1);
  assert.equal(gaps[0]?.fromUs, madeUnit("yard", 1, 1).producerUs);
  await buffer.close();
});

test("acknowledged footage gives its disk space back", async (t) => {
  const dir = await folder(t);
  const buffer = await open(dir);
  let last: UnitPlace | undefined;
  for (let number = 1; number <= 20; number++)
    last = await buffer.append(madeUnit("yard", number, 1_000_000));
  // LevelDB may be putting files together: of those that were found some went before their size was asked for.
  await eventually("all is there", 60_000, async () => (await sizeOf(dir)) > 19_000_000 || undefined);
  await buffer.ack("yard", last!.epoch, 1n, last!.sequence);
  await buffer.close();
  assert.ok((await sizeOf(dir)) < 6_000_000, `${await sizeOf(dir)} bytes are left`);
});

test("a second process is refused and harms nothing", async (t) => {
  const dir = await folder(t);
  const buffer = await open(dir);
  await buffer.append(madeUnit("yard", 1, 1_000));
  await assert.rejects(open(dir), FootageLockedError);
  assert.deepEqual(await sequences(buffer, "yard"), [1]);
  await buffer.close();
});

test("a folder of another version is refused", async (t) => {
  const dir = await folder(t);
  await (await open(dir)).close();
  await writeFile(join(dir, "footage.json"), '{"version":3}');
  await assert.rejects(open(dir), FootageVersionError);
});

test("a lost MANIFEST is repaired and no unit is lost", async (t) => {
  const dir = await folder(t);
  const before = await open(dir);
  for (let number = 1; number <= 8; number++) await before.append(madeUnit("yard", number, 1_000_000));
  await before.close();
  // Opening once more moves the log's units into tables, which a wrong MANIFEST does not name.
  await (await open(dir)).close();
  for (const file of await readdir(join(dir, "units"))) {
    if (file.startsWith("MANIFEST")) await truncate(join(dir, "units", file), 60);
  }
  const gaps: FootageGap[] = [];
  const buffer = await open(dir, gaps);
  assert.deepEqual(await sequences(buffer, "yard"), [1, 2, 3, 4, 5, 6, 7, 8]);
  assert.deepEqual(gaps, []);
  await buffer.close();
});

test("a lost CURRENT is repaired and no unit is lost", async (t) => {
  const dir = await folder(t);
  const before = await open(dir);
  for (let number = 1; number <= 3; number++) await before.append(madeUnit("yard", number, 1_000_000));
  await before.close();
  await unlink(join(dir, "units", "CURRENT"));
  const buffer = await open(dir);
  assert.deepEqual(await sequences(buffer, "yard"), [1, 2, 3]);
  await buffer.close();
});

test("units that are gone without an error are reported as a gap", async (t) => {
  const dir = await folder(t);
  const before = await open(dir);
  for (let number = 1; number <= 5; number++) await before.append(madeUnit("yard", number, 20_000));
  await before.close();
  const files = await readdir(join(dir, "units"));
  const log = join(dir, "units", files.find((file) => file.endsWith(".log"))!);
  const bytes = await readFile(log);
  // Bad bytes in the first of LevelDB's 32 KiB blocks: it drops that batch in silence.
  bytes.fill(0xee, 1_000, 1_064);
  await writeFile(log, bytes);
  const gaps: FootageGap[] = [];
  const buffer = await open(dir, gaps);
  const left = await sequences(buffer, "yard");
  assert.ok(left.length < 5);
  // A repair keeps damaged units, which are found out when they are read: one gap each.
  const reported = gaps.reduce((sum, gap) => sum + Number(/^\d+/.exec(gap.reason)?.[0] ?? 1), 0);
  assert.equal(left.length + reported, 5);
  await buffer.append(madeUnit("yard", 6, 1_000));
  await buffer.close();
});

test("a folder beyond repair is kept aside, reported, and begun anew", async (t) => {
  const dir = await folder(t);
  const before = await open(dir);
  for (let number = 1; number <= 3; number++) await before.append(madeUnit("yard", number, 1_000));
  await before.close();
  await rm(join(dir, "units"), { recursive: true });
  const gaps: FootageGap[] = [];
  const buffer = await open(dir, gaps);
  assert.equal(gaps.length, 1);
  assert.match(gaps[0]!.reason, /^3 units/);
  await buffer.append(madeUnit("yard", 4, 1_000));
  assert.equal((await sequences(buffer, "yard")).length, 1);
  await buffer.close();
});

test("every acknowledged unit is there after SIGKILL, and only those given up are gone", async (t) => {
  const dir = await folder(t);
  const script = scriptPath("./footage-writer.ts", import.meta.url);
  interface Told {
    epoch: string;
    sequence: number;
    seed: number;
  }
  const told: Told[] = [];
  const killAfter = [7, 4, 11];
  for (const [round, units] of killAfter.entries()) {
    const child = fork(script, [dir, String(round * 1_000)], {
      execArgv: [...nodeFlags],
      stdio: "inherit",
    });
    let seen = 0;
    child.on("message", (message) => {
      told.push(message as Told);
      if (++seen === units) child.kill("SIGKILL");
    });
    await once(child, "exit");
  }
  const gaps: FootageGap[] = [];
  const buffer = await open(dir, gaps);
  const found = new Map<string, number>();
  let after: UnitPlace | undefined;
  for (;;) {
    const unit = await buffer.read("yard", after);
    if (unit === undefined) break;
    after = unit;
    const seed = (unit.producerUs - 1_767_225_600_000_000) / 1_000_000;
    assert.deepEqual(
      unit.packets.map(({ rtp }) => Buffer.from(rtp)),
      madeUnit("yard", seed, 40_000).packets.map(({ rtp }) => rtp),
    );
    found.set(`${epochName(unit.epoch)}/${unit.sequence}`, seed);
  }
  assert.deepEqual(gaps, []);
  for (const { epoch, sequence, seed } of told) {
    if ((seed % 1_000) % 3 !== 0) assert.equal(found.get(`${epoch}/${sequence}`), seed);
  }
  assert.ok(told.length >= 22);
  await buffer.close();
});

test("a disk that refuses one unit takes the next, and keeps those before it", async (t) => {
  const dir = await folder(t);
  const script = scriptPath("./footage-full-disk.ts", import.meta.url);
  // Without the trap the signal of a file that grew too long would end the process.
  const limited = 'trap "" XFSZ; ulimit -f 3000; exec "$0" "$@"';
  const { stdout } = await promisify(execFile)("bash", [
    "-c",
    limited,
    process.execPath,
    ...nodeFlags,
    script,
    dir,
  ]);
  assert.match(stdout, /stored/);
  const buffer = await open(dir);
  const left = await sequences(buffer, "yard");
  assert.ok(left.includes(1) && left.includes(3));
  await buffer.close();
});

test("a process without a file descriptor to spare gives no unit up", async (t) => {
  const script = scriptPath("./footage-no-descriptors.ts", import.meta.url);
  const command = ["-c", 'ulimit -n 256; exec "$@"', "sh", process.execPath, ...nodeFlags, script];
  const { stdout } = await promisify(execFile)("sh", [...command, await folder(t)]);
  assert.match(stdout, /all read/);
});

test("a damaged unit for which the disk has no other place is passed over all the same", async (t) => {
  const dir = await folder(t);
  const before = await open(dir);
  await before.append(madeUnit("yard", 1, 5_000_000));
  await before.append(madeUnit("yard", 2, 4_000));
  await before.close();
  const db = new Level<string, Buffer>(join(dir, "units"), { valueEncoding: "buffer" });
  const [key] = await db.keys({ gt: "u!", lt: "u~" }).all();
  const value = (await db.get(key!))!;
  value[2_000]! ^= 1;
  await db.put(key!, value);
  await db.close();
  // What stood in the log stands in tables then.
  await (await open(dir)).close();
  const script = scriptPath("./footage-damaged-full-disk.ts", import.meta.url);
  const limited = [
    "-c",
    'trap "" XFSZ; ulimit -f 3000; exec "$0" "$@"',
    process.execPath,
    ...nodeFlags,
    script,
    dir,
  ];
  const { stdout } = await promisify(execFile)("bash", limited);
  assert.match(stdout, /read on/);
});
