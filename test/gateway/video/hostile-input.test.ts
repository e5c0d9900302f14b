import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import fc from "fast-check";
import { SequenceRanges } from "../../../gateway/video/archive/sequence-ranges.ts";
import { AudioSource } from "../../../gateway/video/depacketise/audio-source.ts";
import { BitReader, MalformedParameterSetError } from "../../../gateway/video/depacketise/bit-reader.ts";
import { H264Parameters, pictureSize } from "../../../gateway/video/depacketise/h264-format.ts";
import { H265Depacketiser } from "../../../gateway/video/depacketise/h265-depacketiser.ts";
import { H265Parameters } from "../../../gateway/video/depacketise/h265-format.ts";
import { lengthPrefixed } from "../../../gateway/video/depacketise/picture-source.ts";
import {
  buildFragment,
  DamagedFragmentError,
  readFacts,
} from "../../../gateway/video/fragments/fragment-file.ts";
import { openVideo } from "../../../gateway/video/video-archive.ts";
import { encodeRtp, parseRtp } from "../../../protocol/rtsp/rtp.ts";
import type { SdpMedia } from "../../../protocol/rtsp/sdp.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip, sendUnit, unitsOf } from "../../support/h264-rtp.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((array) => Buffer.from(array));

test("sizes are read from real parameter sets, cropped ones too", async () => {
  for (const size of ["160x120", "1280x720", "1920x1080", "322x242"]) {
    const clip = await makeClip(1, { size });
    const sps = clip.pictures[0]!.nals.find((nal) => (nal[0]! & 0x1f) === 7)!;
    const { width, height } = pictureSize(sps);
    assert.equal(`${width}x${height}`, size);
  }
  const high = await makeClip(1, { size: "322x242", encoder: ["-preset", "medium", "-profile:v", "high"] });
  const sps = high.pictures[0]!.nals.find((nal) => (nal[0]! & 0x1f) === 7)!;
  assert.deepEqual(pictureSize(sps), { width: 322, height: 242 });
});

test("any bytes are a parameter set or a MalformedParameterSetError", () => {
  fc.assert(
    fc.property(bytes(64), (body) => {
      const nal = Buffer.concat([Buffer.from([0x67, 100, 0, 31]), body]);
      try {
        const { width, height } = pictureSize(nal);
        assert.ok(width > 0 && height > 0 && width <= 16_384 && height <= 16_384);
      } catch (error) {
        assert.ok(error instanceof MalformedParameterSetError);
      }
      const parameters = new H264Parameters();
      parameters.learn([nal, Buffer.concat([Buffer.from([0x68]), body]), body]);
      void parameters.format;
    }),
    { numRuns: 2_000 },
  );
});

test("any packets become H.265 access units of bounded size, and any bytes a parameter set or none", () => {
  const depacketiser = new H265Depacketiser();
  const kinds = fc.constantFrom(0, 19, 32, 33, 34, 48, 49, 50, 63);
  fc.assert(
    fc.property(kinds, bytes(80), fc.nat(20), fc.nat(3), (kind, body, sequence, timestamp) => {
      const payload = Buffer.concat([Buffer.from([kind << 1, 1]), body]);
      const head = { marker: false, payloadType: 96, sequence, timestamp, ssrc: 1 };
      const unit = depacketiser.push(parseRtp(encodeRtp(head, payload))!);
      for (const nal of unit?.nals ?? []) assert.ok(nal.length >= 2);
      const parameters = new H265Parameters();
      parameters.learn([32, 33, 34].map((type) => Buffer.concat([Buffer.from([type << 1, 1]), body])));
      const format = parameters.format;
      if (format !== undefined) assert.ok(format.width > 0 && format.height <= 16_384);
    }),
    { numRuns: 2_000 },
  );
});

test("Exp-Golomb numbers are what was written", () => {
  const reader = new BitReader(Buffer.from([0b1_010_011_0, 0b0100_0010, 0b1_0000000]));
  assert.deepEqual([reader.unsigned(), reader.unsigned(), reader.unsigned()], [0, 1, 2]);
  assert.deepEqual([reader.unsigned(), reader.signed()], [3, -2]);
});

