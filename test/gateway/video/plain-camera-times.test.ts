/** When a picture of a camera without brackets was taken, whatever its clock and ours do. */
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import type { CameraFeed } from "../../../gateway/video/video.ts";
import { openVideo } from "../../../gateway/video/video-archive.ts";
import { encodeSenderReport } from "../../../protocol/rtsp/rtcp.ts";
import { encodeRtp, parseRtp } from "../../../protocol/rtsp/rtp.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip, unitsOf } from "../../support/h264-rtp.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const FIRST_US = 1_800_000_000_000_000;
const HOUR_US = 3_600_000_000;

interface PlainCamera {
  readonly feed: CameraFeed;
  /** The gateway's clock. */
  nowUs: number;
  /** A group of pictures, one second long, that begins at this time of the camera's own clock. */
  send(rtpTime: number): void;
  /** When the archive says that each group began. */
  close(): Promise<number[]>;
}

async function plainCamera(t: TestContext, nowUs: number): Promise<PlainCamera> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-plain-"));
  const clip = await makeClip(15);
  const [unit] = unitsOf(clip, 1n, 0);
  let sequence = 0;
  const hands = { nowUs };
  const clock = { nowUs: () => hands.nowUs, monotonicMs: () => performance.now() };
  const parts = { clock, log: silentLog, metrics: new Metrics() };
  const video = await openVideo({ ...parts, dir, retentionHours: 1e9, maxBytes: 1e12 });
  t.after(async () => {
    await video.close();
    await removeFolder(dir);
  });
  const feed = video.openFeed("porch", clip.sdp);
  const camera: PlainCamera = {
    feed,
    get nowUs() {
      return hands.nowUs;
    },
    set nowUs(us) {
      hands.nowUs = us;
    },
    send(rtpTime) {
      for (const { track, rtp } of unit!.packets) {
        const packet = parseRtp(rtp)!;
        const timestamp = (packet.timestamp + rtpTime) % 2 ** 32;
        feed.packet(
          track,
          encodeRtp({ ...packet, timestamp, sequence: sequence++ & 0xffff }, packet.payload),
        );
      }
    },
    async close() {
      await feed.close();
      const found = await video.fragments("porch", 0, Number.MAX_SAFE_INTEGER, 1_000);
      return found.map(({ producerUs }) => producerUs);
    },
  };
  return camera;
}

/** One group an hour for 30 hours; the RTP clock wraps twice meanwhile. */
async function thirtyHours(camera: PlainCamera): Promise<void> {
  for (let hour = 0; hour < 30; hour++) {
    camera.nowUs = FIRST_US + hour * HOUR_US;
    camera.send(hour * 3_600 * 90_000);
    await camera.feed.drained();
  }
  const starts = await camera.close();
  assert.deepEqual(
    starts,
    Array.from({ length: 30 }, (_, hour) => FIRST_US + hour * HOUR_US),
  );
}

test("a camera without sender reports keeps its time for longer than its clock can count", async (t) => {
  await thirtyHours(await plainCamera(t, FIRST_US));
});

test("a camera that reported once keeps that time for longer than its clock can count", async (t) => {
  const camera = await plainCamera(t, FIRST_US);
  const report = { ssrc: 1, utcUs: FIRST_US, rtpTime: 0, packetCount: 0, octetCount: 0 };
  camera.feed.rtcp(0, encodeSenderReport(report));
  await thirtyHours(camera);
});

test("once the gateway's clock is set, so is the time of a camera without reports", async (t) => {
  const camera = await plainCamera(t, 0);
  camera.send(0);
  camera.nowUs = FIRST_US;
  camera.send(90_000);
  camera.nowUs += 1_000_000;
  camera.send(180_000);
  const starts = await camera.close();
  assert.deepEqual(starts, [0, FIRST_US, FIRST_US + 1_000_000]);
});

test("a camera whose own clock jumps stays where it is in time", async (t) => {
  const camera = await plainCamera(t, FIRST_US);
  camera.send(0);
  camera.nowUs += 1_000_000;
  camera.send(2 ** 30);
  camera.nowUs += 1_000_000;
  camera.send(7 * 90_000);
  const starts = await camera.close();
  assert.deepEqual(starts, [FIRST_US, FIRST_US + 1_000_000, FIRST_US + 2_000_000]);
});

for (const [where, jumpSeconds] of [
  ["ahead", 10_000],
  ["back", -10_000],
] as const) {
  test(`a camera with reports whose RTP times begin anew ${where} stays where it is in time`, async (t) => {
    const camera = await plainCamera(t, FIRST_US);
    const jump = jumpSeconds * 90_000;
    const report = { ssrc: 1, utcUs: FIRST_US, rtpTime: 2 ** 30, packetCount: 0, octetCount: 0 };
    camera.feed.rtcp(0, encodeSenderReport(report));
    camera.send(2 ** 30);
    camera.nowUs += 1_000_000;
    camera.send(2 ** 30 + 90_000);
    camera.nowUs += 1_000_000;
    camera.send(2 ** 30 + 180_000 + jump);
    camera.nowUs += 1_000_000;
    camera.send(2 ** 30 + 270_000 + jump);
    camera.nowUs += 1_000_000;
    // Its next report is believed again, also where its own clock was set back.
    const next = { ...report, utcUs: FIRST_US - HOUR_US, rtpTime: 2 ** 30 + 360_000 + jump };
    camera.feed.rtcp(0, encodeSenderReport(next));
    camera.send(2 ** 30 + 360_000 + jump);
    const starts = await camera.close();
    assert.deepEqual(
      starts,
      [-HOUR_US, 0, 1_000_000, 2_000_000, 3_000_000].map((us) => FIRST_US + us),
    );
  });
}

test("what RECORD says of the first picture's time holds, and reports that fit it are followed", async (t) => {
  const camera = await plainCamera(t, FIRST_US);
  const startUs = FIRST_US - 1_000 * HOUR_US;
  camera.feed.startsAt(startUs);
  camera.send(500);
  camera.send(90_500);
  const report = { ssrc: 1, utcUs: startUs + 2_250_000, rtpTime: 180_500, packetCount: 0, octetCount: 0 };
  camera.feed.rtcp(0, encodeSenderReport(report));
  camera.send(180_500);
  const starts = await camera.close();
  assert.deepEqual(starts, [startUs, startUs + 1_000_000, startUs + 2_250_000]);
});
