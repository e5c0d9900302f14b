import assert from "node:assert/strict";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { DiskSpace } from "../../../../agent/buffer/level/disk-space.ts";
import { BufferFullError } from "../../../../agent/buffer/record-buffer.ts";
import { SmallDisk } from "../../../support/small-disk.ts";
import { openBuffer, readAll, record, temporaryFolder, texts } from "../records/buffer-fixture.ts";

test("less free space than is to be left counts as full, and room that returns is noticed", async (t) => {
  let free = 500;
  let told = 0;
  const disk = new DiskSpace(
    await temporaryFolder(t),
    1_000,
    () => told++,
    async () => free,
  );
  await disk.start();
  assert.equal(disk.isShort, true);
  free = 1_000;
  await disk.look();
  assert.equal(disk.isShort, false);
  assert.equal(told, 1);
  disk.close();
});

test("a disk that others fill makes the buffer refuse, and nothing that it took is lost", async (t) => {
  const disk = await SmallDisk.make(48 * 1_048_576);
  if (typeof disk === "string") return t.skip(disk);
  t.after(() => disk.remove());
  const dir = join(disk.path, "records");
  const options = { whenFull: "reject", minFreeBytes: 16 * 1_048_576, partBytes: 262_144 } as const;
  let buffer = await openBuffer(dir, options);
  await buffer.append([record("one")]);
  await writeFile(join(disk.path, "others"), Buffer.alloc(26 * 1_048_576));
  await buffer.close();
  buffer = await openBuffer(dir, options);
  await assert.rejects(buffer.append([record("two")]), BufferFullError);
  assert.equal(buffer.refuses([record("two")]), true);
  await rm(join(disk.path, "others"));
  await buffer.close();
  buffer = await openBuffer(dir, options);
  await buffer.append([record("three")]);
  assert.deepEqual(texts(await readAll(buffer)), ["one", "three"]);
  await buffer.close();
  await disk.unmount();
});

test("drop-oldest gives a disk that others fill its space back", async (t) => {
  const disk = await SmallDisk.make(64 * 1_048_576);
  if (typeof disk === "string") return t.skip(disk);
  t.after(() => disk.remove());
  const dir = join(disk.path, "records");
  const options = { whenFull: "drop-oldest", minFreeBytes: 16 * 1_048_576, partBytes: 1_048_576 } as const;
  let buffer = await openBuffer(dir, options);
  const payload = Buffer.alloc(500_000, 7);
  for (let i = 0; i < 30; i++) await buffer.append([{ ...record("x"), payload }]);
  await buffer.close();
  await writeFile(join(disk.path, "others"), Buffer.alloc(24 * 1_048_576));
  buffer = await openBuffer(dir, options);
  await buffer.append([record("last")]);
  const { droppedRecords, waitingRecords } = buffer.usage();
  assert.ok(droppedRecords > 0 && droppedRecords < 30, `${droppedRecords} dropped`);
  // One more for the report and one for the last.
  assert.equal(texts(await readAll(buffer), "sensors").length + droppedRecords, 31);
  assert.ok(waitingRecords >= 2);
  await buffer.close();
  await disk.unmount();
});
