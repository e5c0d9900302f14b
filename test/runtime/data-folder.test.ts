/** What is told of files that this user may not open: which of them are the data. */
import assert from "node:assert/strict";
import test from "node:test";
import { foreignFolder } from "../../runtime/data-folder.ts";

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
