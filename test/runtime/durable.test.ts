import assert from "node:assert/strict";
import { type FileHandle, mkdtemp, open, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { writeDurably } from "../../runtime/durable.ts";
import { removeFolder } from "../support/remove-folder.ts";

test("bytes are on disk before they get the name, and the name is before anybody hears of it", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-durable-"));
  t.after(() => removeFolder(dir));
  const path = join(dir, "kept");
  await writeFile(path, "old");
  const any = await open(path);
  const handles = Object.getPrototypeOf(any) as FileHandle;
  await any.close();
  /** Of each sync what was synced, and what stood under the name meanwhile. */
  const synced: string[] = [];
  for (const name of ["datasync", "sync"] as const) {
    const plain = handles[name];
    t.mock.method(handles, name, async function (this: FileHandle) {
      const isFolder = (await this.stat()).isDirectory();
      const [what, named] = [isFolder ? "folder" : await readFile(`${path}.tmp`), await readFile(path)];
      await plain.call(this);
      synced.push(`${what}, named: ${named}`);
    });
  }
  await writeDurably(path, "new");
  assert.deepEqual(synced, ["new, named: old", "folder, named: new"]);
});
