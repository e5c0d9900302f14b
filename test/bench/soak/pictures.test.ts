/** The soak counts pictures as records; that holds only if the archive and a live reader give each back as it was sent. */
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { Ledger, Producer } from "../../../bench/soak/ledger.ts";
import { CAMERA_SDP, PictureStream, recordsIn } from "../../../bench/soak/pictures.ts";
import { openVideo } from "../../../gateway/video/video-archive.ts";
import { H264Depacketiser } from "../../../protocol/rtsp/h264.ts";
import { parseRtp } from "../../../protocol/rtsp/rtp.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const PICTURES = 45;
const GROUP = 20;
const START_US = 1_795_255_483_123_000;

/** Every 20th is a key frame, too large for one packet. */
function packetsOf(producer: Producer, stream: PictureStream): Buffer[][] {
  return Array.from({ length: PICTURES }, (_, i) => {
    const keyFrame = i % GROUP === 0;
    return stream.packets(producer.next(keyFrame ? 2_500 : 500), keyFrame, START_US + i * 100_000);
  });
}

test("the archive of a stand-in camera holds each of its pictures once and in order", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-pictures-"));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const video = await openVideo({ ...parts, dir, retentionHours: 1e6, maxBytes: 1e12 });
  t.after(async () => {
    await video.close();
    await removeFolder(dir);
  });
  const ledger = new Ledger();
  const producer = new Producer(ledger, "yard", "yard");
  const stream = new PictureStream();
  const feed = video.openFeed("yard", CAMERA_SDP);
  for (const rtp of packetsOf(producer, stream).flat()) feed.packet(0, rtp);
  await feed.close();
  producer.acknowledged();

  const view = ledger.view("the archive", "yard", true);
  const fragments = await video.fragments("yard", 0, Number.MAX_SAFE_INTEGER, 100);
  assert.deepEqual(
    fragments.map(({ state }) => state),
    ["whole", "whole", "whole"],
  );
  for (const { id } of fragments) {
    for (const record of recordsIn((await video.readFragment("yard", id))!)) view.take(record);
  }
  ledger.close();
  assert.deepEqual(ledger.findings, []);
  assert.equal(ledger.readRecords, PICTURES);
});

test("who comes later reads on from the picture that it sees first", () => {
  const ledger = new Ledger();
  const producer = new Producer(ledger, "yard", "yard");
  const view = ledger.passingView("somebody", "yard");
  const depacketiser = new H264Depacketiser();
  const packets = packetsOf(producer, new PictureStream()).slice(GROUP).flat();
  const pictures = packets.map((rtp) => depacketiser.push(parseRtp(rtp)!));
  for (const picture of [...pictures, depacketiser.flush()]) {
    assert.ok(picture?.damaged !== true);
    for (const nal of picture?.nals ?? []) view.take(nal.subarray(2));
  }
  assert.deepEqual(ledger.findings, []);
  assert.equal(ledger.readRecords, PICTURES - GROUP);
});

test("a fragment whose pictures are not as many as its records is told", () => {
  assert.throws(() => recordsIn(Buffer.from('{"producer":"yard","seq":1')), /./);
});
