import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  controlUrl,
  formatSdp,
  h264ParameterSets,
  h265ParameterSets,
  MalformedSdpError,
  parseSdp,
} from "../../../protocol/rtsp/sdp.ts";

const FFMPEG = `v=0
o=- 0 0 IN IP4 127.0.0.1
s=No Name
c=IN IP4 127.0.0.1
t=0 0
a=tool:libavformat 59.27.100
m=video 0 RTP/AVP 96
b=AS:200
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z0LADdoFB+hAAAADAEAAAA8DxQqo,aM4PyA==; profile-level-id=42C00D
a=control:streamid=0
m=audio 0 RTP/AVP 97
a=rtpmap:97 MPEG4-GENERIC/44100/1
a=fmtp:97 profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3; config=1208
a=control:streamid=1
`;

/** As cameras send it: session-level control, absolute control, static type, odd lines, bare line feeds, tabs. */
const CAMERA = [
  "v=0",
  "o=RTSPSession 1 2 IN IP4 0.0.0.0",
  "s=Media Presentation",
  "e=NONE",
  "a=control:rtsp://192.168.1.64/Streaming/Channels/101/",
  "m=video 0 RTP/AVP 98",
  "a=recvonly",
  "a=rtpmap:98 H265/90000",
  "a=fmtp:98 sprop-vps=QAEMAf//; sprop-sps=QgEB; sprop-pps=RAHA",
  "a=control:rtsp://192.168.1.64/Streaming/Channels/101/trackID=1",
  "nonsense",
  "m=audio 0 RTP/AVP 0",
  "a=control:trackID=2",
  "m=application 0 RTP/AVP 107",
  "a=rtpmap:107 vnd.onvif.metadata/90000",
].join("\n");

test("what ffmpeg announces is read", () => {
  const { name, media } = parseSdp(FFMPEG);
  assert.equal(name, "No Name");
  assert.equal(media.length, 2);
  const [video, audio] = media;
  assert.deepEqual(
    [video!.kind, video!.payloadType, video!.encoding, video!.clockRate, video!.control],
    ["video", 96, "H264", 90_000, "streamid=0"],
  );
  assert.deepEqual(
    h264ParameterSets(video!).map((set) => set[0]! & 0x1f),
    [7, 8],
  );
  assert.deepEqual([audio!.encoding, audio!.clockRate, audio!.channels], ["MPEG4-GENERIC", 44_100, 1]);
  assert.equal(audio!.fmtp.get("config"), "1208");
  assert.equal(audio!.fmtp.get("mode"), "AAC-hbr");
});

test("what cameras describe is read, though it is not by the book", () => {
  const { control, media } = parseSdp(CAMERA);
  assert.equal(control, "rtsp://192.168.1.64/Streaming/Channels/101/");
  assert.deepEqual(
    media.map(({ encoding, clockRate }) => [encoding, clockRate]),
    [
      ["H265", 90_000],
      ["PCMU", 8_000],
      ["VND.ONVIF.METADATA", 90_000],
    ],
  );
  assert.deepEqual(
    h265ParameterSets(media[0]!).map((set) => (set[0]! >> 1) & 0x3f),
    [32, 33, 34],
  );
  assert.deepEqual(
    media.map((track) => controlUrl("rtsp://cam/101", track.control)),
    ["rtsp://192.168.1.64/Streaming/Channels/101/trackID=1", "rtsp://cam/101/trackID=2", "rtsp://cam/101"],
  );
});

test("a description written again says the same of every track", () => {
  for (const text of [FFMPEG, CAMERA]) {
    const before = parseSdp(text);
    const after = parseSdp(formatSdp(before));
    assert.deepEqual(
      after.media,
      before.media.map((media, track) => ({ ...media, control: `trackID=${track}` })),
    );
    assert.equal(after.name, before.name);
    assert.deepEqual(after.attributes, before.attributes);
  }
});

test("hostile descriptions end in MalformedSdpError or in a description", () => {
  const line = fc.oneof(
    fc.string({ maxLength: 60 }),
    fc.constantFrom(
      ...FFMPEG.split("\n"),
      ...CAMERA.split("\n"),
      "m=video 0 RTP/AVP",
      "m=x",
      "a=rtpmap:96 /0",
      "a=fmtp:96 ;=;",
    ),
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 40 }), (lines) => {
      try {
        const description = parseSdp(["v=0", ...lines].join("\n"));
        parseSdp(formatSdp(description));
        for (const media of description.media) {
          assert.ok(media.clockRate > 0 && media.payloadType < 128);
          h264ParameterSets(media);
        }
      } catch (error) {
        assert.ok(error instanceof MalformedSdpError);
      }
    }),
    { numRuns: 500 },
  );
  assert.throws(() => parseSdp("<html>"), MalformedSdpError);
  assert.throws(() => parseSdp(`v=0\n${"m=video 0 RTP/AVP 96\n".repeat(17)}`), /more than 16 tracks/);
  assert.throws(() => parseSdp(`v=0\n${"\n".repeat(3_000)}`), /lines/);
});

test("no description takes longer than its length, whatever stands in its lines", () => {
  const long = 200_000;
  for (const parameters of [
    `${" ".repeat(long)}x\u2028y`,
    `${"x=".repeat(long / 2)}\u2028`,
    ";".repeat(long),
  ]) {
    const before = process.cpuUsage();
    const { media } = parseSdp(`v=0\nm=video 0 RTP/AVP 96\na=fmtp:96 ${parameters}\n`);
    assert.equal(media.length, 1);
    // Our own work alone: others may have the processor meanwhile. By the square of the length it were minutes.
    const { user, system } = process.cpuUsage(before);
    assert.ok(user + system < 5_000_000, `${user + system} µs`);
  }
});
