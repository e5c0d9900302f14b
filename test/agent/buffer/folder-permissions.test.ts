/** What sensors measured and cameras saw is nobody else's on the device. */
import assert from "node:assert/strict";
import { mkdtemp, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { openLevelFootageBuffer } from "../../../agent/buffer/footage/level-footage-buffer.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { openBuffer } from "./records/buffer-fixture.ts";

test("the buffers' folders, and the data folder made with them, are their owner's alone", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "headwater-modes-"));
  t.after(() => removeFolder(root));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const footage = await openLevelFootageBuffer({ ...parts, dir: join(root, "a/footage"), maxBytes: 1e6 });
  await footage.close();
  const records = await openBuffer(join(root, "b/records"));
  await records.close();
  for (const folder of ["a", "a/footage", "b", "b/records"]) {
    assert.equal((await stat(join(root, folder))).mode & 0o777, 0o700, folder);
  }
});
