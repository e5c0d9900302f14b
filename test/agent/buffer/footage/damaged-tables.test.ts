/** A file of LevelDB's that is damaged costs the units in it, not the others, and the buffer goes on, at each start. */
import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, open as openFile, readdir, rm, rmdir, truncate, unlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { openLevelFootageBuffer } from "../../../../agent/buffer/footage/level-footage-buffer.ts";
import type { FootageBuffer, FootageGap, UnitPlace } from "../../../../agent/buffer/footage-buffer.ts";
import { systemClock } from "../../../../runtime/clock.ts";
import { silentLog } from "../../../../runtime/log.ts";
import { Metrics } from "../../../../runtime/metrics.ts";
import { removeFolder } from "../../../support/remove-folder.ts";
import { madeUnit } from "./made-unit.ts";

const LIMIT = { timeout: 180_000 };
const UNIT_BYTES = 100_000;
const BEFORE = 60;
const BEHIND = 120;

async function folder(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "hw-footage-"));
  t.after(() => removeFolder(dir));
  return dir;
}

function open(dir: string, gaps: FootageGap[] = []): Promise<FootageBuffer> {
  return openLevelFootageBuffer({
    dir,
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    maxBytes: 2 ** 30,
    onGap: (gap) => gaps.push(gap),
  });
}

async function fill(buffer: FootageBuffer, count: number): Promise<number> {
  let stored = 0;
  for (let number = 1; number <= count; number++) {
    const taken = await buffer.append(madeUnit("yard", number, UNIT_BYTES)).catch(() => undefined);
    if (taken !== undefined) stored++;
  }
  return stored;
}

async function unitsIn(buffer: FootageBuffer): Promise<number> {
  let count = 0;
  let after: UnitPlace | undefined;
  for (;;) {
    const unit = await buffer.read("yard", after);
    if (unit === undefined) return count;
    count++;
    after = unit;
  }
}

/** A table ends with what LevelDB finds its blocks by. */
async function spoilEnd(table: string): Promise<void> {
  const file = await openFile(table, "r+");
  await file.write(Buffer.alloc(64, 0x55), 0, 64, (await file.stat()).size - 64);
  await file.close();
}

test("a buffer that was repaired is opened again, as often as one likes", LIMIT, async (t) => {
  const dir = await folder(t);
  const before = await open(dir);
  await fill(before, 20);
  await before.close();
  await unlink(join(dir, "units", "CURRENT"));
  for (let start = 1; start <= 3; start++) {
    const buffer = await open(dir);
    assert.equal(await unitsIn(buffer), 20, `start ${start}`);
    await buffer.close();
  }
});

test("a damaged lock, which holds nothing, is made anew", LIMIT, async (t) => {
  const dir = await folder(t);
  const before = await open(dir);
  await fill(before, 3);
  await before.close();
  await truncate(join(dir, "lock", "CURRENT"), 0);
  const buffer = await open(dir);
  assert.equal(await unitsIn(buffer), 3);
  await assert.rejects(open(dir), { code: "FOOTAGE_LOCKED" });
  await buffer.close();
});

test("a damaged table costs its units, and not one write after another", LIMIT, async (t) => {
  const root = await folder(t);
  const good = join(root, "good");
  const before = await open(good);
  await fill(before, BEFORE);
  await before.close();
  // What stands in the log becomes a table, too.
  await (await open(good)).close();
  const tables = (await readdir(join(good, "units"))).filter((file) => file.endsWith(".ldb"));
  assert.ok(tables.length >= 3, `${tables.length} tables`);
  for (const table of tables) {
    const dir = join(root, table);
    await cp(good, dir, { recursive: true });
    await spoilEnd(join(dir, "units", table));
    const gaps: FootageGap[] = [];
    const buffer = await open(dir, gaps);
    const stored = await fill(buffer, BEHIND);
    assert.ok(stored >= BEHIND - 1, `${table}: ${stored} of ${BEHIND} stored`);
    const left = await unitsIn(buffer);
    assert.ok(left > stored, `${table}: nothing is left of what was there before`);
    const told = gaps.reduce((sum, { reason }) => sum + Number(/^\d+/.exec(reason)?.[0] ?? 1), 0);
    assert.equal(left + told, BEFORE + stored, `${table}: ${left} left, ${told} told of`);
    await buffer.close();
    const after = await open(dir, gaps);
    assert.equal(await unitsIn(after), left, `${table}: at the next start`);
    await after.close();
    await rm(dir, { recursive: true });
  }
});

/** Opened again with a damaged table that the start does not come to, as it holds no index; each such table in turn. */
async function* withHiddenDamage(root: string): AsyncGenerator<{ dir: string; buffer: FootageBuffer }> {
  const good = join(root, "good");
  const before = await open(good);
  await fill(before, BEFORE);
  await before.close();
  await (await open(good)).close();
  for (const table of await readdir(join(good, "units"))) {
    if (!table.endsWith(".ldb")) continue;
    const dir = join(root, table);
    await cp(good, dir, { recursive: true });
    await spoilEnd(join(dir, "units", table));
    const gaps: FootageGap[] = [];
    const buffer = await open(dir, gaps);
    if (gaps.length === 0) yield { dir, buffer };
    else await buffer.close();
  }
}

/** Until LevelDB has come to the damaged table, and its repair has failed twice; where it put it too deep it does not come there. */
async function withFailedRepair(root: string, obstacle: (dir: string) => string) {
  for (let round = 1; round <= 3; round++) {
    for await (const { dir, buffer } of withHiddenDamage(join(root, String(round)))) {
      await mkdir(obstacle(dir));
      const sent: UnitPlace[] = [];
      for (let refused = 0; sent.length < 2 * BEHIND; ) {
        try {
          sent.push(await buffer.append(madeUnit("yard", sent.length + 1, UNIT_BYTES)));
        } catch {
          if (++refused === 2) return { dir, buffer, sent };
        }
      }
      await buffer.close();
    }
  }
  throw new Error("LevelDB came to none of the damaged tables");
}

test("a repair that fails is tried again, whatever is acknowledged meanwhile", LIMIT, async (t) => {
  // LevelDB makes its new MANIFEST under this name first.
  const obstacle = (dir: string): string => join(dir, "units", "000001.dbtmp");
  const { dir, buffer, sent } = await withFailedRepair(await folder(t), obstacle);
  await rmdir(obstacle(dir));
  let stored = 0;
  for (const { epoch, sequence } of sent.slice(0, 10)) {
    await buffer.ack("yard", epoch, sequence, sequence);
    stored += await fill(buffer, 1);
  }
  assert.equal(stored, 10);
  await buffer.close();
});
