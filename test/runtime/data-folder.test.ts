/** How the data folder is made, and what is told of files that this user may not open: which of them are the data. */
import assert from "node:assert/strict";
import { mkdtemp, readlink, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { foreignFolder, makeDataFolder } from "../../runtime/data-folder.ts";

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "headwater-folder-"));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

const refused = (code: string, path?: string): Error =>
  Object.assign(new Error(code), { code, ...(path !== undefined && { path }) });

test("what may not be opened in the folder, or on the way to it, is told as the folder's", () => {
  for (const path of ["/srv/data", "/srv/data/streams/meta", "/srv/data/..x", "/srv", "/"]) {
    assert.equal(foreignFolder(refused("EACCES", path), "/srv/data")?.code, "DATA_FOLDER", path);
  }
  assert.equal(foreignFolder(refused("EROFS", "/anywhere"))?.code, "DATA_FOLDER");
});

test("what lies elsewhere, has no path or failed otherwise is no matter of the folder", () => {
  for (const path of ["/etc/ssl/key.pem", "/srv/data2", "/srv/..data", "/dev/ttyUSB0"]) {
    assert.equal(foreignFolder(refused("EACCES", path), "/srv/data"), undefined, path);
  }
  assert.equal(foreignFolder(refused("EACCES"), "/srv/data"), undefined);
  assert.equal(foreignFolder(refused("ENOENT", "/srv/data"), "/srv/data"), undefined);
});

test("a data folder is made with those above it, and one that is there is left alone", async (t) => {
  const folder = await temporaryFolder(t);
  await makeDataFolder(join(folder, "a/b/c"));
  await makeDataFolder(join(folder, "a/b/c"));
  assert.equal((await stat(join(folder, "a/b/c"))).mode & 0o777, 0o700);
  await symlink("a", join(folder, "link"));
  await makeDataFolder(join(folder, "link"));
  await makeDataFolder(join(folder, "link/d"));
  assert.equal(await readlink(join(folder, "link")), "a");
});

test("what can be no data folder is told at once, by its path", async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, "file"), "mine");
  await symlink("nowhere", join(folder, "dangling"));
  // Nothing can be made in /proc, where Node's own way down a path never ends.
  for (const path of [
    join(folder, "file"),
    join(folder, "file/x/y"),
    join(folder, "dangling/x"),
    "/proc/x/y",
  ]) {
    await assert.rejects(
      makeDataFolder(path),
      { code: "DATA_FOLDER", message: /is no folder and cannot be made one: E[A-Z]+$/ },
      path,
    );
  }
});
