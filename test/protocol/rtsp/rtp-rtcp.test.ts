import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  encodeApp,
  encodeBye,
  encodeReceiverReport,
  encodeSenderReport,
  parseRtcp,
} from "../../../protocol/rtsp/rtcp.ts";
import { encodeRtp, parseRtp, rtpSequenceDifference, rtpTimeDifference } from "../../../protocol/rtsp/rtp.ts";

test("an RTP packet is looked into: CSRCs, extension and padding are not payload", () => {
  const bytes = Buffer.from(
    // V=2, padding, extension, 1 CSRC; marker, type 96; sequence 258; time; ssrc; csrc; extension of 1 word; payload; padding
    "b1e00102000000ff0a0b0c0d11111111beDE0001cafebabe616263000003",
    "hex",
  );
  const packet = parseRtp(bytes)!;
  assert.deepEqual(
    { ...packet, payload: packet.payload.toString() },
    { marker: true, payloadType: 96, sequence: 258, timestamp: 255, ssrc: 0x0a0b0c0d, payload: "abc" },
  );
  assert.equal(packet.payload.buffer, bytes.buffer);
});

test("hostile RTP is refused or looked into within its bounds", () => {
  const head = fc.uint8Array({ minLength: 1, maxLength: 40 });
  fc.assert(
    fc.property(head, (array) => {
      const bytes = Buffer.from(array);
      bytes[0] = 0x80 | (bytes[0]! & 0x3f);
      const packet = parseRtp(bytes);
      if (packet !== undefined) assert.ok(packet.payload.length <= bytes.length - 12);
    }),
    { numRuns: 1_000 },
  );
  const whole = encodeRtp(
    { marker: false, payloadType: 96, sequence: 1, timestamp: 1, ssrc: 1 },
    Buffer.of(1, 255),
  );
  const padded = Buffer.from(whole);
  padded[0]! |= 0x20;
  assert.equal(parseRtp(padded), undefined);
  assert.equal(parseRtp(Buffer.alloc(11, 0x80)), undefined);
  assert.equal(parseRtp(Buffer.alloc(12)), undefined);
});

test("what is encoded is parsed", () => {
  const fields = fc.record({
    marker: fc.boolean(),
    payloadType: fc.nat(127),
    sequence: fc.nat(65_535),
    timestamp: fc.nat(0xffff_ffff),
    ssrc: fc.nat(0xffff_ffff),
  });
  fc.assert(
    fc.property(fields, fc.uint8Array(), (fields, payload) => {
      assert.deepEqual(parseRtp(encodeRtp(fields, payload)), { ...fields, payload: Buffer.from(payload) });
    }),
  );
});

test("clocks and sequence numbers wrap", () => {
  assert.equal(rtpTimeDifference(5, 0xffff_fffb), 10);
  assert.equal(rtpTimeDifference(0xffff_fffb, 5), -10);
  assert.equal(rtpSequenceDifference(2, 65_534), 4);
  assert.equal(rtpSequenceDifference(65_534, 2), -4);
});

test("a compound of all kinds is read; what follows a broken one is not", () => {
  const report = {
    ssrc: 7,
    utcUs: 1_795_255_483_123_456,
    rtpTime: 0xffff_ff00,
    packetCount: 3,
    octetCount: 999,
  };
  const app = { ssrc: 8, subtype: 2, name: "HWTR", data: Buffer.from("12345678") };
  const compound = Buffer.concat([
    encodeSenderReport(report),
    encodeReceiverReport(9),
    encodeApp(app),
    Buffer.from("81ca000100000001", "hex"),
    encodeBye([1, 2]),
  ]);
  const packets = parseRtcp(compound);
  assert.deepEqual(packets, [
    { type: "sr", ...report },
    { type: "rr", ssrc: 9 },
    { type: "app", ...app },
    { type: "other", packetType: 202 },
    { type: "bye", ssrcs: [1, 2] },
  ]);
  assert.equal(parseRtcp(Buffer.concat([encodeBye([1]), Buffer.of(0x80, 200, 1, 0), compound])).length, 1);
});

test("any moment from 1970 to 2100 survives in a sender report to the microsecond", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 4_102_444_800_000_000 }), (utcUs) => {
      const bytes = encodeSenderReport({ ssrc: 1, utcUs, rtpTime: 0, packetCount: 0, octetCount: 0 });
      const [report] = parseRtcp(bytes);
      assert.ok(report?.type === "sr" && Math.abs(report.utcUs - utcUs) <= 1);
    }),
  );
  const unknown = encodeSenderReport({ ssrc: 1, utcUs: 0, rtpTime: 0, packetCount: 0, octetCount: 0 });
  assert.equal((parseRtcp(unknown)[0] as { utcUs: number }).utcUs, 0);
});

test("hostile RTCP never throws", () => {
  const first = fc.constantFrom(0x80, 0x81, 0x9f, 0xa0, 0xbf);
  const piece = fc.tuple(
    first,
    fc.integer({ min: 199, max: 206 }),
    fc.nat(8),
    fc.uint8Array({ maxLength: 40 }),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 5 }), (pieces) => {
      parseRtcp(
        Buffer.concat(
          pieces.map(([a, type, words, rest]) => Buffer.concat([Buffer.of(a, type, 0, words), rest])),
        ),
      );
    }),
    { numRuns: 1_000 },
  );
});
