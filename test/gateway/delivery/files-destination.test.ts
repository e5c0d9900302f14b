import assert from "node:assert/strict";
import { chmod, chown, mkdir, mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { FilesDestination } from "../../../gateway/delivery/destinations/files.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const NOBODY = 65_534;
const IS_ROOT = process.getuid!() === 0;
const attempt = { id: "00000000", confirm: async () => {} };

test("objects come into a folder of the gateway's user, whose own place may be passed but not listed", async (t) => {
  const place = await mkdtemp(join(tmpdir(), "headwater-files-"));
  t.after(() => removeFolder(place));
  const root = join(place, "out");
  await mkdir(root);
  if (IS_ROOT) await chown(root, NOBODY, NOBODY);
  await chmod(place, 0o111);
  if (IS_ROOT) process.seteuid!(NOBODY);
  try {
    const destination = new FilesDestination(root);
    await destination.put("2026/11/21/09/object", Buffer.from("bytes"), attempt);
    assert.equal(await destination.has("2026/11/21/09/object"), true);
    assert.equal(await readFile(join(root, "2026/11/21/09/object"), "utf8"), "bytes");
    const next = new FilesDestination(join(place, "another"));
    await assert.rejects(next.put("object", Buffer.from("bytes"), attempt), /DESTINATION_FAILED|EACCES/);
  } finally {
    if (IS_ROOT) process.seteuid!(0);
    await chmod(place, 0o700);
  }
});
