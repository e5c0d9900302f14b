import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { GroupFinder, isKeyFrameStart } from "../../../protocol/rtsp/keyframe.ts";
import { encodeRtp } from "../../../protocol/rtsp/rtp.ts";
import { parseSdp } from "../../../protocol/rtsp/sdp.ts";

const describe = (...tracks: string[]) =>
  parseSdp(
    `v=0\n${tracks.map((track) => `m=${track.split(" ")[0]} 0 RTP/AVP 96\na=rtpmap:96 ${track.split(" ")[1]}\n`).join("")}`,
  );
const H264 = describe("video H264/90000").media[0]!;
const H265 = describe("video H265/90000").media[0]!;
const hex = (text: string): Buffer => Buffer.from(text, "hex");

test("an H.264 key frame's start is seen alone, aggregated and fragmented", () => {
  for (const [payload, isKey] of [
    ["65b8", true],
    ["41b8", false],
    ["67aa", false],
    ["18 0002 67aa 0002 68bb 0003 65ccdd", true],
    ["18 0002 67aa 0002 41bb", false],
    ["7c 85 aa", true],
    ["7c 05 aa", false],
    ["7c 45 aa", false],
    ["5c 81 aa", false],
    ["18 ffff 65", true],
    ["18", false],
    ["", false],
  ] as const) {
    assert.equal(isKeyFrameStart(H264, hex(payload.replaceAll(" ", ""))), isKey, payload);
  }
});

test("an H.265 key frame's start is seen alone, aggregated and fragmented", () => {
  const head = (type: number): string => `${(type << 1).toString(16).padStart(2, "0")}01`;
  for (const [payload, isKey] of [
    [`${head(19)}aa`, true],
    [`${head(21)}aa`, true],
    [`${head(1)}aa`, false],
    [`${head(32)}aa`, false],
    [`${head(48)} 0003 ${head(32)}aa 0003 ${head(20)}aa`, true],
    [`${head(48)} 0003 ${head(32)}aa 0003 ${head(1)}aa`, false],
    [`${head(49)} 93 aa`, true],
    [`${head(49)} 13 aa`, false],
    [`${head(49)} 81 aa`, false],
  ] as const) {
    assert.equal(isKeyFrameStart(H265, hex(payload.replaceAll(" ", ""))), isKey, payload);
  }
});

test("hostile payloads never throw", () => {
  fc.assert(
    fc.property(fc.constantFrom(H264, H265), fc.uint8Array({ maxLength: 30 }), (media, bytes) => {
      isKeyFrameStart(media, Buffer.from(bytes));
    }),
    { numRuns: 2_000 },
  );
});

function rtp(timestamp: number, payload: string): Buffer {
  return encodeRtp({ marker: false, payloadType: 96, sequence: 1, timestamp, ssrc: 1 }, hex(payload));
}

test("parameter sets and sound between them belong to the group that their key frame begins", () => {
  const finder = new GroupFinder(describe("audio PCMU/8000", "video H264/90000"));
  assert.equal(finder.track, 1);
  const packets: [number, Buffer, number][] = [
    [1, rtp(100, "41aa"), 0],
    [0, rtp(7, "00"), 0],
    [1, rtp(200, "67aa"), 0],
    [1, rtp(200, "68aa"), 0],
    [0, rtp(8, "00"), 0],
    [1, rtp(200, "7c85aa"), 4],
    [1, rtp(200, "7c45aa"), 0],
    [1, rtp(200, "65aa"), 0],
    [1, rtp(300, "65aa"), 1],
    [1, Buffer.of(1), 0],
  ];
  assert.deepEqual(
    packets.map(([track, bytes]) => finder.push({ track, rtp: bytes })),
    packets.map(([, , expected]) => expected),
  );
});

test("where every picture stands alone, and where there is only sound, a second makes a group", () => {
  for (const [track, rate] of [
    ["video JPEG/90000", 90_000],
    ["audio PCMU/8000", 8_000],
  ] as const) {
    const finder = new GroupFinder(describe(track));
    const starts = [0, 0.4, 0.9, 1, 1.5, 2.1, 1].map((seconds) =>
      finder.push({ track: 0, rtp: rtp(seconds * rate, "00") }),
    );
    assert.deepEqual(starts, [1, 0, 0, 1, 0, 1, 1]);
  }
  assert.equal(new GroupFinder(describe()).track, -1);
});
