/** An agent deletes what is persisted, so nothing that was not understood may be left out of the archive. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { openVideo, type VideoArchive } from "../../../gateway/video/video-archive.ts";
import { decodeUnit } from "../../../protocol/footage.ts";
import { encodeRtp, parseRtp } from "../../../protocol/rtsp/rtp.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip, sendUnit, type TestUnit, unitsOf } from "../../support/h264-rtp.ts";

const EPOCH = 7n;
const FIRST_US = 1_800_000_000_000_000;

async function open(t: TestContext): Promise<{ dir: string; video: VideoArchive }> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-understood-"));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const video = await openVideo({ ...parts, dir, retentionHours: 1e6, maxBytes: 1e12 });
  t.after(async () => {
    await video.close();
    await rm(dir, { recursive: true, force: true });
  });
  return { dir, video };
}

/** The packet at `index` with another payload. */
function withPayload(unit: TestUnit, index: number, change: (payload: Buffer) => Buffer): TestUnit {
  const packets = [...unit.packets];
  const { track, rtp } = packets[index]!;
  const packet = parseRtp(rtp)!;
  packets[index] = { track, rtp: encodeRtp(packet, change(Buffer.from(packet.payload))) };
  return { ...unit, packets };
}

test("a unit with packets of a kind that we do not know is kept raw, whole and to the byte", async (t) => {
  const { dir, video } = await open(t);
  const clip = await makeClip(15);
  const [unit] = unitsOf(clip, EPOCH, FIRST_US);
  // RFC 6184 table 1: 29 is an FU-B, of the interleaved mode.
  const strange = withPayload(unit!, unit!.packets.length - 1, (payload) =>
    Buffer.concat([Buffer.of((payload[0]! & 0xe0) | 29), payload]),
  );
  const feed = video.openFeed("yard", clip.sdp);
  sendUnit(feed, strange);
  await feed.drained();
  assert.deepEqual(feed.persisted(), [{ epoch: EPOCH, first: 1n, last: 1n }]);
  const [fragment] = await video.fragments("yard", 0, FIRST_US * 2, 10);
  assert.equal(fragment!.state, "quarantined");
  const [hour] = await readdir(join(dir, "cameras/yard"));
  const [file] = await readdir(join(dir, "cameras/yard", hour!));
  const kept = decodeUnit(await readFile(join(dir, "cameras/yard", hour!, file!)));
  assert.deepEqual(
    kept.packets.map(({ rtp }) => rtp.toString("hex")),
    strange.packets.map(({ rtp }) => rtp.toString("hex")),
  );
});

test("a unit that lost packets before it was cut is archived playable, as nothing more can be had", async (t) => {
  const { video } = await open(t);
  const clip = await makeClip(30);
  const [first, second] = unitsOf(clip, EPOCH, FIRST_US);
  const feed = video.openFeed("yard", clip.sdp);
  sendUnit(feed, { ...first!, packets: first!.packets.filter((_, i) => i !== 9) });
  sendUnit(feed, second!);
  await feed.drained();
  const states = (await video.fragments("yard", 0, FIRST_US * 2, 10)).map(({ state }) => state);
  assert.deepEqual(states, ["whole", "whole"]);
});

test("a plain camera whose clock stands still is archived again once it runs", async (t) => {
  const { video } = await open(t);
  const clip = await makeClip(60);
  const [first, ...others] = unitsOf(clip, EPOCH, FIRST_US);
  const feed = video.openFeed("porch", clip.sdp);
  for (const { track, rtp } of first!.packets) feed.packet(track, rtp);
  const last = parseRtp(first!.packets.at(-1)!.rtp)!;
  const noise = Buffer.concat([Buffer.of(0x41), Buffer.alloc(1_400, 7)]);
  // One picture that never ends, of more bytes than any unit may have.
  for (let n = 0; n < 40_000; n++)
    feed.packet(0, encodeRtp({ ...last, sequence: (last.sequence + n) & 0xffff }, noise));
  for (const { packets } of others) for (const { track, rtp } of packets) feed.packet(track, rtp);
  await feed.close();
  const found = await video.fragments("porch", 0, Number.MAX_SAFE_INTEGER, 100);
  assert.ok(found.length >= 3, `${found.length} fragments`);
});
