/** An agent deletes what is persisted, so nothing that was not understood may be left out of the archive. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { H265Depacketiser } from "../../../gateway/video/depacketise/h265-depacketiser.ts";
import { openVideo, type VideoArchive } from "../../../gateway/video/video-archive.ts";
import { decodeUnit, type FootagePacket } from "../../../protocol/footage.ts";
import { encodeRtp, parseRtp } from "../../../protocol/rtsp/rtp.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip, sendUnit, type TestUnit, unitsOf } from "../../support/h264-rtp.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const EPOCH = 7n;
const FIRST_US = 1_800_000_000_000_000;

async function open(t: TestContext): Promise<{ dir: string; video: VideoArchive; metrics: Metrics }> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-understood-"));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const video = await openVideo({ ...parts, dir, retentionHours: 1e6, maxBytes: 1e12 });
  t.after(async () => {
    await video.close();
    await removeFolder(dir);
  });
  return { dir, video, metrics: parts.metrics };
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

/** One packet with one AAC access unit, as RFC 3640 has it. */
function sound(sequence: number, payload: Buffer): FootagePacket {
  const fields = { marker: true, payloadType: 97, sequence, timestamp: sequence * 1_024, ssrc: 2 };
  return { track: 1, rtp: encodeRtp(fields, payload) };
}

for (const [what, rtpmap, config] of [
  ["of another kind than any file takes", "MPEG4-GENERIC/48000/2", "0990"],
  ["of no channel", "MPEG4-GENERIC/48000/0", "1190"],
] as const) {
  test(`sound ${what} costs no picture`, async (t) => {
    const { video } = await open(t);
    const clip = await makeClip(30);
    const fmtp = `a=fmtp:97 mode=AAC-hbr;sizelength=13;indexlength=3;config=${config}`;
    const sdp = `${clip.sdp}m=audio 0 RTP/AVP 97\r\na=rtpmap:97 ${rtpmap}\r\n${fmtp}\r\na=control:trackID=1\r\n`;
    const packets = Array.from({ length: 20 }, (_, n) => sound(n, Buffer.from("00100020ffffffff", "hex")));
    const feed = video.openFeed("yard", sdp);
    const plain = video.openFeed("porch", sdp);
    for (const unit of unitsOf(clip, EPOCH, FIRST_US)) {
      const both = { ...unit, packets: [...packets, ...unit.packets] };
      sendUnit(feed, both);
      for (const { track, rtp } of both.packets) plain.packet(track, rtp);
    }
    await feed.drained();
    await plain.close();
    for (const camera of ["yard", "porch"]) {
      const states = (await video.fragments(camera, 0, Number.MAX_SAFE_INTEGER, 10)).map(
        ({ state }) => state,
      );
      assert.deepEqual(states, ["whole", "whole"]);
    }
  });
}

test("sound that is not understood is counted", async (t) => {
  const { video, metrics } = await open(t);
  const clip = await makeClip(15);
  const fmtp = "a=fmtp:97 mode=AAC-hbr;sizelength=13;indexlength=3;config=1190";
  const sdp = `${clip.sdp}m=audio 0 RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/48000/2\r\n${fmtp}\r\na=control:trackID=1\r\n`;
  const packets = [
    "00100020ffffffff", // whole
    "0010", // cut off
    "ffff0020ffffffff", // more heads than bytes
    "00200020ff2000ff", // the second access unit is longer than what is left
    "001001f0ffffffff", // the first part of one whose others never come
    "00100020ffffffff",
  ].map((hex, n) => sound(n, Buffer.from(hex, "hex")));
  const feed = video.openFeed("yard", sdp);
  const [unit] = unitsOf(clip, EPOCH, FIRST_US);
  sendUnit(feed, { ...unit!, packets: [...packets, ...unit!.packets] });
  await feed.drained();
  assert.match(await metrics.render(), /headwater_video_unstored_packets_total\{camera="yard"\} 4\n/);
});

test("an H.265 NAL unit that is its header alone is part of its picture, and what ends too early damages one", () => {
  const head = { marker: true, payloadType: 96, ssrc: 1 };
  const slice = Buffer.from("0201d0ffff", "hex");
  const endOfSequence = Buffer.from("4801", "hex");
  const pictureOf = (payload: Buffer) => {
    const depacketiser = new H265Depacketiser();
    depacketiser.push(parseRtp(encodeRtp({ ...head, sequence: 1, timestamp: 1 }, slice))!);
    depacketiser.push(parseRtp(encodeRtp({ ...head, sequence: 2, timestamp: 1 }, payload))!);
    return depacketiser.flush()!;
  };
  const { nals, damaged } = pictureOf(endOfSequence);
  assert.deepEqual(nals, [slice, endOfSequence]);
  assert.equal(damaged, false);
  // One byte; an aggregate with a byte too many; a fragment without a body.
  for (const hex of ["48", "600100024801ff", "6201d3"])
    assert.equal(pictureOf(Buffer.from(hex, "hex")).damaged, true);
});
