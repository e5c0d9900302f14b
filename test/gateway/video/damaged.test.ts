/** Damaged footage: nothing of it is served, it is kept for whoever wants to look at it, and it does not stay for ever. */
import assert from "node:assert/strict";
import { copyFile, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { openVideo, type VideoArchive } from "../../../gateway/video/video-archive.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip, sendUnit, type TestClip, unitsOf } from "../../support/h264-rtp.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const FIRST_US = 1_800_000_000_000_000;
const HOUR_US = 3_600_000_000;

interface Archive {
  readonly dir: string;
  readonly clip: TestClip;
  readonly metrics: Metrics;
  nowUs: number;
  maxBytes: number;
  /** Opens it; the one before is closed by its owner. */
  open(): Promise<VideoArchive>;
}

async function makeArchive(t: TestContext): Promise<Archive> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-damaged-"));
  t.after(() => removeFolder(dir));
  const archive: Archive = {
    dir,
    clip: await makeClip(45),
    metrics: new Metrics(),
    nowUs: FIRST_US,
    maxBytes: 1e12,
    open: () => {
      const clock = { nowUs: () => archive.nowUs, monotonicMs: () => archive.nowUs / 1_000 };
      const { metrics, maxBytes } = archive;
      const video = openVideo({ dir, clock, log: silentLog, metrics, retentionHours: 24, maxBytes });
      t.after(async () => (await video).close());
      return video;
    },
  };
  return archive;
}

async function store(video: VideoArchive, clip: TestClip): Promise<void> {
  const feed = video.openFeed("yard", clip.sdp);
  for (const unit of unitsOf(clip, 7n, FIRST_US)) sendUnit(feed, unit);
  await feed.close();
}

async function filesOf({ dir }: Archive): Promise<string[]> {
  const all = await readdir(join(dir, "cameras/yard"), { recursive: true });
  return all.filter((name) => name.includes("/")).sort();
}

async function damage(archive: Archive, name: string): Promise<void> {
  const path = join(archive.dir, "cameras/yard", name);
  const bytes = await readFile(path);
  bytes[bytes.length >> 1]! ^= 1;
  await writeFile(path, bytes);
}

test("it counts towards retention and goes by age, also when it was set aside in another life", async (t) => {
  const archive = await makeArchive(t);
  let video = await archive.open();
  await store(video, archive.clip);
  const [first] = await filesOf(archive);
  await damage(archive, first!);
  const bytes = video.cameras()[0]!.storedBytes;
  const [damaged, second] = await video.fragments("yard", 0, FIRST_US * 2, 10);
  assert.equal(await video.readFragment("yard", damaged!.id), undefined);
  assert.equal((await filesOf(archive))[0], first!.replace(/mp4$/, "damaged"));
  for (let life = 0; life < 2; life++) {
    const [status] = video.cameras();
    assert.deepEqual([status!.fragments, status!.damaged, status!.storedBytes], [2, 1, bytes]);
    assert.equal((await video.fragments("yard", 0, FIRST_US * 2, 10))[0]!.id, second!.id);
    assert.equal(await video.readFragment("yard", damaged!.id), undefined);
    await video.close();
    video = await archive.open();
  }
  assert.match(await archive.metrics.render(), /headwater_video_damaged_fragments\{camera="yard"\} 1/);
  archive.nowUs += 25 * HOUR_US;
  await video.enforceRetention();
  assert.deepEqual(await filesOf(archive), []);
  const { fragments, damaged: left, storedBytes } = video.cameras()[0]!;
  assert.deepEqual([fragments, left, storedBytes], [0, 0, 0]);
});

test("what earlier versions set aside is counted, and the oldest goes when there is too much", async (t) => {
  const archive = await makeArchive(t);
  const before = await archive.open();
  await store(before, archive.clip);
  await before.close();
  const [first] = await filesOf(archive);
  const path = join(archive.dir, "cameras/yard", first!);
  await rename(path, `${path}.damaged`);
  archive.maxBytes = before.cameras()[0]!.storedBytes - 1;
  const video = await archive.open();
  assert.equal(video.cameras()[0]!.storedBytes, archive.maxBytes + 1);
  await video.enforceRetention();
  const [status] = video.cameras();
  assert.deepEqual([status!.fragments, status!.damaged], [2, 0]);
  assert.equal((await filesOf(archive)).length, 2);
});

test("one fragment that earlier versions set aside under two names is one, and stays", async (t) => {
  const archive = await makeArchive(t);
  const before = await archive.open();
  await store(before, archive.clip);
  await before.close();
  const [first] = await filesOf(archive);
  const path = join(archive.dir, "cameras/yard", first!);
  await copyFile(path, path.replace(/mp4$/, "part.mp4.damaged"));
  await rename(path, `${path}.damaged`);
  const video = await archive.open();
  const [status] = video.cameras();
  assert.deepEqual([status!.fragments, status!.damaged], [2, 1]);
  assert.equal((await filesOf(archive))[0], first!.replace(/mp4$/, "damaged"));
});

test("a file found damaged at a start is counted, and its unit, when it comes again, takes its place", async (t) => {
  const archive = await makeArchive(t);
  const before = await archive.open();
  await store(before, archive.clip);
  await before.close();
  const [first] = await filesOf(archive);
  await damage(archive, first!);
  await rm(join(archive.dir, "index"), { recursive: true });
  const video = await archive.open();
  const [status] = video.cameras();
  assert.deepEqual([status!.fragments, status!.damaged], [2, 1]);
  await store(video, archive.clip);
  const [after] = video.cameras();
  assert.deepEqual([after!.fragments, after!.damaged], [3, 0]);
  assert.equal((await filesOf(archive))[0], first);
});

test("of damaged indexes the newest alone is kept", async (t) => {
  const archive = await makeArchive(t);
  for (let life = 0; life < 3; life++) {
    const video = await archive.open();
    await store(video, archive.clip);
    assert.equal(video.cameras()[0]!.fragments, 3);
    await video.close();
    await writeFile(join(archive.dir, "index/CURRENT"), "nonsense");
    archive.nowUs += 1_000_000;
  }
  const video = await archive.open();
  assert.equal(video.cameras()[0]!.fragments, 3);
  const aside = (await readdir(archive.dir)).filter((name) => name.startsWith("index.damaged-"));
  assert.deepEqual(aside, [`index.damaged-${archive.nowUs}`]);
});
