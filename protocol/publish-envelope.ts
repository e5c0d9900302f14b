/**
 * A publish of frames, compressed. The frames stand in it as they are: they stay the unit of dedupe,
 * and are stored as if they had come plain. docs/reference/wire.md has a test vector.
 *
 *   0 u16 magic "HZ" | u8 version | u8 codec | u32 bytes of the frames | u32 crc32c of all but itself
 *  12 the frames, one behind the other, compressed
 *
 * All integers are big-endian. Codec 1 is brotli (RFC 7932), which Node brings along: of a few frames
 * of JSON it leaves a seventh at 500 MB/s. An agent sends envelopes only to a gateway that
 * said that it takes them (HelloMessage, topics.ts), so that both may be of different versions.
 */
import {
  brotliCompress,
  brotliCompressSync,
  brotliDecompress,
  brotliDecompressSync,
  constants,
} from "node:zlib";
import { crc32c } from "../runtime/crc32c.ts";
import { HeadwaterError } from "../runtime/errors.ts";
import { MAX_FRAME_BYTES } from "./frame.ts";
import { asBuffer } from "./record-batch.ts";

export const ENVELOPE_VERSION = 1;
/** As it stands in HelloMessage. */
export const BROTLI = "brotli";
/** The most that an envelope may hold: as much as a publish that is not compressed. */
export const MAX_ENVELOPED_BYTES = MAX_FRAME_BYTES + 1_024;
export const ENVELOPE_HEAD_BYTES = 12;
const MAGIC = 0x485a;
const BROTLI_CODE = 1;
const CRC_AT = 8;
/** More is slower by the factor and saves an eighth of what is left. */
const QUALITY = 1;
/** 2^18: what stands farther back than 256 KiB is not looked for. The two ends hold so much memory. */
const WINDOW_BITS = 18;

/** An envelope that is whole, and not opened yet. */
export interface Envelope {
  /** Of what is in it; it says so itself. */
  readonly plainBytes: number;
  /** A view of the publish. */
  readonly compressed: Buffer;
}

/** The bytes are no envelope, or were damaged on the way, or hold something else than they say. */
export class MalformedEnvelopeError extends HeadwaterError {
  constructor(reason: string, cause?: unknown) {
    super("ENVELOPE_MALFORMED", { message: `envelope: ${reason}`, ...(cause !== undefined && { cause }) });
  }
}

/** Whether it means to be an envelope; frames begin otherwise. */
export function isEnvelope(bytes: Uint8Array): boolean {
  return bytes[0] === MAGIC >>> 8 && bytes[1] === (MAGIC & 0xff);
}

/** Off the event loop, in zlib's thread pool. @param plain 1 to MAX_ENVELOPED_BYTES; do not write to it meanwhile. */
export function seal(plain: Uint8Array): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    brotliCompress(plain, compressOptions(plain.length), (error, compressed) => {
      if (error) reject(error);
      else resolve(withHead(plain.length, compressed));
    });
  });
}

/** The same within the call: for a few kilobytes a thread costs more than it saves. */
export function sealSync(plain: Uint8Array): Buffer {
  return withHead(plain.length, brotliCompressSync(plain, compressOptions(plain.length)));
}

/**
 * Reads the head and checks the checksum; opens nothing.
 * @throws MalformedEnvelopeError
 */
export function readEnvelope(bytes: Uint8Array): Envelope {
  const envelope = asBuffer(bytes);
  if (envelope.length <= ENVELOPE_HEAD_BYTES) throw new MalformedEnvelopeError("shorter than its head");
  if (!isEnvelope(envelope)) throw new MalformedEnvelopeError("does not begin with HZ");
  const [, , version, codec] = envelope;
  if (version !== ENVELOPE_VERSION)
    throw new MalformedEnvelopeError(`version ${version}; this program reads ${ENVELOPE_VERSION}`);
  if (codec !== BROTLI_CODE) throw new MalformedEnvelopeError(`codec ${codec}`);
  const plainBytes = envelope.readUInt32BE(4);
  if (plainBytes === 0 || plainBytes > MAX_ENVELOPED_BYTES)
    throw new MalformedEnvelopeError(`says that it holds ${plainBytes} bytes`);
  if (checksumOf(envelope) !== envelope.readUInt32BE(CRC_AT))
    throw new MalformedEnvelopeError("checksum does not match");
  return { plainBytes, compressed: envelope.subarray(ENVELOPE_HEAD_BYTES) };
}

/**
 * Off the event loop. Takes `plainBytes` of memory and a window of 2^24 at most, whatever the bytes say.
 * @throws MalformedEnvelopeError
 */
export function open({ plainBytes, compressed }: Envelope): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    brotliDecompress(compressed, openOptions(plainBytes), (error, result) => {
      try {
        if (error) throw new MalformedEnvelopeError(`cannot be opened (${error.message})`, error);
        resolve(checked(result, plainBytes, compressed.length));
      } catch (refused) {
        reject(refused);
      }
    });
  });
}

/** The same within the call. @throws MalformedEnvelopeError */
export function openSync({ plainBytes, compressed }: Envelope): Buffer {
  let result: Buffer;
  try {
    result = brotliDecompressSync(compressed, openOptions(plainBytes));
  } catch (error) {
    const { message } = error as Error;
    throw new MalformedEnvelopeError(`cannot be opened (${message})`, error);
  }
  return checked(result, plainBytes, compressed.length);
}

function withHead(plainBytes: number, compressed: Buffer): Buffer {
  const envelope = Buffer.allocUnsafe(ENVELOPE_HEAD_BYTES + compressed.length);
  envelope.writeUInt16BE(MAGIC, 0);
  envelope[2] = ENVELOPE_VERSION;
  envelope[3] = BROTLI_CODE;
  envelope.writeUInt32BE(plainBytes, 4);
  envelope.set(compressed, ENVELOPE_HEAD_BYTES);
  envelope.writeUInt32BE(checksumOf(envelope), CRC_AT);
  return envelope;
}

/** Of what stands before the checksum and of what stands behind it. */
function checksumOf(envelope: Buffer): number {
  return crc32c(envelope, ENVELOPE_HEAD_BYTES, envelope.length, crc32c(envelope, 0, CRC_AT));
}

function compressOptions(plainBytes: number): object {
  return {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: QUALITY,
      [constants.BROTLI_PARAM_LGWIN]: WINDOW_BITS,
      [constants.BROTLI_PARAM_SIZE_HINT]: plainBytes,
    },
    // One piece for what compresses at all; Node's own 16 KiB would be joined by a copy.
    chunkSize: Math.max(1_024, plainBytes >>> 1),
  };
}

function openOptions(plainBytes: number): object {
  // One piece takes it all, and a byte is left over: a piece that is full calls for another.
  const chunkSize = Math.max(64, plainBytes + 1);
  // `info` brings along how much of the input was used.
  return { chunkSize, maxOutputLength: plainBytes, info: true };
}

/** What follows a whole brotli stream is ignored by the library, so it is looked at here. */
function checked(result: unknown, plainBytes: number, compressedBytes: number): Buffer {
  const { buffer, engine } = result as { buffer: Buffer; engine: { bytesWritten: number } };
  if (buffer.length !== plainBytes)
    throw new MalformedEnvelopeError(`says that it holds ${plainBytes} bytes, holds ${buffer.length}`);
  if (engine.bytesWritten !== compressedBytes)
    throw new MalformedEnvelopeError(`${compressedBytes - engine.bytesWritten} bytes behind its end`);
  return buffer;
}
