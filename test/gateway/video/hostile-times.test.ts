/** A unit that closed its connection would be sent again for ever; so no times that a camera stamps may do so. */
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import fc from "fast-check";
import { openVideo } from "../../../gateway/video/video-archive.ts";
import { encodeSenderReport } from "../../../protocol/rtsp/rtcp.ts";
import { encodeRtp, parseRtp } from "../../../protocol/rtsp/rtp.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip, sendUnit, type TestUnit, unitsOf } from "../../support/h264-rtp.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const uint32 = fc.oneof(fc.nat(0xffff_ffff), fc.constantFrom(0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff));

/** Every picture of the unit at another time. */
function retimed(unit: TestUnit, times: readonly number[]): TestUnit {
  const seen = new Map<number, number>();
  const packets = unit.packets.map(({ track, rtp }) => {
    const packet = parseRtp(rtp)!;
    if (!seen.has(packet.timestamp)) seen.set(packet.timestamp, times[seen.size % times.length]!);
    return { track, rtp: encodeRtp({ ...packet, timestamp: seen.get(packet.timestamp)! }, packet.payload) };
  });
  return { ...unit, packets };
}

test("whatever times a camera stamps, its units are stored and nothing throws", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-times-"));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const video = await openVideo({ ...parts, dir, retentionHours: 1e9, maxBytes: 1e12 });
  t.after(async () => {
    await video.close();
    await removeFolder(dir);
  });
  const clip = await makeClip(15, { size: "64x64" });
  const [unit] = unitsOf(clip, 1n, 0);
  const producerTimes = fc.constantFrom(0, 1, systemClock.nowUs(), Number.MAX_SAFE_INTEGER);
  let sequence = 0n;
  let shown = 0;
  video.openFeed("yard", clip.sdp);
  const viewer = { init: () => {}, media: () => void shown++, backlogBytes: () => 0 };
  video.watch("yard", viewer);
  await fc.assert(
    fc.asyncProperty(
      fc.array(uint32, { minLength: 2, maxLength: 15 }),
      producerTimes,
      fc.tuple(uint32, fc.nat(Number.MAX_SAFE_INTEGER)),
      async (times, producerUs, [rtpTime, utcUs]) => {
        const feed = video.openFeed("yard", clip.sdp);
        const own = video.openFeed("porch", clip.sdp);
        const next = retimed({ ...unit!, producerUs, sequence: ++sequence }, times);
        const report = encodeSenderReport({ ssrc: 1, utcUs, rtpTime, packetCount: 0, octetCount: 0 });
        own.rtcp(0, report);
        for (const { track, rtp } of next.packets) own.packet(track, rtp);
        feed.rtcp(0, report);
        sendUnit(feed, next);
        await feed.close();
        await own.close();
        const [range] = feed.persisted().filter(({ epoch }) => epoch === 1n);
        assert.equal(range?.last, sequence);
      },
    ),
    { numRuns: 60 },
  );
  assert.ok(shown > 0);
});

test("footage of the years after 2036, where NTP's seconds begin anew, is as playable as any", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-2040-"));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const video = await openVideo({ ...parts, dir, retentionHours: 1e9, maxBytes: 1e12 });
  t.after(async () => {
    await video.close();
    await removeFolder(dir);
  });
  const clip = await makeClip(15, { size: "64x64" });
  const [unit] = unitsOf(clip, 1n, Date.UTC(2040, 0) * 1_000);
  const feed = video.openFeed("yard", clip.sdp);
  sendUnit(feed, unit!);
  await feed.close();
  const [fragment] = await video.fragments("yard", 0, Number.MAX_SAFE_INTEGER, 10);
  assert.equal(fragment!.state, "whole");
});
