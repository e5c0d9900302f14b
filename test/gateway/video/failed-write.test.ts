import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, readdir, rm, rmdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { FragmentIndex } from "../../../gateway/video/archive/fragment-index.ts";
import { openVideo } from "../../../gateway/video/video-archive.ts";
import { epochName } from "../../../protocol/frame.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { type Log, silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { DatabaseWriteError } from "../../../runtime/synced-level.ts";
import { makeClip, sendUnit, unitsOf } from "../../support/h264-rtp.ts";
import { removeFolder } from "../../support/remove-folder.ts";

test("a unit that the disk refuses is not persisted, leaves nothing behind, and is stored when it comes again", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-refused-"));
  t.after(() => removeFolder(dir));
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

test("a unit whose row the index refuses is not listed, and is stored when it comes again", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-refused-"));
  t.after(() => removeFolder(dir));
  class RefusingIndex extends FragmentIndex {
    refuses = true;
    override put(...row: Parameters<FragmentIndex["put"]>): Promise<void> {
      return this.refuses ? Promise.reject(new Error("no space left on device")) : super.put(...row);
    }
  }
  const index = new RefusingIndex(join(dir, "index"));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics(), index };
  const video = await openVideo({ ...parts, dir, retentionHours: 1e6, maxBytes: 1e12 });
  t.after(() => video.close());
  const clip = await makeClip(15);
  const feed = video.openFeed("yard", clip.sdp);
  const [unit] = unitsOf(clip, 1n, 1_800_000_000_000_000);
  sendUnit(feed, unit!);
  await feed.drained();
  assert.deepEqual(feed.persisted(), []);
  assert.equal(video.cameras()[0]!.fragments, 0);
  index.refuses = false;
  sendUnit(feed, unit!);
  await feed.drained();
  assert.deepEqual(feed.persisted(), [{ epoch: 1n, first: 1n, last: 1n }]);
  assert.equal(video.cameras()[0]!.fragments, 1);
});

test("sound footage is not set aside because its row cannot be written, nor is what lies elsewhere adopted", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-refused-"));
  t.after(() => removeFolder(dir));
  const parts = { clock: systemClock, metrics: new Metrics(), dir, retentionHours: 1e6, maxBytes: 1e12 };
  const clip = await makeClip(30);
  const first = await openVideo({ ...parts, log: silentLog });
  const feed = first.openFeed("yard", clip.sdp);
  for (const unit of unitsOf(clip, 1n, 1_800_000_000_000_000)) sendUnit(feed, unit);
  await feed.close();
  await first.close();
  const camera = join(dir, "cameras/yard");
  const [hour] = await readdir(camera);
  const names = await readdir(join(camera, hour!));
  await cp(join(camera, hour!), join(camera, "kept by somebody"), { recursive: true });

  await rm(join(dir, "index"), { recursive: true });
  class FullIndex extends FragmentIndex {
    override put(): Promise<void> {
      return Promise.reject(new Error("no space left on device"));
    }
  }
  const errors: string[] = [];
  const log: Log = {
    ...silentLog,
    child: () => log,
    error: (_fields, message) => void errors.push(message ?? ""),
  };
  const full = await openVideo({ ...parts, log, index: new FullIndex(join(dir, "index")) });
  await full.close();
  assert.deepEqual(errors, ["footage that is not indexed cannot be adopted before the next start"]);
  assert.deepEqual(await readdir(join(camera, hour!)), names);

  const again = await openVideo({ ...parts, log: silentLog });
  t.after(() => again.close());
  assert.equal(again.cameras()[0]!.fragments, 2);
  assert.equal((await again.fragments("yard", 0, Number.MAX_SAFE_INTEGER, 10)).length, 2);
  assert.deepEqual(await readdir(join(camera, "kept by somebody")), names);
});

