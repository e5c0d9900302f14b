/** The identity of a publish, and its hash against a plain MurmurHash3. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  identityOf,
  murmur128,
  publishIdentity,
} from "../../../../gateway/streams/stores/publish-identity.ts";

const MASK = 0xffff_ffffn;
const [C1, C2, C3, C4] = [0x239b961bn, 0xab0e9789n, 0x38b34ae5n, 0xa1e38b93n] as const;
const turn = (x: bigint, bits: bigint): bigint => ((x << bits) | (x >> (32n - bits))) & MASK;
const times = (x: bigint, y: bigint): bigint => (x * y) & MASK;

/** As its author describes it, in numbers that cannot overflow. */
function plainMurmur128(bytes: Uint8Array, seed: number): string {
  const h = [0, 1, 2, 3].map(() => BigInt(seed >>> 0));
  const lanes = [
    { first: C1, bits: 15n, second: C2, turn: 19n, add: 0x561ccd1bn },
    { first: C2, bits: 16n, second: C3, turn: 17n, add: 0x0bcaa747n },
    { first: C3, bits: 17n, second: C4, turn: 15n, add: 0x96cd1c35n },
    { first: C4, bits: 18n, second: C1, turn: 13n, add: 0x32ac3b17n },
  ];
  const padded = Buffer.alloc(Math.ceil(bytes.length / 16) * 16);
  padded.set(bytes);
  for (let at = 0; at < padded.length; at += 16) {
    for (const [i, lane] of lanes.entries()) {
      const word = BigInt(padded.readUInt32LE(at + 4 * i));
      h[i] = h[i]! ^ times(turn(times(word, lane.first), lane.bits), lane.second);
      if (at + 16 > bytes.length) continue;
      h[i] = (times((turn(h[i]!, lane.turn) + h[(i + 1) % 4]!) & MASK, 5n) + lane.add) & MASK;
    }
  }
  const mix = (): void => {
    h[0] = (h[0]! + h[1]! + h[2]! + h[3]!) & MASK;
    for (let i = 1; i < 4; i++) h[i] = (h[i]! + h[0]!) & MASK;
  };
  for (let i = 0; i < 4; i++) h[i] = h[i]! ^ BigInt(bytes.length);
  mix();
  for (let i = 0; i < 4; i++) {
    let x = h[i]!;
    x = times(x ^ (x >> 16n), 0x85ebca6bn);
    x = times(x ^ (x >> 13n), 0xc2b2ae35n);
    h[i] = x ^ (x >> 16n);
  }
  mix();
  return h.map((word) => word.toString(16).padStart(8, "0")).join("");
}

function murmur(bytes: Uint8Array, from: number, end: number, seed: number): string {
  const words = new Int32Array(4);
  murmur128(bytes, from, end, seed, words);
  return [...words].map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}

test("the hash is MurmurHash3 of 128 bits", () => {
  const known = Buffer.from("The quick brown fox jumps over the lazy dog");
  assert.equal(murmur(known, 0, known.length, 0), "2f1583c3ecee2c675d7bf66ce5e91d2c");
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), fc.nat(20), fc.integer(), (bytes, before, seed) => {
      const from = Math.min(before, bytes.length);
      const plain = plainMurmur128(bytes.subarray(from), seed);
      assert.equal(murmur(bytes, from, bytes.length, seed), plain);
    }),
    { numRuns: 1_000 },
  );
});

test("packet id, key and payload each make another identity", () => {
  const payload = Buffer.from("21.5");
  const identity = publishIdentity({ packetId: 300, partitionKey: "a/b", payload });
  assert.equal(identity.length, 18);
  assert.ok(identity.startsWith("\x01\x2c"));
  assert.equal(identityOf(300, "a/b", Buffer.from("..21.5."), 2, 6), identity);
  const others = [
    { packetId: 301, partitionKey: "a/b", payload },
    { packetId: 300, partitionKey: "a/c", payload },
    { packetId: 300, partitionKey: "a/b", payload: Buffer.from("21.6") },
    { packetId: 300, partitionKey: "a/b2", payload: Buffer.from("1.5") },
  ];
  assert.equal(new Set([identity, ...others.map(publishIdentity)]).size, 5);
});
