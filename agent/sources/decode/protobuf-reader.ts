/**
 * Reads protocol buffers field by field (protobuf.dev/programming-guides/encoding). A reader of a
 * dozen fields needs no library of several megabytes. Every length is checked before it is believed.
 */

/** The bytes are no message. */
export class ProtobufError extends Error {}

/** `value` is a bigint for varints and fixed64, a number for fixed32, bytes for the rest. */
export type ProtobufField = {
  readonly field: number;
  readonly value: bigint | number | Buffer;
};

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;
const MAX_VARINT_BYTES = 10;

/** @throws ProtobufError */
export function* protobufFields(message: Buffer): Generator<ProtobufField> {
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let i = 0; i < MAX_VARINT_BYTES; i++) {
      const byte = message[at++];
      if (byte === undefined) throw new ProtobufError("a number is cut off");
      value |= BigInt(byte & 0x7f) << BigInt(7 * i);
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw new ProtobufError("a number of more than 64 bits");
  };
  const take = (bytes: number): Buffer => {
    if (bytes > message.length - at) throw new ProtobufError("a field is cut off");
    at += bytes;
    return message.subarray(at - bytes, at);
  };
  while (at < message.length) {
    const tag = varint();
    const field = Number(tag >> 3n);
    const kind = Number(tag & 7n);
    if (field === 0 || field > 0x1fff_ffff) throw new ProtobufError("a field without a number");
    if (kind === VARINT) yield { field, value: varint() };
    else if (kind === FIXED64) yield { field, value: take(8).readBigUInt64LE() };
    else if (kind === FIXED32) yield { field, value: take(4).readUInt32LE() };
    else if (kind === BYTES) {
      const length = varint();
      yield { field, value: take(Number(length)) };
    } else throw new ProtobufError(`a field of kind ${kind}`);
  }
}
