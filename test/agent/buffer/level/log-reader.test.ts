import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { open, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { openDatabase, writeSynced } from "../../../../agent/buffer/level/leveldb.ts";
import { findLogDamage } from "../../../../agent/buffer/level/leveldb-log.ts";
import { LogReader } from "../../../../agent/buffer/level/log-reader.ts";
import { decodeWriteBatch } from "../../../../agent/buffer/records/write-batch.ts";
import { temporaryFolder } from "../records/buffer-fixture.ts";

interface Made {
  readonly dir: string;
  readonly log: string;
  readonly written: Map<string, Buffer>;
}

/** A database as the chain makes them, with values of the given sizes, one or several a batch. */
async function makeDatabase(t: TestContext, batches: readonly (readonly number[])[]): Promise<Made> {
  const dir = join(await temporaryFolder(t), "db");
  const database = await openDatabase(dir, true, 64 * 1_048_576);
  const written = new Map<string, Buffer>();
  for (const [n, sizes] of batches.entries()) {
    const operations = sizes.map((size, i) => {
      const key = `k/${String(n).padStart(6, "0")}/${i}`;
      written.set(key, randomBytes(size));
      return { type: "put" as const, key, value: written.get(key)! };
    });
    await writeSynced(database, operations);
  }
  await database.close();
  const log = (await readdir(dir)).find((name) => name.endsWith(".log"))!;
  return { dir, log: join(dir, log), written };
}

async function readLog(file: string): Promise<{ entries: Map<string, Buffer>; damaged: number }> {
  const reader = new LogReader(await open(file, "r"));
  const entries = new Map<string, Buffer>();
  for (let record = await reader.next(); record !== undefined; record = await reader.next()) {
    for (const { key, value } of decodeWriteBatch(record) ?? []) {
      if (value !== undefined) entries.set(key, value);
    }
  }
  const { damaged } = reader;
  await reader.close();
  return { entries, damaged };
}

test("what is read from the log is what LevelDB itself reads", async (t) => {
  const sizes = [0, 1, 200, 20_000, 32_741, 32_768, 65_536, 300_000, 1_048_576, 5];
  const { dir, log, written } = await makeDatabase(t, [...sizes.map((size) => [size]), sizes, [7, 7]]);
  const { entries, damaged } = await readLog(log);
  assert.equal(damaged, 0);
  assert.deepEqual([...entries.keys()], [...written.keys()]);
  // LevelDB turns the log into a table while it opens: it is asked last.
  const database = await openDatabase(dir, false);
  let seen = 0;
  for await (const [key, value] of database.iterator()) {
    assert.ok(entries.get(key)?.equals(value), key);
    seen++;
  }
  assert.equal(seen, entries.size);
  await database.close();
});

test("records end anywhere in a block, also where no head has room behind them", async (t) => {
  const { log } = await makeDatabase(t, [[20_000]]);
  const headBytes = (await readFile(log)).length - 20_000;
  for (let left = 0; left <= 8; left++) {
    const made = await makeDatabase(t, [[32_768 - headBytes - left], [20], [40_000]]);
    const { entries, damaged } = await readLog(made.log);
    assert.deepEqual([...entries.keys()], [...made.written.keys()], `${left} bytes are left`);
    assert.equal(damaged, 0, `${left} bytes are left`);
  }
});

test("a log is read while it grows, and a record that is not there whole comes when it is", async (t) => {
  const { log, written } = await makeDatabase(
    t,
    Array.from({ length: 40 }, (_, i) => [i * 977 + 1]),
  );
  const whole = await readFile(log);
  const growing = `${log}.growing`;
  await writeFile(growing, "");
  const reader = new LogReader(await open(growing, "r"));
  const writer = await open(growing, "w");
  const found: string[] = [];
  for (let at = 0; at < whole.length; at += 1_234) {
    await writer.write(whole.subarray(at, at + 1_234), 0, undefined, at);
    for (let record = await reader.next(); record !== undefined; record = await reader.next()) {
      const [entry] = decodeWriteBatch(record)!;
      assert.ok(entry!.value?.equals(written.get(entry!.key)!));
      found.push(entry!.key);
    }
  }
  assert.deepEqual(found, [...written.keys()]);
  assert.equal(reader.damaged, 0);
  await reader.close();
  await writer.close();
});

test("whatever happens to a log, what is read of it was written, in its order, and a loss is noticed", async (t) => {
  const { log, written } = await makeDatabase(
    t,
    Array.from({ length: 60 }, (_, i) => [(i * 7_919) % 9_000, 20]),
  );
  const whole = await readFile(log);
  const keys = [...written.keys()];
  const damage = fc.record({
    cutAt: fc.option(fc.nat(whole.length)),
    changes: fc.array(
      fc.record({ at: fc.nat(whole.length - 1), bytes: fc.uint8Array({ minLength: 1, maxLength: 80 }) }),
      {
        maxLength: 4,
      },
    ),
    tail: fc.uint8Array({ maxLength: 50 }),
  });
  await fc.assert(
    fc.asyncProperty(damage, async ({ cutAt, changes, tail }) => {
      const bytes = Buffer.from(whole);
      for (const change of changes) bytes.set(change.bytes.subarray(0, bytes.length - change.at), change.at);
      const file = `${log}.damaged`;
      const cut = cutAt === null ? bytes : bytes.subarray(0, cutAt);
      await writeFile(file, Buffer.concat([cut, tail]));
      const { entries, damaged } = await readLog(file);
      const found = [...entries.keys()];
      for (const key of found) assert.ok(written.get(key)?.equals(entries.get(key)!), `${key} is another`);
      assert.deepEqual(
        found,
        keys.filter((key) => entries.has(key)),
      );
      // Without a cut, only a loss at the very end can look like a write that was under way.
      const lost = keys.findIndex((key) => !entries.has(key));
      const lastFound = keys.findLastIndex((key) => entries.has(key));
      if (lost >= 0 && lost < lastFound) assert.ok(damaged > 0, "a loss in the middle goes unnoticed");
    }),
    { numRuns: 300 },
  );
});

test("a changed byte costs the record that it stands in and no other", async (t) => {
  const { log, written } = await makeDatabase(
    t,
    Array.from({ length: 40 }, (_, i) => [((i * 7_919) % 40_000) + 64]),
  );
  const whole = await readFile(log);
  const keys = [...written.keys()];
  for (const [i, key] of keys.entries()) {
    const bytes = Buffer.from(whole);
    // Its end: behind it the next record begins, in the same block or in a later one.
    bytes[bytes.indexOf(written.get(key)!.subarray(-8)) + 4]! ^= 1;
    await writeFile(`${log}.damaged`, bytes);
    const { entries, damaged } = await readLog(`${log}.damaged`);
    assert.deepEqual([...entries.keys()], keys.toSpliced(i, 1));
    assert.equal(damaged, i < keys.length - 1 ? 1 : 0, key);
  }
});

test("zeros in the middle of a log are damage, and what stands behind them is read", async (t) => {
  const { log, written } = await makeDatabase(
    t,
    Array.from({ length: 300 }, () => [260]),
  );
  const bytes = await readFile(log);
  assert.ok(bytes.length > 70_000);
  bytes.fill(0, 32_768, 65_536);
  await writeFile(log, bytes);
  const { entries, damaged } = await readLog(log);
  const whole = [...written].filter(([key]) => bytes.includes(key));
  assert.deepEqual(
    [...entries],
    whole.filter(([, value]) => bytes.includes(value)),
  );
  assert.equal([...entries.keys()].at(-1), [...written.keys()].at(-1));
  assert.ok(damaged > 0);
});

test("random bytes are never taken for a batch, and never an error", async (t) => {
  const dir = await temporaryFolder(t);
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 70_000 }), async (bytes) => {
      await writeFile(join(dir, "random"), bytes);
      assert.equal((await readLog(join(dir, "random"))).entries.size, 0);
      decodeWriteBatch(Buffer.from(bytes));
    }),
    { numRuns: 200 },
  );
});