test("any change to a fragment's bytes is noticed", async () => {
  const clip = await makeClip(2);
  const parameters = new H264Parameters();
  parameters.learn(clip.pictures[0]!.nals);
  const format = parameters.format!;
  const pictures = clip.pictures.map((picture, i) => ({
    ...lengthPrefixed(picture.nals, format),
    keyFrame: picture.keyFrame,
    pts90k: i * 6_000,
    producerUs: i,
  }));
  const source = {
    camera: "yard",
    epoch: "00",
    sequence: 1n,
    producerUs: 1,
    state: "whole",
    format,
    pictures,
  } as const;
  const { bytes: file, facts } = await buildFragment(source);
  assert.deepEqual(readFacts(file), facts);
  fc.assert(
    fc.property(fc.nat(file.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const damaged = Buffer.from(file);
      damaged[at]! ^= change;
      assert.throws(() => readFacts(damaged), DamagedFragmentError);
      assert.throws(() => readFacts(file.subarray(0, at)), DamagedFragmentError);
    }),
  );
  fc.assert(fc.property(bytes(300), (body) => assert.throws(() => readFacts(body), DamagedFragmentError)));
});

test("any packets are AAC frames of sane length, or none", () => {
  const media: SdpMedia = {
    kind: "audio",
    payloadType: 97,
    encoding: "MPEG4-GENERIC",
    clockRate: 48_000,
    channels: 2,
    fmtp: new Map([
      ["sizelength", "13"],
      ["indexlength", "3"],
      ["config", "1190"],
    ]),
    control: undefined,
    attributes: [],
  };
  const source = new AudioSource(media);
  fc.assert(
    fc.property(bytes(120), fc.integer({ min: 0, max: 7 }), fc.nat(0xffff), (body, units, sequence) => {
      const payload = Buffer.concat([Buffer.from([0, units * 16]), body]);
      const head = { marker: true, payloadType: 97, sequence, timestamp: sequence * 7, ssrc: 1 };
      const frames = source.push(encodeRtp(head, payload));
      assert.ok(
        frames.length <= 7 && frames.every((frame) => frame.data.length > 0 && frame.data.length < 8_192),
      );
    }),
    // An access unit that says it has no bytes, whole or as a part.
    { numRuns: 1_000, examples: [[Buffer.from([0, 0]), 1, 0]] },
  );
});

test("ranges hold exactly what was put in, in any order", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 40 })), (numbers) => {
      let ranges = new SequenceRanges();
      for (const number of numbers) ranges = ranges.with(BigInt(number));
      const again = SequenceRanges.parse(ranges.toString());
      for (let i = 0; i <= 41; i++) assert.equal(again.has(BigInt(i)), numbers.includes(i));
      again.ranges.reduce((before, range) => {
        assert.ok(range.first > before + 1n && range.last >= range.first);
        return range.last;
      }, -1n);
    }),
  );
});

test("a feed takes any packets in any order, and the next whole unit is stored all the same", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-hostile-"));
  t.after(() => removeFolder(dir));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const video = await openVideo({ ...parts, dir, retentionHours: 1e6, maxBytes: 1e12 });
  const clip = await makeClip(15);
  const [unit] = unitsOf(clip, 1n, 1_800_000_000_000_000);
  const shuffled = fc.shuffledSubarray([...unit!.packets]);
  const noise = fc.array(fc.tuple(fc.integer({ min: 0, max: 3 }), fc.boolean(), bytes(200)), {
    maxLength: 20,
  });
  let sequence = 1n;
  await fc.assert(
    fc.asyncProperty(shuffled, noise, async (packets, others) => {
      const feed = video.openFeed("yard", clip.sdp);
      for (const { track, rtp } of packets) feed.packet(track, rtp);
      for (const [track, isRtcp, body] of others) {
        if (isRtcp) feed.rtcp(track, body);
        else feed.packet(track, body);
      }
      const next = { ...unit!, sequence: sequence++ };
      sendUnit(feed, next);
      await feed.close();
      assert.equal(feed.persisted()[0]!.last, next.sequence);
    }),
    { numRuns: 40 },
  );
  await video.close();
});
