/** Files of two disks have the same numbers; who uses the one does not use the other. */
import assert from "node:assert/strict";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { verifyLocalStreams } from "../../../../../gateway/streams/stores/local/verify.ts";
import { SmallDisk } from "../../../../support/small-disk.ts";
import { makeLocalPlace } from "./local-place.ts";

test("a folder is not in use because a file of the same number on another disk is", async (t) => {
  const folders: string[] = [];
  for (let i = 0; i < 2; i++) {
    const disk = await SmallDisk.make(192 << 20);
    if (typeof disk === "string") return t.skip(disk);
    t.after(() => disk.remove());
    folders.push(join(disk.path, "streams"));
  }
  const [closed, used] = await Promise.all(folders.map((folder) => makeLocalPlace(folder)));
  await (await closed!.open()).close();
  const streams = await used!.open();
  try {
    const [one, other] = await Promise.all(folders.map((folder) => stat(join(folder, "meta/LOCK"))));
    assert.equal(one!.ino, other!.ino, "the case that is meant");
    await verifyLocalStreams(closed!.dir);
    await assert.rejects(verifyLocalStreams(used!.dir), { code: "VERIFY_REFUSED", message: /in use/ });
  } finally {
    await streams.close();
  }
});