test("a unit that is recorded stands, though an old epoch cannot be forgotten behind it", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-refused-"));
  t.after(() => removeFolder(dir));
  class RefusingIndex extends FragmentIndex {
    override forgetEpochs(): Promise<void> {
      return Promise.reject(new Error("no space left on device"));
    }
  }
  const index = new RefusingIndex(join(dir, "index"));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics(), index };
  const video = await openVideo({ ...parts, dir, retentionHours: 1e6, maxBytes: 1e12 });
  t.after(() => video.close());
  const clip = await makeClip(15, { size: "64x64" });
  const feed = video.openFeed("yard", clip.sdp);
  for (let epoch = 1n; epoch <= 257n; epoch++) {
    const [unit] = unitsOf(clip, epoch, 1_800_000_000_000_000 + Number(epoch) * 1_000_000);
    sendUnit(feed, unit!);
  }
  await feed.drained();
  assert.ok(feed.persisted().some(({ epoch }) => epoch === 257n));
  const found = await video.fragments("yard", 0, Number.MAX_SAFE_INTEGER, 1_000);
  assert.equal(found.length, 257);
  assert.ok((await video.readFragment("yard", found.at(-1)!.id)) !== undefined);
});

test("rows of lost files that cannot be removed are not counted, neither before nor after they go", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-refused-"));
  t.after(() => removeFolder(dir));
  let nowUs = 1_800_000_000_000_000;
  const clock = { nowUs: () => nowUs, monotonicMs: () => nowUs / 1_000 };
  const parts = { clock, log: silentLog, metrics: new Metrics(), dir, retentionHours: 24, maxBytes: 1e12 };
  const clip = await makeClip(30);
  const first = await openVideo(parts);
  const feed = first.openFeed("yard", clip.sdp);
  for (const unit of unitsOf(clip, 1n, nowUs)) sendUnit(feed, unit);
  await feed.close();
  await first.close();
  const folder = join(dir, "cameras/yard");
  const [hour] = (await readdir(folder)).filter((name) => name !== "device");
  const [lost] = await readdir(join(folder, hour!));
  await rm(join(folder, hour!, lost!));

  class FullIndex extends FragmentIndex {
    refuses = true;
    override remove(camera: string, ids: readonly string[]): Promise<void> {
      return this.refuses ? Promise.reject(new Error("no space left on device")) : super.remove(camera, ids);
    }
  }
  const index = new FullIndex(join(dir, "index"));
  const video = await openVideo({ ...parts, index });
  t.after(() => video.close());
  const { fragments, storedBytes } = video.cameras()[0]!;
  assert.equal(fragments, 1);
  assert.ok(storedBytes > 0);
  assert.equal((await video.fragments("yard", 0, Number.MAX_SAFE_INTEGER, 10)).length, 1);
  index.refuses = false;
  nowUs += 25 * 3_600_000_000;
  await video.enforceRetention();
  assert.deepEqual(
    video.cameras().map((status) => [status.fragments, status.storedBytes]),
    [[0, 0]],
  );
});

test("where files make room for the index on a full disk, no row stays without its file", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-refused-"));
  t.after(() => removeFolder(dir));
  class FullIndex extends FragmentIndex {
    refusals = 1;
    override remove(camera: string, ids: readonly string[]): Promise<void> {
      if (this.refusals-- > 0) return Promise.reject(new DatabaseWriteError(dir, new Error("no space")));
      return super.remove(camera, ids);
    }
  }
  const index = new FullIndex(join(dir, "index"));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics(), dir, retentionHours: 1e6 };
  const video = await openVideo({ ...parts, index, maxBytes: 20_000 });
  t.after(() => video.close());
  const clip = await makeClip(60);
  const feed = video.openFeed("yard", clip.sdp);
  for (const unit of unitsOf(clip, 1n, 1_800_000_000_000_000)) sendUnit(feed, unit);
  await feed.close();
  await video.enforceRetention();
  const listed = await video.fragments("yard", 0, Number.MAX_SAFE_INTEGER, 100);
  for (const { id } of listed) assert.ok((await video.readFragment("yard", id)) !== undefined, id);
  assert.equal(video.cameras()[0]!.fragments, listed.length);
});