test("a log's torn tail is no damage; a changed byte is", async (t) => {
  const { log } = await makeDatabase(
    t,
    Array.from({ length: 300 }, () => [260]),
  );
  const bytes = await readFile(log);
  assert.ok(bytes.length > 70_000);
  const damagedIn = async (changed: Buffer): Promise<number> => {
    await writeFile(`${log}.changed`, changed);
    return (await readLog(`${log}.changed`)).damaged;
  };
  for (const length of [0, 3, 6, 7, 100, 32_760, 32_768, 32_770, 50_001, bytes.length]) {
    assert.equal(findLogDamage(bytes.subarray(0, length)), undefined, `cut at ${length}`);
    assert.equal(await damagedIn(bytes.subarray(0, length)), 0, `cut at ${length}`);
  }
  for (const zeros of [1_000, 100_000]) {
    assert.equal(await damagedIn(Buffer.concat([bytes, Buffer.alloc(zeros)])), 0);
    assert.equal(findLogDamage(Buffer.concat([bytes, Buffer.alloc(zeros)])), undefined);
  }
  for (const at of [0, 5, 6, 100, 33_000, bytes.length - 500]) {
    const changed = Buffer.from(bytes);
    changed[at]! ^= 0x40;
    assert.notEqual(findLogDamage(changed), undefined, `byte ${at}`);
    assert.ok((await damagedIn(changed)) > 0, `byte ${at}`);
  }
});
