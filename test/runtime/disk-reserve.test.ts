import assert from "node:assert/strict";
import { mkdir, mkdtemp, stat, statfs, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { DiskReserve, RESERVE_BYTES } from "../../runtime/disk-reserve.ts";
import { type Log, silentLog } from "../../runtime/log.ts";
import { removeFolder } from "../support/remove-folder.ts";
import { SmallDisk } from "../support/small-disk.ts";

const nothing = async (): Promise<void> => {};

test("where there is room the reserve is taken once, and stays through starts", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "headwater-reserve-"));
  t.after(() => removeFolder(folder));
  const made: number[] = [];
  for (let start = 0; start < 2; start++) {
    const reserve = new DiskReserve(folder, silentLog);
    await reserve.during(nothing);
    const { size, ino, mtimeMs } = await stat(join(folder, "disk-reserve"));
    assert.equal(size, RESERVE_BYTES);
    made.push(ino, mtimeMs);
  }
  assert.deepEqual(made.slice(0, 2), made.slice(2));
});

test("on a full disk the reserve is lent, and what is left of it is taken again", async (t) => {
  const disk = await SmallDisk.make(64 << 20);
  if (typeof disk === "string") return t.skip(disk);
  t.after(() => disk.remove());
  const reserve = new DiskReserve(disk.path, silentLog);
  await reserve.during(nothing);
  const makeRoom = await disk.fill();
  const written = join(disk.path, "table");
  await assert.rejects(writeFile(written, Buffer.alloc(1 << 20)), { code: "ENOSPC" });

  const failing = reserve.during(() => Promise.reject(new Error("a database is broken")));
  await assert.rejects(failing, { message: "a database is broken" });
  const again = await stat(join(disk.path, "disk-reserve"));
  assert.ok(again.size > RESERVE_BYTES - (1 << 20), `${again.size} bytes are taken again for the next try`);

  await reserve.during(() => writeFile(written, Buffer.alloc(1 << 20)));
  const { size } = await stat(join(disk.path, "disk-reserve"));
  assert.ok(size > RESERVE_BYTES / 2 && size < RESERVE_BYTES, `${size} bytes`);
  const { bavail, bsize } = await statfs(disk.path);
  assert.ok(bavail * bsize < 1 << 20, "others may take none of it");

  await makeRoom();
  await reserve.during(nothing);
  assert.equal((await stat(join(disk.path, "disk-reserve"))).size, RESERVE_BYTES);
});

test("what stands in the way of the reserve is told, and is no reason not to start, nor another than the opening's own", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "headwater-reserve-"));
  t.after(() => removeFolder(folder));
  await mkdir(join(folder, "disk-reserve"));
  const said: unknown[] = [];
  const log = { ...silentLog, warn: (fields: unknown) => said.push(fields) };
  const reserve = new DiskReserve(folder, log as unknown as Log);
  assert.equal(await reserve.during(async () => "open"), "open");
  await assert.rejects(
    reserve.during(() => Promise.reject(new Error("a database is broken"))),
    { message: "a database is broken" },
  );
  assert.equal(said.length, 2);
  assert.match(JSON.stringify(said[0]), /EISDIR/);
});
