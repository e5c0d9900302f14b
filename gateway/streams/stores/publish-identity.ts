/**
 * By what a plain client's publish is told from its others: packet id, and a hash of partition key and
 * payload. The hash is MurmurHash3 (x86, 128 bits) with the key's hash as its seed: an eighth of the
 * time of an MD5 by OpenSSL, of which most goes into the call. Nobody is protected by it: who makes
 * two of a client's own publishes collide under one packet id loses one of them, and that client can
 * send what it likes anyway.
 */
import { asBuffer } from "../../../protocol/record-batch.ts";
import type { PlainPublish } from "../streams.ts";
import { IDENTITY_BYTES } from "./entry-producer.ts";

const C1 = 0x239b961b;
const C2 = 0xab0e9789;
const C3 = 0x38b34ae5;
const C4 = 0xa1e38b93;

const hash = new Int32Array(4);
/** Packet id, big-endian, by which client-publishes.ts also looks for it; the hash's words, little-endian. */
const identity = Buffer.alloc(IDENTITY_BYTES);

export function publishIdentity(
  publish: Pick<PlainPublish, "packetId" | "partitionKey" | "payload">,
): string {
  const payload = asBuffer(publish.payload);
  return identityOf(publish.packetId, publish.partitionKey, payload, 0, payload.length);
}

/** The same of a payload that stands within other bytes. As latin1: a character is a byte. */
export function identityOf(packetId: number, key: string, bytes: Buffer, from: number, end: number): string {
  murmur128(bytes, from, end, hashOfText(key), hash);
  identity[0] = packetId >>> 8;
  identity[1] = packetId;
  for (let i = 0; i < 4; i++) {
    const word = hash[i]!;
    const at = 2 + 4 * i;
    identity[at] = word;
    identity[at + 1] = word >>> 8;
    identity[at + 2] = word >>> 16;
    identity[at + 3] = word >>> 24;
  }
  return identity.toString("latin1");
}

/** FNV-1a over the UTF-16 units: keys are short. */
function hashOfText(text: string): number {
  let sum = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) sum = Math.imul(sum ^ text.charCodeAt(i), 0x01000193);
  return sum;
}

/** MurmurHash3_x86_128 of `bytes` from `from` up to `end`, into four words. */
export function murmur128(
  bytes: Uint8Array,
  from: number,
  end: number,
  seed: number,
  into: Int32Array,
): void {
  const size = end - from;
  const tail = from + (size & ~15);
  let h1 = seed;
  let h2 = seed;
  let h3 = seed;
  let h4 = seed;
  for (let at = from; at < tail; at += 16) {
    h1 = Math.imul((turn(h1 ^ scramble(word(bytes, at), C1, 15, C2), 19) + h2) | 0, 5) + 0x561ccd1b;
    h2 = Math.imul((turn(h2 ^ scramble(word(bytes, at + 4), C2, 16, C3), 17) + h3) | 0, 5) + 0x0bcaa747;
    h3 = Math.imul((turn(h3 ^ scramble(word(bytes, at + 8), C3, 17, C4), 15) + h4) | 0, 5) + 0x96cd1c35;
    h4 = Math.imul((turn(h4 ^ scramble(word(bytes, at + 12), C4, 18, C1), 13) + h1) | 0, 5) + 0x32ac3b17;
  }
  h4 ^= scramble(lastWord(bytes, tail + 12, end), C4, 18, C1);
  h3 ^= scramble(lastWord(bytes, tail + 8, end), C3, 17, C4);
  h2 ^= scramble(lastWord(bytes, tail + 4, end), C2, 16, C3);
  h1 ^= scramble(lastWord(bytes, tail, end), C1, 15, C2);
  h2 ^= size;
  h3 ^= size;
  h4 ^= size;
  h1 = ((h1 ^ size) + h2 + h3 + h4) | 0;
  h2 = finish(h2 + h1);
  h3 = finish(h3 + h1);
  h4 = finish(h4 + h1);
  h1 = (finish(h1) + h2 + h3 + h4) | 0;
  into[0] = h1;
  into[1] = h2 + h1;
  into[2] = h3 + h1;
  into[3] = h4 + h1;
}

function scramble(value: number, first: number, bits: number, second: number): number {
  return Math.imul(turn(Math.imul(value, first), bits), second);
}

function turn(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}

function finish(value: number): number {
  let h = value ^ (value >>> 16);
  h = Math.imul(h, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

function word(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
}

/** Zero where nothing is left. */
function lastWord(bytes: Uint8Array, at: number, end: number): number {
  let value = 0;
  for (let i = 0; i < 4 && at + i < end; i++) value |= bytes[at + i]! << (8 * i);
  return value;
}
