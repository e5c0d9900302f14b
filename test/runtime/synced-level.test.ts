/** Writes of a database that stays sound; what a full disk does to it, test/gateway/streams/metadata-full-disk.test.ts tries. */
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { SyncedLevel } from "../../runtime/synced-level.ts";
import { removeFolder } from "../support/remove-folder.ts";

async function makeFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "headwater-synced-"));
  t.after(() => removeFolder(folder));
  return join(folder, "db");
}

const ALL = { gte: "", lt: "\uffff" };

test("writes that come together hold in the order of their calls, and a close waits for them", async (t) => {
  const folder = await makeFolder(t);
  let db = new SyncedLevel<string>(folder, { valueEncoding: "utf8", createIfMissing: true });
  await db.open();
  const writes = Array.from({ length: 100 }, (_, i) =>
    db.write([
      { type: "put", key: "last", value: String(i) },
      ...(i % 2 === 0
        ? [{ type: "put", key: "even", value: String(i) } as const]
        : [{ type: "del", key: "even" } as const]),
    ]),
  );
  await db.close();
  await Promise.all(writes);
  await db.close();
  db = new SyncedLevel<string>(folder, { valueEncoding: "utf8", createIfMissing: false });
  await db.open();
  assert.deepEqual(await db.entries(ALL), [["last", "99"]]);
  assert.deepEqual(await db.keys(ALL), ["last"]);
  await db.close();
});

test("a write that is refused holds nothing of itself, and those behind it go on", async (t) => {
  const folder = await makeFolder(t);
  const db = new SyncedLevel<unknown>(folder, { valueEncoding: "json", createIfMissing: true });
  await db.open();
  await db.write([{ type: "put", key: "a", value: 1 }]);
  // JSON knows no bigint: the batch is refused before it comes to the disk, as one is that the disk refuses.
  const refused = db.write([
    { type: "put", key: "a", value: 2 },
    { type: "put", key: "b", value: 2n },
  ]);
  await assert.rejects(refused, { code: "DATABASE_WRITE_FAILED", retryable: true });
  assert.deepEqual(await db.entries(ALL), [["a", 1]]);
  await db.write([{ type: "put", key: "c", value: 3 }]);
  assert.deepEqual(await db.entries(ALL), [
    ["a", 1],
    ["c", 3],
  ]);
  await db.close();
});

test("a database that is not what it was takes nothing more", async (t) => {
  const folder = await makeFolder(t);
  const db = new SyncedLevel<unknown>(folder, {
    valueEncoding: "json",
    createIfMissing: true,
    check: async (entries) => assert.notDeepEqual(await entries(ALL), [["a", 1]]),
  });
  await db.open();
  await db.write([{ type: "put", key: "a", value: 1 }]);
  await assert.rejects(db.write([{ type: "put", key: "b", value: 2n }]), { code: "DATABASE_WRITE_FAILED" });
  for (let i = 0; i < 2; i++) {
    await assert.rejects(db.write([{ type: "put", key: "c", value: 3 }]), { code: "ERR_ASSERTION" });
  }
  assert.deepEqual(await db.entries(ALL), [["a", 1]]);
  await db.close();
});
