import assert from "node:assert/strict";
import { mkdtemp, readdir, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { probeDisk } from "../../runtime/disk-probe.ts";
import { removeFolder } from "../support/remove-folder.ts";

test("a disk that takes writes passes, again and again, and holds one small file for it", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "headwater-probe-"));
  t.after(() => removeFolder(folder));
  for (let n = 0; n < 3; n++) await probeDisk(folder);
  const [file = "", ...others] = await readdir(folder);
  assert.deepEqual(others, []);
  assert.ok((await stat(join(folder, file))).size < 100);
});

test("a folder that is gone does not pass", async () => {
  await assert.rejects(probeDisk(join(tmpdir(), "headwater-no-such-folder")), { code: "ENOENT" });
});
