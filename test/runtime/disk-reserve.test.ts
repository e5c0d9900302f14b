import assert from "node:assert/strict";
import { mkdtemp, rm, stat, statfs, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { DiskReserve, RESERVE_BYTES } from "../../runtime/disk-reserve.ts";
import { silentLog } from "../../runtime/log.ts";
import { SmallDisk } from "../support/small-disk.ts";

test("where there is room the reserve is taken once, and stays through starts", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "headwater-reserve-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const made: number[] = [];
  for (let start = 0; start < 2; start++) {
    const reserve = new DiskReserve(folder, silentLog);
    await reserve.lend();
    await reserve.keep();
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
  await reserve.lend();
  await reserve.keep();
  const makeRoom = await disk.fill();
  const written = join(disk.path, "table");
  await assert.rejects(writeFile(written, Buffer.alloc(1 << 20)), { code: "ENOSPC" });

  await reserve.lend();
  await writeFile(written, Buffer.alloc(1 << 20));
  await reserve.keep();
  const { size } = await stat(join(disk.path, "disk-reserve"));
  assert.ok(size > RESERVE_BYTES / 2 && size < RESERVE_BYTES, `${size} bytes`);
  const { bavail, bsize } = await statfs(disk.path);
  assert.ok(bavail * bsize < 1 << 20, "others may take none of it");

  await makeRoom();
  await reserve.lend();
  await reserve.keep();
  assert.equal((await stat(join(disk.path, "disk-reserve"))).size, RESERVE_BYTES);
});
