import assert from "node:assert/strict";
import { appendFile, truncate, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { findFile } from "../../../../agent/sources/tail/file-place.ts";
import { OpenFile, START } from "../../../../agent/sources/tail/open-file.ts";
import { temporaryFolder } from "../../buffer/records/buffer-fixture.ts";

async function opened(t: TestContext, path: string): Promise<OpenFile> {
  const file = await OpenFile.open((await findFile(path))!, START, 0);
  t.after(() => file.close());
  return file;
}

test("a file may have changed since it was found, so the first look says that it did", async (t) => {
  const path = join(await temporaryFolder(t), "app.log");
  await writeFile(path, "");
  const file = await opened(t, path);
  assert.equal(await file.changed(0), true);
  assert.equal(await file.changed(1), false);
  assert.equal(file.quietSinceMs, 0);
});

test("a change that left the size and the time as they were is looked for once more", async (t) => {
  const path = join(await temporaryFolder(t), "app.log");
  const then = new Date(1_700_000_000_000);
  await writeFile(path, "");
  await utimes(path, then, then);
  const file = await opened(t, path);
  await file.changed(0);
  await appendFile(path, "a line that is copied elsewhere\n");
  await truncate(path, 0);
  await utimes(path, then, then);
  assert.equal(await file.changed(10), false, "nothing is to be seen of it");
  assert.equal(await file.changed(20), true);
  assert.equal(file.quietSinceMs, 0, "for all that is known it was quiet");
  assert.equal(await file.changed(21), false);
  assert.equal(await file.changed(500), false);
});

test("the place in a file that was truncated keeps the time at which it still held", async (t) => {
  const path = join(await temporaryFolder(t), "app.log");
  const then = new Date(1_700_000_000_000);
  await writeFile(path, "one\n");
  await utimes(path, then, then);
  const file = await opened(t, path);
  await file.changed(0);
  const window = await file.read(Buffer.alloc(64));
  file.advance(window!, 4);
  await truncate(path, 0);
  await appendFile(path, "other\n");
  assert.equal(await file.changed(1), true);
  assert.equal(await file.read(Buffer.alloc(64)), undefined);
  assert.equal(file.place(path, 0).modifiedNs, "1700000000000000000");
});
