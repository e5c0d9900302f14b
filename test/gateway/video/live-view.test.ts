import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { H265Parameters } from "../../../gateway/video/depacketise/h265-format.ts";
import { LiveView } from "../../../gateway/video/live-view.ts";
import type { LiveViewer } from "../../../gateway/video/video.ts";
import { openVideo, type VideoArchive } from "../../../gateway/video/video-archive.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip, Packer, sendUnit, unitsOf } from "../../support/h264-rtp.ts";
import { pictureDigests } from "../../support/picture-digests.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const FIRST_US = 1_800_000_000_000_000;

class Recorder implements LiveViewer {
  readonly inits: { mimeType: string; segment: Uint8Array }[] = [];
  readonly segments: { bytes: Uint8Array; producerUs: number; atMs: number }[] = [];
  backlog = 0;

  init(mimeType: string, segment: Uint8Array): void {
    this.inits.push({ mimeType, segment });
  }

  media(bytes: Uint8Array, producerUs: number): void {
    this.segments.push({ bytes, producerUs, atMs: performance.now() });
  }

  backlogBytes(): number {
    return this.backlog;
  }

  /** What a SourceBuffer would hold. */
  file(): Buffer {
    return Buffer.concat([this.inits[0]!.segment, ...this.segments.map((segment) => segment.bytes)]);
  }

  digests(): string[] {
    return pictureDigests(this.file()).map((picture) => picture.vclSha256);
  }
}

async function makeVideo(t: TestContext): Promise<VideoArchive> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-live-"));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const video = await openVideo({ ...parts, dir, retentionHours: 1_000_000, maxBytes: 1e12 });
  t.after(async () => {
    await video.close();
    await removeFolder(dir);
  });
  return video;
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
}

test("a viewer gets init and every picture, on one line of time without gaps", async (t) => {
  const video = await makeVideo(t);
  const clip = await makeClip(45);
  const feed = video.openFeed("yard", clip.sdp);
  const viewer = new Recorder();
  const stop = video.watch("yard", viewer);
  // The agent was away for a minute between the second and the third unit, and came with other RTP times.
  const later = unitsOf(
    { ...clip, pictures: clip.pictures.map((p) => ({ ...p, rtpTime: (p.rtpTime + 777_777_777) >>> 0 })) },
    1n,
    FIRST_US + 60_000_000,
  );
  const units = [...unitsOf(clip, 1n, FIRST_US).slice(0, 2), later[2]!];
  for (const unit of units) sendUnit(feed, unit);
  await until(() => viewer.segments.length === 45);
  assert.equal(viewer.inits.length, 1);
  assert.equal(viewer.inits[0]!.mimeType, 'video/mp4; codecs="avc1.42c00a"');
  const pictures = pictureDigests(viewer.file());
  assert.deepEqual(
    pictures.map((picture) => picture.vclSha256),
    clip.pictures.map((picture) => picture.vclSha256),
  );
  assert.deepEqual(
    pictures.map((picture) => picture.decodeTime),
    pictures.map((_, i) => i * 6_000),
  );
  assert.equal(viewer.segments[15]!.producerUs, FIRST_US + 1_000_000);
  assert.equal(viewer.segments[30]!.producerUs, FIRST_US + 62_000_000);
  const decoded = execFileSync("ffmpeg", ["-v", "warning", "-i", "-", "-f", "framecrc", "-"], {
    input: viewer.file(),
  });
  assert.equal(
    decoded
      .toString()
      .split("\n")
      .filter((line) => /^0,/.test(line)).length,
    45,
  );
  stop();
  assert.equal(video.cameras()[0]!.viewers, 0);
});

test("a picture is shown as soon as the next one begins, long before its unit ends", async (t) => {
  const video = await makeVideo(t);
  const clip = await makeClip(15);
  const feed = video.openFeed("yard", clip.sdp);
  const viewer = new Recorder();
  video.watch("yard", viewer);
  const packer = new Packer();
  const send = (i: number): void => {
    for (const { track, rtp } of packer.packets(clip.pictures[i]!)) feed.packet(track, rtp);
  };
  send(0);
  send(1);
  await until(() => viewer.segments.length === 1);
  for (let i = 2; i < 15; i++) {
    send(i);
    assert.equal(viewer.segments.length, i);
  }
});

test("a joiner begins with the newest key frame, a slow viewer goes on with the next", async (t) => {
  const video = await makeVideo(t);
  const clip = await makeClip(60);
  const feed = video.openFeed("yard", clip.sdp);
  const units = unitsOf(clip, 1n, FIRST_US);
  sendUnit(feed, units[0]!);
  sendUnit(feed, units[1]!, "half");
  await feed.drained();
  const joiner = new Recorder();
  video.watch("yard", joiner);
  const expected = clip.pictures.map((picture) => picture.vclSha256);
  assert.equal(joiner.digests()[0], expected[15]);

  // The whole unit comes again: what was shown is not shown twice.
  sendUnit(feed, units[1]!);
  assert.deepEqual(joiner.digests(), expected.slice(15, 30));

  joiner.backlog = 5_000_000;
  sendUnit(feed, units[2]!, "half");
  joiner.backlog = 0;
  sendUnit(feed, units[2]!);
  assert.deepEqual(joiner.digests(), expected.slice(15, 30));
  sendUnit(feed, units[3]!);
  assert.deepEqual(joiner.digests(), [...expected.slice(15, 30), ...expected.slice(45)]);
});

