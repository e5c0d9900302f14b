import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import test from "node:test";
import fc from "fast-check";
import {
  type ClockMapping,
  decodeUnit,
  encodeUnit,
  encodeUnitBegin,
  encodeUnitEnd,
  type FootageUnit,
  formatPersisted,
  MalformedFootageError,
  parsePersisted,
  parseUnitMark,
  UnitDigest,
  unitChecksum,
  unitDigest,
  utcUsOf,
} from "../../protocol/footage.ts";
import { type AppPacket, encodeApp, parseRtcp } from "../../protocol/rtsp/rtcp.ts";
import { crc32c } from "../../runtime/crc32c.ts";

/** Records as a program makes them, which deepEqual tells from those without a prototype. */
function plain<T>(fields: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> {
  return fc.record(fields, { noNullPrototype: true }) as fc.Arbitrary<T>;
}

const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const sequence = fc.bigInt({ min: 1n, max: 2n ** 64n - 1n });
const moment = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const track = fc.nat(255);
const packet = plain({
  track,
  rtp: fc.uint8Array({ minLength: 12, maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
});
const unit: fc.Arbitrary<FootageUnit> = plain({
  camera: fc.string({ minLength: 1, maxLength: 20, unit: "grapheme" }),
  epoch: u64,
  sequence,
  producerUs: moment,
  sdp: fc.string({ unit: "grapheme", maxLength: 200 }),
  startsWithKeyFrame: fc.boolean(),
  clocks: fc.array(plain({ track, rtpTime: fc.nat(0xffff_ffff), utcUs: moment }), { maxLength: 4 }),
  packets: fc.array(packet, { maxLength: 20 }),
});

test("a unit comes back as it was", () => {
  fc.assert(
    fc.property(unit, (unit) => {
      assert.deepEqual(decodeUnit(encodeUnit(unit)), unit);
    }),
  );
});

test("a unit of the former version is read as well", () => {
  const former = fc.sample(unit, 1)[0]!;
  const bytes = encodeUnit(former);
  bytes[2] = 1;
  bytes.writeUInt32BE(crc32c(bytes, 12), 8);
  assert.deepEqual(decodeUnit(bytes), former);
});

test("no damaged or cut-off unit is taken for a whole one", () => {
  fc.assert(
    fc.property(unit, fc.nat(), fc.integer({ min: 1, max: 255 }), (unit, choice, flip) => {
      const bytes = encodeUnit(unit);
      const damaged = Buffer.from(bytes);
      damaged[choice % bytes.length]! ^= flip;
      assert.throws(() => decodeUnit(damaged), MalformedFootageError);
      assert.throws(() => decodeUnit(bytes.subarray(0, choice % bytes.length)), MalformedFootageError);
    }),
  );
});

test("hostile bytes with a right checksum end in MalformedFootageError", () => {
  const change = fc.record({ at: fc.nat(), value: fc.nat(255) });
  fc.assert(
    fc.property(unit, fc.array(change, { minLength: 1, maxLength: 6 }), (unit, changes) => {
      const bytes = encodeUnit(unit);
      for (const { at, value } of changes) bytes[12 + (at % Math.min(bytes.length - 12, 60))] = value;
      bytes.writeUInt32BE(unitChecksum(bytes), 8);
      try {
        decodeUnit(bytes);
      } catch (error) {
        assert.ok(error instanceof MalformedFootageError);
      }
    }),
    { numRuns: 500 },
  );
});

test("a unit beyond a limit is not encoded", () => {
  const small: FootageUnit = {
    ...{ camera: "yard", epoch: 1n, sequence: 1n, producerUs: 0, sdp: "", startsWithKeyFrame: true },
    ...{ clocks: [], packets: [] },
  };
  const rtp = Buffer.alloc(60_000);
  for (const more of [
    { camera: "" },
    { packets: [{ track: 0, rtp: Buffer.alloc(11) }] },
    { packets: [{ track: 0, rtp: Buffer.alloc(65_536) }] },
    { packets: Array.from({ length: 220 }, () => ({ track: 0, rtp })) },
    { sdp: "x".repeat(300_000) },
  ]) {
    assert.throws(() => encodeUnit({ ...small, ...more }), MalformedFootageError);
  }
});

test("the marks around a unit travel as APP packets", () => {
  fc.assert(
    fc.property(u64, sequence, moment, fc.boolean(), (epoch, sequence, producerUs, startsWithKeyFrame) => {
      const begin = { epoch, sequence, producerUs, startsWithKeyFrame };
      const [app] = parseRtcp(encodeUnitBegin(7, begin));
      assert.deepEqual(parseUnitMark(app as AppPacket), { kind: "begin", ...begin });
    }),
  );
  const end = { packetCount: 3, sha256: Buffer.alloc(32, 9) };
  assert.deepEqual(parseUnitMark(parseRtcp(encodeUnitEnd(7, end))[0] as AppPacket), { kind: "end", ...end });
});

test("a stranger's APP packet is no mark, a broken one of ours is an error", () => {
  const app = (name: string, subtype: number, bytes: number): AppPacket =>
    parseRtcp(encodeApp({ ssrc: 1, subtype, name, data: Buffer.alloc(bytes) }))[0] as AppPacket;
  assert.equal(parseUnitMark(app("qtsi", 1, 28)), undefined);
  assert.equal(parseUnitMark(app("HWTR", 3, 28)), undefined);
  assert.throws(() => parseUnitMark(app("HWTR", 1, 24)), MalformedFootageError);
  assert.throws(() => parseUnitMark(app("HWTR", 1, 28)), /sequence 0/);
  assert.throws(() => parseUnitMark(app("HWTR", 2, 32)), MalformedFootageError);
});

test("the digest depends on each byte, length and track, and on the order", () => {
  const a = { track: 0, rtp: Buffer.from("80600001aaaaaaaabbbbbbbb", "hex") };
  const b = { track: 1, rtp: Buffer.from("80600001aaaaaaaabbbbbbbbcc", "hex") };
  const digests = [[a, b], [b, a], [a], [{ ...a, track: 1 }, b]].map((packets) =>
    unitDigest(packets).toString("hex"),
  );
  assert.equal(new Set(digests).size, 4);
  const digest = new UnitDigest();
  digest.add(a.track, a.rtp);
  digest.add(b.track, b.rtp);
  assert.equal(digest.packetCount, 2);
  assert.equal(digest.digest().toString("hex"), digests[0]);
});

test("RTP times near a report become moments, before and after it and across a wrap", () => {
  const clock: ClockMapping = { track: 0, rtpTime: 0xffff_ff00, utcUs: 1e15 };
  assert.equal(utcUsOf(clock, 90_000, 0xffff_ff00), 1e15);
  assert.equal(utcUsOf(clock, 90_000, (0xffff_ff00 + 90_000) >>> 0), 1e15 + 1_000_000);
  assert.equal(utcUsOf(clock, 90_000, 0xffff_ff00 - 45_000), 1e15 - 500_000);
});

test("persisted ranges are written and read", () => {
  const range = fc
    .record({ epoch: u64, first: sequence, more: fc.bigInt({ min: 0n, max: 1_000n }) })
    .map(({ epoch, first, more }) => ({ epoch, first, last: first + more }));
  fc.assert(
    fc.property(fc.array(range), (ranges) => {
      assert.deepEqual(parsePersisted(formatPersisted(ranges)), ranges);
    }),
  );
  assert.equal(formatPersisted([{ epoch: 0xabcn, first: 1n, last: 17n }]), "0000000000000abc:1-17");
  for (const bad of [
    "x",
    "abc:1-2",
    "0000000000000abc:2-1",
    "0000000000000abc:0-1",
    "0000000000000abc:1-2,",
  ]) {
    assert.throws(() => parsePersisted(bad), MalformedFootageError, bad);
  }
  fc.assert(
    fc.property(fc.stringMatching(/^[0-9a-f:,\- ]*$/), (text) => {
      try {
        parsePersisted(text);
      } catch (error) {
        assert.ok(error instanceof MalformedFootageError);
      }
    }),
  );
});

test("the test vectors of docs/reference/wire-rtsp.md are what this program writes", async () => {
  const document = await readFile("docs/reference/wire-rtsp.md", "utf8");
  const packets = [
    { track: 0, rtp: Buffer.from("80e0000100001770000000076588842fff", "hex") },
    { track: 1, rtp: Buffer.from("80e1000500000400000000080010", "hex") },
  ];
  const unit: FootageUnit = {
    camera: "yard",
    epoch: 0x0123456789abcdefn,
    sequence: 17n,
    producerUs: 1_795_255_483_123_456,
    sdp: "v=0\r\n",
    startsWithKeyFrame: true,
    clocks: [{ track: 0, rtpTime: 6_000, utcUs: 1_795_255_483_123_456 }],
    packets,
  };
  const vectors = {
    begin: encodeUnitBegin(7, unit).toString("hex"),
    end: encodeUnitEnd(7, { packetCount: 2, sha256: unitDigest(packets) }).toString("hex"),
    digest: unitDigest(packets).toString("hex"),
    stored: encodeUnit(unit).toString("hex"),
    persisted: formatPersisted([
      { epoch: unit.epoch, first: 1n, last: 17n },
      { epoch: unit.epoch, first: 19n, last: 19n },
    ]),
  };
  for (const [name, vector] of Object.entries(vectors)) {
    assert.ok(document.replace(/\n/g, "").includes(vector), `${name}: ${vector}`);
  }
});
