import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test from "node:test";
import fc from "fast-check";
import { H264Depacketiser, vclSha256 } from "../../../protocol/rtsp/h264.ts";
import type { AccessUnit } from "../../../protocol/rtsp/nal-depacketiser.ts";
import { encodeRtp, parseRtp, type RtpPacket } from "../../../protocol/rtsp/rtp.ts";

type Packing = "single" | "aggregated" | "fragmented";

interface Picture {
  readonly nals: readonly { readonly bytes: Buffer; readonly packing: Packing }[];
}

const nal = fc
  .tuple(
    fc.integer({ min: 1, max: 23 }),
    fc.integer({ min: 0, max: 3 }),
    fc.uint8Array({ minLength: 4, maxLength: 60 }),
  )
  .map(([type, priority, rest]) => Buffer.concat([Buffer.of((priority << 5) | type), rest]));
const packed = fc.record({
  bytes: nal,
  packing: fc.constantFrom<Packing>("single", "aggregated", "fragmented"),
});
const picture: fc.Arbitrary<Picture> = fc.record({ nals: fc.array(packed, { minLength: 1, maxLength: 5 }) });

/** The three ways of RFC 6184, with a marker on every packet, as some encoders do. */
function packetise(pictures: readonly Picture[], firstSequence: number): RtpPacket[] {
  const packets: RtpPacket[] = [];
  let sequence = firstSequence;
  pictures.forEach(({ nals }, i) => {
    const add = (payload: Buffer): void => {
      const timestamp = (0xffff_f000 + i * 6_000) >>> 0;
      packets.push(
        parseRtp(encodeRtp({ marker: true, payloadType: 96, sequence, timestamp, ssrc: 1 }, payload))!,
      );
      sequence = (sequence + 1) & 0xffff;
    };
    for (const { bytes, packing } of nals) {
      if (packing === "single") add(bytes);
      else if (packing === "aggregated") add(Buffer.concat([Buffer.of(24, 0, bytes.length), bytes]));
      else {
        const type = bytes[0]! & 0x1f;
        const indicator = (bytes[0]! & 0xe0) | 28;
        for (let at = 1; at < bytes.length; at += 3) {
          const flags = (at === 1 ? 0x80 : 0) | (at + 3 >= bytes.length ? 0x40 : 0);
          add(Buffer.concat([Buffer.of(indicator, flags | type), bytes.subarray(at, at + 3)]));
        }
      }
    }
  });
  return packets;
}

function depacketise(packets: readonly RtpPacket[]): AccessUnit[] {
  const depacketiser = new H264Depacketiser();
  const units = packets.map((packet) => depacketiser.push(packet));
  units.push(depacketiser.flush());
  return units.filter((unit) => unit !== undefined);
}

test("however NAL units are packed, the pictures come out as they went in", () => {
  fc.assert(
    fc.property(fc.array(picture, { minLength: 1, maxLength: 6 }), fc.nat(65_535), (pictures, sequence) => {
      const units = depacketise(packetise(pictures, sequence));
      assert.deepEqual(
        units.map(({ nals }) => nals),
        pictures.map(({ nals }) => nals.map(({ bytes }) => bytes)),
      );
      for (const [i, unit] of units.entries()) {
        const types = pictures[i]!.nals.map(({ bytes }) => bytes[0]! & 0x1f);
        assert.equal(unit.keyFrame, types.includes(5));
        assert.equal(unit.damaged, false);
        assert.equal(unit.rtpTime, (0xffff_f000 + i * 6_000) >>> 0);
      }
    }),
  );
});

test("a packet that is missing shows as damage, one that comes twice does not", () => {
  fc.assert(
    fc.property(fc.array(picture, { minLength: 2, maxLength: 5 }), fc.nat(), (pictures, choice) => {
      const packets = packetise(pictures, 65_530);
      fc.pre(packets.length > 2);
      const at = 1 + (choice % (packets.length - 2));
      const units = depacketise(packets.filter((_, i) => i !== at));
      assert.ok(units.some(({ damaged }) => damaged));
      const whole = depacketise(packets);
      assert.deepEqual(depacketise([...packets.slice(0, at), packets[at - 1]!, ...packets.slice(at)]), whole);
    }),
  );
});

test("hostile payloads never throw and never become NAL units of a type that does not exist", () => {
  const payload = fc.oneof(
    fc.uint8Array({ maxLength: 20 }),
    fc
      .tuple(fc.constantFrom(24, 28, 0x7c, 0x5c), fc.uint8Array({ maxLength: 20 }))
      .map(([head, rest]) => Uint8Array.of(head, ...rest)),
  );
  const packets = fc.array(fc.record({ payload, sequence: fc.nat(20), timestamp: fc.nat(3) }), {
    maxLength: 40,
  });
  fc.assert(
    fc.property(packets, (packets) => {
      const fields = { marker: false, payloadType: 96, ssrc: 1 };
      const units = depacketise(
        packets.map(({ payload, ...rest }) => ({ ...fields, ...rest, payload: Buffer.from(payload) })),
      );
      for (const { nals } of units) for (const unit of nals) assert.ok(unit.length > 0);
    }),
    { numRuns: 500 },
  );
});

test("the truth of a picture is the SHA-256 of its slices alone", () => {
  const nals = [Buffer.from("06aa", "hex"), Buffer.from("65bbcc", "hex"), Buffer.from("41dd", "hex")];
  assert.equal(
    vclSha256({ nals }),
    createHash("sha256").update(Buffer.from("65bbcc41dd", "hex")).digest("hex"),
  );
});
