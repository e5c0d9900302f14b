/** What is told apart: damage to what was synced, and what a crash leaves of a batch that never was. LevelDB itself writes the logs. */
import assert from "node:assert/strict";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { Level } from "level";
import { levelLogDamage, noteLevelClosed, openingOf } from "../../runtime/level-log.ts";
import { SyncedLevel } from "../../runtime/synced-level.ts";
import { randomFrom } from "../support/ordeal.ts";
import { removeFolder } from "../support/remove-folder.ts";

const BATCHES = 12;
/** Also one that takes several blocks of the log. */
const sizeOf = (i: number): number => (i === 5 ? 90_000 : 40 + i * 900);

interface Written {
  readonly folder: string;
  readonly log: string;
  readonly bytes: Buffer;
  /** Where each batch ends in the log. */
  readonly ends: readonly number[];
}

/** @param how the writer ended */
async function written(t: TestContext, how: "closed" | "killed"): Promise<Written> {
  const place = await mkdtemp(join(tmpdir(), "headwater-level-log-"));
  t.after(() => removeFolder(place));
  const live = join(place, "live");
  const folder = how === "closed" ? live : join(place, "killed");
  const db = new SyncedLevel<string>(live, { valueEncoding: "utf8", createIfMissing: true });
  await db.open();
  const name = (await readdir(live)).find((one) => one.endsWith(".log"))!;
  const ends: number[] = [];
  for (let i = 0; i < BATCHES; i++) {
    await db.write([{ type: "put", key: `key-${i}`, value: String.fromCharCode(65 + i).repeat(sizeOf(i)) }]);
    ends.push((await readFile(join(live, name))).length);
  }
  if (how === "killed") await cp(live, folder, { recursive: true });
  await db.close();
  const log = join(folder, name);
  return { folder, log, bytes: await readFile(log), ends };
}

test("any byte that flips in a log that was closed is told, and so is a log that is shorter or gone", async (t) => {
  const { folder, log, bytes } = await written(t, "closed");
  assert.equal(await levelLogDamage(folder), undefined);
  const random = randomFrom(7);
  for (let i = 0; i < 300; i++) {
    const spoilt = Buffer.from(bytes);
    const at = i < 100 ? i : Math.floor(random() * bytes.length);
    spoilt[at]! ^= 1 << Math.floor(random() * 8);
    await writeFile(log, spoilt);
    const damage = await levelLogDamage(folder);
    assert.ok(damage !== undefined && damage.from <= at, `byte ${at}: ${damage?.from}`);
  }
  await writeFile(log, bytes.subarray(0, bytes.length - 1));
  assert.ok(await levelLogDamage(folder));
  await rm(log);
  assert.ok(await levelLogDamage(folder));
  await writeFile(log, bytes);
  assert.equal(await levelLogDamage(folder), undefined);
});

test("what a crash leaves of the last batch is no damage, wherever it is cut and whatever of it is zeros", async (t) => {
  const { folder, log, bytes, ends } = await written(t, "killed");
  assert.equal(ends.at(-1), bytes.length);
  const random = randomFrom(8);
  for (let i = 0; i < 200; i++) {
    const last = Math.floor(random() * BATCHES);
    const from = last === 0 ? 0 : ends[last - 1]!;
    const cut = Buffer.from(bytes.subarray(0, from + Math.floor(random() * (ends[last]! - from))));
    const zeros = from + Math.floor(random() * (cut.length - from));
    if (i % 2 === 1) cut.fill(0, zeros, Math.min(cut.length, zeros + 4_096));
    await writeFile(log, cut);
    assert.equal(await levelLogDamage(folder), undefined, `batch ${last} cut at ${cut.length}`);
  }
});

test("behind a crash, too, damage is told where another batch follows", async (t) => {
  const { folder, log, bytes, ends } = await written(t, "killed");
  const random = randomFrom(9);
  for (let i = 0; i < 200; i++) {
    const spoilt = Buffer.from(bytes);
    const at = Math.floor(random() * ends[BATCHES - 2]!);
    spoilt.fill(random() * 256, at, at + 1 + Math.floor(random() * 40));
    if (spoilt.equals(bytes)) continue;
    await writeFile(log, spoilt);
    const damage = await levelLogDamage(folder);
    assert.ok(damage !== undefined && damage.from <= at + 40, `bytes at ${at}`);
  }
});

test("a note of an earlier close says nothing of a database that was opened since", async (t) => {
  const { folder } = await written(t, "closed");
  const before = await openingOf(folder);
  const db = new Level<string, string>(folder);
  await db.open();
  // As where it was opened before the one that closed it came to write its note.
  await noteLevelClosed(folder, before);
  await db.put("more", "x".repeat(300), { sync: true } as object);
  const crashed = `${folder}-crashed`;
  await cp(folder, crashed, { recursive: true });
  await db.close();
  const name = (await readdir(crashed)).find((one) => one.endsWith(".log"))!;
  const log = await readFile(join(crashed, name));
  await writeFile(join(crashed, name), log.subarray(0, log.length - 5));
  assert.equal(await levelLogDamage(crashed), undefined);
  assert.equal(await levelLogDamage(join(folder, "none")), undefined);
});