test("another size brings another init; a viewer that fails is let go", async (t) => {
  const video = await makeVideo(t);
  const [small, large] = [await makeClip(15), await makeClip(15, { size: "320x240" })];
  const viewer = new Recorder();
  const first = video.openFeed("yard", small.sdp);
  const failing = new Recorder();
  failing.media = () => {
    throw new Error("the socket is gone");
  };
  video.watch("yard", failing);
  video.watch("yard", viewer);
  for (const unit of unitsOf(small, 1n, FIRST_US)) sendUnit(first, unit);
  await until(() => viewer.segments.length === 15);
  await first.close();
  const second = video.openFeed("yard", large.sdp);
  for (const unit of unitsOf(large, 2n, FIRST_US + 5_000_000)) sendUnit(second, unit);
  await until(() => viewer.segments.length === 30);
  assert.equal(viewer.inits.length, 2);
  assert.equal(video.cameras()[0]!.viewers, 1);
  assert.equal(video.cameras()[0]!.width, 320);
});

test("who watches a camera before it was ever heard of sees it once it publishes", async (t) => {
  const video = await makeVideo(t);
  const clip = await makeClip(15);
  const viewer = new Recorder();
  const gone = new Recorder();
  const stop = video.watch("yard", viewer);
  video.watch("yard", gone)();
  const feed = video.openFeed("yard", clip.sdp);
  for (const unit of unitsOf(clip, 1n, FIRST_US)) sendUnit(feed, unit);
  await feed.drained();
  assert.equal(viewer.segments.length, 15);
  assert.equal(gone.segments.length, 0);
  stop();
  assert.equal(video.cameras()[0]!.viewers, 0);
});

test("behind a new init segment a viewer begins with a key frame", async (t) => {
  const video = await makeVideo(t);
  const [small, large] = [await makeClip(15), await makeClip(30, { size: "320x240" })];
  const viewer = new Recorder();
  const feed = video.openFeed("yard", small.sdp);
  video.watch("yard", viewer);
  for (const unit of unitsOf(small, 1n, FIRST_US)) sendUnit(feed, unit);
  await until(() => viewer.segments.length === 15);
  const second = video.openFeed("yard", large.sdp);
  const [first, next] = unitsOf(large, 2n, FIRST_US + 5_000_000);
  // The second part of a group of pictures that was longer than a unit.
  const packer = new Packer();
  const packets = large.pictures.slice(5, 15).flatMap((picture) => packer.packets(picture));
  sendUnit(second, { ...first!, startsWithKeyFrame: false, packets });
  sendUnit(second, next!);
  await until(() => viewer.segments.length >= 30);
  assert.equal(viewer.inits.length, 2);
  const shown = Buffer.concat([
    viewer.inits[1]!.segment,
    ...viewer.segments.slice(15).map((segment) => segment.bytes),
  ]);
  assert.deepEqual(
    pictureDigests(shown).map((picture) => picture.vclSha256),
    large.pictures.slice(15).map((picture) => picture.vclSha256),
  );
});

test("pictures that can never be shown are not kept for it", async () => {
  // An H.265 description that ends where the size was told: no init segment can be made of it.
  const sps = "420101016000000300900000030000030078a003c0801107cb96b4a4";
  const parameters = new H265Parameters();
  parameters.learn(
    ["40010c01ffff016000000300900000030000030078959809", sps, "4401c172b46240"].map((hex) =>
      Buffer.from(hex, "hex"),
    ),
  );
  const format = parameters.format!;
  const warnings: string[] = [];
  const live = new LiveView({ ...silentLog, warn: (_fields, message) => void warnings.push(message ?? "") });
  const startedMs = performance.now();
  const heldBytes = (): number => process.memoryUsage().arrayBuffers;
  const beforeBytes = heldBytes();
  for (let i = 0; i < 900; i++) {
    const data = Buffer.alloc(200_000);
    const picture = {
      pieces: [data],
      bytes: data.length,
      keyFrame: i % 15 === 0,
      pts90k: i * 6_000,
      producerUs: i,
    };
    live.push(format, picture, (i + 1) * 6_000);
    if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await until(() => warnings.length > 0);
  while (heldBytes() - beforeBytes > 64 * 1_048_576) {
    // What is not held goes sooner or later; what is held never does.
    (globalThis.gc ?? (() => Buffer.alloc(1_048_576)))();
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(performance.now() - startedMs < 60_000, `${heldBytes() - beforeBytes} bytes are held`);
  }
  assert.deepEqual(warnings, ["no live view of this format"]);
});
