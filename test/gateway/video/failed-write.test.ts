import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, rmdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { openVideo } from "../../../gateway/video/video-archive.ts";
import { epochName } from "../../../protocol/frame.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip, sendUnit, unitsOf } from "../../support/h264-rtp.ts";

test("a unit that the disk refuses is not persisted, leaves nothing behind, and is stored when it comes again", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-refused-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const video = await openVideo({ ...parts, dir, retentionHours: 1e6, maxBytes: 1e12 });
  const clip = await makeClip(30);
  const [first, second] = unitsOf(clip, 1n, 1_800_000_000_000_000);
  const hour = join(dir, "cameras/yard", new Date(1_800_000_000_000).toISOString().slice(0, 13));
  // A folder where the file should be: the last step of writing fails, with all bytes on the disk.
  const obstacle = join(hour, `${first!.producerUs}-${epochName(1n)}-1.mp4`);
  const feed = video.openFeed("yard", clip.sdp);
  sendUnit(feed, second!);
  await feed.drained();
  await mkdir(obstacle);
  sendUnit(feed, first!);
  await feed.drained();
  assert.deepEqual(feed.persisted(), [{ epoch: 1n, first: 2n, last: 2n }]);
  assert.deepEqual(
    (await readdir(hour)).filter((name) => name.endsWith(".tmp")),
    [],
  );
  await rmdir(obstacle);
  sendUnit(feed, first!);
  await feed.close();
  assert.deepEqual(feed.persisted(), [{ epoch: 1n, first: 1n, last: 2n }]);
  assert.equal((await video.fragments("yard", 0, Number.MAX_SAFE_INTEGER, 10)).length, 2);
  await video.close();
});
