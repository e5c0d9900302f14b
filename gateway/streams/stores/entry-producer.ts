/**
 * Who sent an entry of the log, as far as it matters for telling repetitions.
 *
 *   1 frame      u64 epoch | u32 epochStart | u64 sequence | device
 *   2 publish    18 bytes of identity | client
 *   3 publishes  per client whose publishes follow one another:
 *                u16 clientBytes | u16 count | client | 18 bytes of identity each
 *
 * Names are UTF-8, integers big-endian. The entry is under a checksum, so what is read was written here.
 */
import { putU16, putU32, u16, u32 } from "../../../runtime/big-endian.ts";
import { invariant } from "../../../runtime/errors.ts";

/** Packet id, and a hash of key and payload (publish-identity.ts). */
export const IDENTITY_BYTES = 18;
/** An entry can announce 65,535 bytes of producer; whoever gathers publishes stays below this. */
export const MAX_PUBLISHES_BYTES = 60_000;
const FRAME_BYTES = 20;
const GROUP_HEAD_BYTES = 4;
const CODES = { frame: 1, publish: 2, publishes: 3 } as const;

export type Producer =
  | { kind: "frame"; device: string; epoch: bigint; epochStart: number; sequence: bigint }
  /** `identity` is 18 bytes as latin1. */
  | { kind: "publish"; clientId: string; identity: string }
  | Publishes;

/** Several, in the order of their records: identity i is of client i. */
export interface Publishes {
  readonly kind: "publishes";
  readonly clientIds: readonly string[];
  readonly identities: readonly string[];
  /** As encoded: asked for several times on the way to the disk. */
  readonly bytes: number;
}

export function publishesOf(clientIds: readonly string[], identities: readonly string[]): Publishes {
  let bytes = IDENTITY_BYTES * clientIds.length;
  for (let i = 0; i < clientIds.length; i++) {
    if (i > 0 && clientIds[i] === clientIds[i - 1]) continue;
    bytes += GROUP_HEAD_BYTES + Buffer.byteLength(clientIds[i]!);
  }
  return { kind: "publishes", clientIds, identities, bytes };
}

/** The most that one more publish adds. */
export function publishBytes(clientId: string): number {
  return GROUP_HEAD_BYTES + IDENTITY_BYTES + 3 * clientId.length;
}

/** 0 for none. */
export function producerCode(producer: Producer | undefined): number {
  return producer === undefined ? 0 : CODES[producer.kind];
}

export function producerSize(producer: Producer | undefined): number {
  if (producer === undefined) return 0;
  if (producer.kind === "frame") return FRAME_BYTES + Buffer.byteLength(producer.device);
  if (producer.kind === "publish") return IDENTITY_BYTES + Buffer.byteLength(producer.clientId);
  return producer.bytes;
}

export function writeProducer(arena: Buffer, at: number, producer: Producer): void {
  if (producer.kind === "frame") {
    arena.writeBigUInt64BE(producer.epoch, at);
    putU32(arena, producer.epochStart, at + 8);
    arena.writeBigUInt64BE(producer.sequence, at + 12);
    arena.write(producer.device, at + FRAME_BYTES);
  } else if (producer.kind === "publish") {
    invariant(producer.identity.length === IDENTITY_BYTES, "a publish's identity has 18 bytes");
    arena.write(producer.identity, at, "latin1");
    arena.write(producer.clientId, at + IDENTITY_BYTES);
  } else writePublishes(arena, at, producer);
}

function writePublishes(arena: Buffer, from: number, { clientIds, identities }: Publishes): void {
  let at = from;
  for (let i = 0; i < clientIds.length; ) {
    const client = clientIds[i]!;
    let next = i + 1;
    while (next < clientIds.length && clientIds[next] === client) next++;
    const clientBytes = arena.write(client, at + GROUP_HEAD_BYTES);
    putU16(arena, clientBytes, at);
    putU16(arena, next - i, at + 2);
    at += GROUP_HEAD_BYTES + clientBytes;
    for (; i < next; i++) at += arena.write(identities[i]!, at, "latin1");
  }
}

/** What stands from `at` up to `end`. */
export function producerAt(bytes: Buffer, code: number, at: number, end: number): Producer | undefined {
  if (code === CODES.frame) {
    return {
      kind: "frame",
      epoch: bytes.readBigUInt64BE(at),
      epochStart: u32(bytes, at + 8),
      sequence: bytes.readBigUInt64BE(at + 12),
      device: bytes.toString("utf8", at + FRAME_BYTES, end),
    };
  }
  if (code === CODES.publish) {
    const identity = bytes.toString("latin1", at, at + IDENTITY_BYTES);
    return { kind: "publish", identity, clientId: bytes.toString("utf8", at + IDENTITY_BYTES, end) };
  }
  return code === CODES.publishes ? publishesAt(bytes, at, end) : undefined;
}

function publishesAt(bytes: Buffer, from: number, end: number): Publishes {
  const clientIds: string[] = [];
  const identities: string[] = [];
  for (let at = from; at + GROUP_HEAD_BYTES <= end; ) {
    const identitiesAt = at + GROUP_HEAD_BYTES + u16(bytes, at);
    const count = u16(bytes, at + 2);
    const client = bytes.toString("utf8", at + GROUP_HEAD_BYTES, identitiesAt);
    at = identitiesAt + count * IDENTITY_BYTES;
    for (let i = identitiesAt; i < at; i += IDENTITY_BYTES) {
      clientIds.push(client);
      identities.push(bytes.toString("latin1", i, i + IDENTITY_BYTES));
    }
  }
  return { kind: "publishes", clientIds, identities, bytes: end - from };
}
