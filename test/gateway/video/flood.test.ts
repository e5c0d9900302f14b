/** Units by the thousand: they wait within what is counted, and nothing waits that holds nothing. */
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { FragmentIndex } from "../../../gateway/video/archive/fragment-index.ts";
import { AudioSource } from "../../../gateway/video/depacketise/audio-source.ts";
import { LiveView } from "../../../gateway/video/live-view.ts";
import { openVideo, type VideoArchive } from "../../../gateway/video/video-archive.ts";
import { encodeUnitBegin } from "../../../protocol/footage.ts";
import { encodeRtp } from "../../../protocol/rtsp/rtp.ts";
import type { SdpMedia } from "../../../protocol/rtsp/sdp.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip, sendUnit, unitsOf } from "../../support/h264-rtp.ts";
import { bufferBytes, heldAtMost } from "../../support/held-memory.ts";
import { archivedDigests } from "../../support/picture-digests.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const FIRST_US = 1_800_000_000_000_000;

async function openArchive(t: TestContext): Promise<{ video: VideoArchive; metrics: Metrics }> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-flood-"));
  const metrics = new Metrics();
  const parts = { clock: systemClock, log: silentLog, metrics };
  const video = await openVideo({ ...parts, dir, retentionHours: 1e6, maxBytes: 1e12 });
  t.after(async () => {
    await video.close();
    await removeFolder(dir);
  });
  return { video, metrics };
}

test("units without a packet are counted, and wait for no disk", async (t) => {
  const { video, metrics } = await openArchive(t);
  const clip = await makeClip(15);
  const [unit] = unitsOf(clip, 7n, FIRST_US);
  const feed = video.openFeed("yard", clip.sdp);
  const begin = { epoch: 1n, producerUs: FIRST_US, startsWithKeyFrame: true };
  for (let sequence = 1n; sequence <= 20_000n; sequence++) {
    feed.rtcp(0, encodeUnitBegin(1, { ...begin, sequence }));
  }
  sendUnit(feed, unit!);
  const counted = await metrics.render();
  assert.match(counted, /headwater_video_units_total\{camera="yard",result="empty"\} 20000/);
  await feed.drained();
  assert.deepEqual(feed.persisted(), [{ epoch: 7n, first: 1n, last: 1n }]);
});

test("a unit of one packet that waits for the disk counts as more than its bytes", async (t) => {
  const { video } = await openArchive(t);
  const clip = await makeClip(1, { size: "64x64" });
  const [unit] = unitsOf(clip, 7n, FIRST_US);
  const feed = video.openFeed("yard", clip.sdp);
  const small = { ...unit!, packets: unit!.packets.slice(0, 1) };
  for (let sequence = 1n; sequence <= 300n; sequence++) sendUnit(feed, { ...small, sequence });
  assert.ok(feed.waitingBytes() > 16 * 1_048_576, `${feed.waitingBytes()} bytes`);
  await feed.drained();
  assert.equal(feed.waitingBytes(), 0);
});

test("pictures that wait to be put in order hold their own bytes, not those of the packets around them", async () => {
  const live = new LiveView(silentLog);
  const format = { codec: "avc1", kind: "avc", width: 1, height: 1, configuration: undefined } as const;
  const parameters = { ...format, parameterSets: [] };
  const before = bufferBytes();
  for (let n = 0; n < 1_000; n++) {
    const pieces = [Buffer.alloc(4), Buffer.alloc(65_000, n).subarray(64_990)];
    // Shown in another order than they are decoded in.
    const pts90k = n * 6_000 - (n % 2) * 9_000;
    live.push(parameters, { pieces, bytes: 14, keyFrame: n === 0, pts90k, producerUs: n }, undefined);
  }
  await heldAtMost(8 * 1_048_576, before);
  assert.equal(live.viewers, 0);
});

test("the parts of a sound hold their own bytes, not those of the packets around them", async () => {
  const fmtp = new Map(Object.entries({ sizelength: "13", indexlength: "3", config: "1190" }));
  const media: SdpMedia = {
    ...{ kind: "audio", payloadType: 97, encoding: "MPEG4-GENERIC", clockRate: 48_000, channels: 2, fmtp },
    ...{ control: undefined, attributes: [] },
  };
  const source = new AudioSource(media);
  // One access unit of 8,000 bytes, a byte a packet, each packet with an extension of 60,000 bytes before it.
  const part = Buffer.from([0, 16, (8_000 << 3) >> 8, (8_000 << 3) & 0xff, 7]);
  const before = bufferBytes();
  for (let sequence = 0; sequence < 1_000; sequence++) {
    const head = { marker: false, payloadType: 97, sequence, timestamp: 1, ssrc: 1 };
    const rtp = encodeRtp(head, Buffer.concat([Buffer.from([0, 0, 0x3a, 0x98]), Buffer.alloc(60_000), part]));
    rtp[0]! |= 0x10;
    assert.deepEqual(source.push(rtp), []);
  }
  await heldAtMost(8 * 1_048_576, before);
  assert.equal(source.format.channels, 2);
});

test("where every picture is a key frame, units of a plain camera are some pictures long all the same", async (t) => {
  const { video } = await openArchive(t);
  const clip = await makeClip(45, { encoder: ["-bf", "0", "-g", "1"] });
  assert.ok(clip.pictures.every(({ keyFrame }) => keyFrame));
  const feed = video.openFeed("yard", clip.sdp);
  for (const { packets } of unitsOf(clip, 1n, FIRST_US)) {
    for (const { track, rtp } of packets) feed.packet(track, rtp);
  }
  await feed.close();
  assert.equal((await video.fragments("yard", 0, Number.MAX_SAFE_INTEGER, 100)).length, 6);
  const sent = clip.pictures.map(({ vclSha256 }) => vclSha256);
  assert.deepEqual(await archivedDigests(video, "yard"), sent);
});

test("what waits for a slow disk is counted for its camera, though who sent it comes again and again", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-flood-"));
  let letGo = (): void => undefined;
  const disk = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  class SlowIndex extends FragmentIndex {
    override async put(...row: Parameters<FragmentIndex["put"]>): Promise<void> {
      await disk;
      return super.put(...row);
    }
  }
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const index = new SlowIndex(join(dir, "index"));
  const video = await openVideo({ ...parts, dir, index, retentionHours: 1e6, maxBytes: 1e12 });
  t.after(async () => {
    letGo();
    await video.close();
    await removeFolder(dir);
  });
  const clip = await makeClip(15);
  const [unit] = unitsOf(clip, 7n, FIRST_US);
  const closed: Promise<void>[] = [];
  for (let life = 0; life < 300; life++) {
    const feed = video.openFeed("yard", clip.sdp);
    sendUnit(feed, unit!);
    closed.push(feed.close());
  }
  const feed = video.openFeed("yard", clip.sdp);
  assert.ok(feed.waitingBytes() > 16 * 1_048_576, `${feed.waitingBytes()} bytes`);
  let hasDrained = false;
  const drained = feed.drained().then(() => {
    hasDrained = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(hasDrained, false);
  letGo();
  await drained;
  await Promise.all(closed);
  assert.equal(feed.waitingBytes(), 0);
  assert.equal(video.cameras()[0]!.fragments, 1);
});
