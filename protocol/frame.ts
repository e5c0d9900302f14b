/**
 * The record frame: what one synced group commit of an agent stored for one stream. It is cut once
 * and is from then on the unit of sync, upload, PUBACK and dedupe, known as
 * (device, epoch, sequence). docs/reference/wire.md has test vectors.
 *
 *   0 u16 magic "HW" | u8 version | u8 timeSource | u32 frameBytes | u32 crc32c of all that follows
 *  12 u64 epoch | u32 epochStart | u64 sequence | u64 storedUs | u32 recordCount
 *  44 u16 deviceBytes | u16 streamBytes | device | stream | record batch (record-batch.ts)
 *
 * All integers are big-endian.
 */
import { putU16, putU32, u16, u32 } from "../runtime/big-endian.ts";
import { crc32c, crc32cOfEach } from "../runtime/crc32c.ts";
import { joinCrc32c } from "../runtime/crc32c-join.ts";
import { HeadwaterError } from "../runtime/errors.ts";
import { asBuffer, decodeBatch, type Run, readUInt53, writeUInt53 } from "./record-batch.ts";

export const FRAME_VERSION = 1;
/** The largest frame that a gateway takes. One record of 10 MiB, Kinesis' maximum, fits. */
export const MAX_FRAME_BYTES = 12 * 1_048_576;
/** The most records that one frame may announce. */
export const MAX_FRAME_RECORDS = 100_000;
/** And the most runs: each of them is decoded and routed by itself. No agent ever made more. */
export const MAX_FRAME_RUNS = 50_000;
const MAGIC = 0x4857;
const CRC_FROM = 12;
const HEAD_BYTES = 48;
/** Runs of so many bytes and more have their checksums taken by themselves: whoever stores them needs none again. */
const WORTHWHILE_RUN_BYTES = 3_072;

/** A random 64-bit id, new at each agent start and after buffer damage. */
export type Epoch = bigint;
/** Place of a frame in one epoch. Starts at 1n, rises by 1, never reused. */
export type FrameSequence = bigint;

/**
 * How the times in a frame were known, by its code: from the system's clock, which nobody confirmed;
 * put between what is known before and after; from a clock that NTP keeps; from the gateway.
 */
const TIME_SOURCES = ["system", "estimated", "ntp", "gateway"] as const;
export type TimeSource = (typeof TIME_SOURCES)[number];

export interface FrameHead {
  readonly device: string;
  readonly stream: string;
  readonly epoch: Epoch;
  /** Rises by one with each epoch of a device. */
  readonly epochStart: number;
  readonly sequence: FrameSequence;
  /** When the group commit stored it, µs since 1970 UTC. */
  readonly storedUs: number;
  readonly recordCount: number;
  readonly timeSource: TimeSource;
}

export interface Frame extends FrameHead {
  /** The whole frame as it travels. */
  readonly bytes: Buffer;
  /** The record batch inside it, a view of `bytes`. */
  readonly batch: Buffer;
  readonly runs: readonly Run[];
  /** The CRC-32C of the body of each run, where they came out of checking the frame. */
  readonly runChecksums?: readonly number[] | undefined;
}

/** The bytes are no frame, or were damaged on the way. */
export class MalformedFrameError extends HeadwaterError {
  constructor(reason: string) {
    super("FRAME_MALFORMED", { message: `frame: ${reason}` });
  }
}

/** @param batch as made by `encodeBatch`; copied. */
export function encodeFrame(head: FrameHead, batch: Uint8Array): Buffer {
  const memory = Buffer.allocUnsafe(frameBytes(head, batch.length));
  return writeFrame(memory, 0, head, batch.length, (at) => memory.set(batch, at));
}

/** What a frame takes whose batch has `batchBytes`. */
export function frameBytes({ device, stream }: FrameHead, batchBytes: number): number {
  return HEAD_BYTES + Buffer.byteLength(device) + Buffer.byteLength(stream) + batchBytes;
}

/**
 * As `encodeFrame`, in memory that is there.
 * @param memory has room for `frameBytes` from `from` on
 * @param writeBatch puts the batch at the given place of `memory`
 * @returns the frame, a view of `memory`
 */
export function writeFrame(
  memory: Buffer,
  from: number,
  head: FrameHead,
  batchBytes: number,
  writeBatch: (at: number) => void,
): Buffer {
  const frame = memory.subarray(from, from + frameBytes(head, batchBytes));
  putU16(frame, MAGIC, 0);
  frame[2] = FRAME_VERSION;
  frame[3] = TIME_SOURCES.indexOf(head.timeSource);
  putU32(frame, frame.length, 4);
  frame.writeBigUInt64BE(head.epoch, 12);
  putU32(frame, head.epochStart, 20);
  frame.writeBigUInt64BE(head.sequence, 24);
  writeUInt53(frame, head.storedUs, 32);
  putU32(frame, head.recordCount, 40);
  const deviceBytes = frame.write(head.device, HEAD_BYTES);
  const streamBytes = frame.write(head.stream, HEAD_BYTES + deviceBytes);
  putU16(frame, deviceBytes, 44);
  putU16(frame, streamBytes, 46);
  writeBatch(from + HEAD_BYTES + deviceBytes + streamBytes);
  putU32(frame, crc32c(frame, CRC_FROM), 8);
  return frame;
}

/** @throws MalformedFrameError, MalformedBatchError */
export function decodeFrame(bytes: Uint8Array): Frame {
  const frame = asBuffer(bytes);
  const length = frameLengthAt(frame, 0);
  if (length !== frame.length) throw new MalformedFrameError(`says ${length} bytes, has ${frame.length}`);
  const { deviceEnd, streamEnd, batch, runs } = readParts(frame);
  const runChecksums = checkSum(frame, runs);
  // The checksum does not reach it. A code that nobody wrote makes no claim, and the records are sound.
  const timeSource = TIME_SOURCES[frame[3]!] ?? "system";
  const sequence = frame.readBigUInt64BE(24);
  if (sequence === 0n) throw new MalformedFrameError("sequence 0");
  const recordCount = u32(frame, 40);
  if (recordCount > MAX_FRAME_RECORDS) throw new MalformedFrameError(`${recordCount} records`);
  if (runs.reduce((sum, run) => sum + run.count, 0) !== recordCount) {
    throw new MalformedFrameError("its runs do not add up to its records");
  }
  return {
    device: frame.toString("utf8", HEAD_BYTES, deviceEnd),
    stream: frame.toString("utf8", deviceEnd, streamEnd),
    epoch: frame.readBigUInt64BE(12),
    epochStart: u32(frame, 20),
    sequence,
    storedUs: readUInt53(frame, 32),
    recordCount,
    timeSource,
    bytes: frame,
    batch,
    runs,
    runChecksums,
  };
}

/** Where a frame's parts stand. Its checksum has not been looked at yet. */
function readParts(frame: Buffer): {
  readonly deviceEnd: number;
  readonly streamEnd: number;
  readonly batch: Buffer;
  readonly runs: Run[];
} {
  try {
    const deviceEnd = HEAD_BYTES + u16(frame, 44);
    const streamEnd = deviceEnd + u16(frame, 46);
    if (streamEnd > frame.length) throw new MalformedFrameError("its names run over the end");
    const batch = frame.subarray(streamEnd);
    // Before anything is made of each run.
    if (batch.length >= 4 && u32(batch, 0) > MAX_FRAME_RUNS) throw new MalformedFrameError("too many runs");
    return { deviceEnd, streamEnd, batch, runs: decodeBatch(batch) };
  } catch (error) {
    // What was damaged on the way may read as anything, and is called damaged.
    checkSum(frame, []);
    throw error;
  }
}

/**
 * Holds the checksum against the bytes: those before the runs, and each run by itself where that is worth
 * it. Joined they are the frame's, and whoever puts the runs in another order joins them in that.
 * @returns those of the runs, if they were taken
 */
function checkSum(frame: Buffer, runs: readonly Run[]): number[] | undefined {
  let bodyAt = frame.length;
  for (const run of runs) bodyAt -= run.body.length;
  const areWorthIt = runs.length > 0 && frame.length - bodyAt >= runs.length * WORTHWHILE_RUN_BYTES;
  let checksum = crc32c(frame, CRC_FROM, areWorthIt ? bodyAt : frame.length);
  let checksums: number[] | undefined;
  if (areWorthIt) {
    const ends: number[] = [];
    for (const { body } of runs) ends.push((ends.at(-1) ?? bodyAt) + body.length);
    checksums = crc32cOfEach(frame, bodyAt, ends);
    for (const [i, { body }] of runs.entries()) checksum = joinCrc32c(checksum, checksums[i]!, body.length);
  }
  if (checksum !== u32(frame, 8)) throw new MalformedFrameError("checksum does not match");
  return checksums;
}

/** The frames of one publish, which stand one behind the other. */
export function decodeFrames(bytes: Uint8Array): Frame[] {
  const payload = asBuffer(bytes);
  const frames: Frame[] = [];
  for (let at = 0; at < payload.length; ) {
    const end = at + frameLengthAt(payload, at);
    if (end > payload.length) throw new MalformedFrameError("cut off");
    frames.push(decodeFrame(payload.subarray(at, end)));
    at = end;
  }
  if (frames.length === 0) throw new MalformedFrameError("empty publish");
  return frames;
}

/**
 * Cuts a publish into pieces of at most `maxFrames` frames and `maxRuns` runs, but of one frame at least, by what
 * the frames say of themselves. From where their lengths cannot be read, all is one piece, which `decodeFrames` refuses.
 */
export function cutFrames(
  bytes: Uint8Array,
  maxFrames: number,
  maxRuns = Number.POSITIVE_INFINITY,
): Buffer[] {
  const payload = asBuffer(bytes);
  const pieces: Buffer[] = [];
  let from = 0;
  let frames = 0;
  let runs = 0;
  try {
    for (let at = 0; at < payload.length; ) {
      const end = at + frameLengthAt(payload, at);
      const more = runsAt(payload, at);
      if (frames > 0 && (frames === maxFrames || runs + more > maxRuns)) {
        pieces.push(payload.subarray(from, at));
        from = at;
        frames = runs = 0;
      }
      frames++;
      runs += more;
      at = end;
    }
  } catch {
    // Whoever decodes the last piece says what is wrong with it.
  }
  if (from < payload.length || pieces.length === 0) pieces.push(payload.subarray(from));
  return pieces;
}

/** Of a publish that `decodeFrames` refuses, the frames that are sound by themselves. */
export function soundFrames(bytes: Uint8Array): Frame[] {
  const payload = asBuffer(bytes);
  const frames: Frame[] = [];
  try {
    for (let at = 0; at < payload.length; ) {
      const end = at + frameLengthAt(payload, at);
      if (end > payload.length) break;
      try {
        frames.push(decodeFrame(payload.subarray(at, end)));
      } catch {
        // The others stand on their own.
      }
      at = end;
    }
  } catch {
    // Nobody knows where the next one would begin.
  }
  return frames;
}

function frameLengthAt(bytes: Buffer, at: number): number {
  if (at + HEAD_BYTES > bytes.length) throw new MalformedFrameError("shorter than its head");
  if (u16(bytes, at) !== MAGIC) throw new MalformedFrameError("does not begin with HW");
  const version = bytes[at + 2]!;
  if (version !== FRAME_VERSION)
    throw new MalformedFrameError(`version ${version}; this program reads ${FRAME_VERSION}`);
  const length = u32(bytes, at + 4);
  if (length < HEAD_BYTES || length > MAX_FRAME_BYTES) throw new MalformedFrameError(`${length} bytes long`);
  return length;
}

/** How many runs a frame announces; 0 where that is cut off. */
function runsAt(bytes: Buffer, at: number): number {
  const batchAt = at + HEAD_BYTES + u16(bytes, at + 44) + u16(bytes, at + 46);
  return batchAt + 4 <= bytes.length ? u32(bytes, batchAt) : 0;
}

/** How an epoch is written in topics, keys and logs: 16 hex digits. */
export function epochName(epoch: Epoch): string {
  return epoch.toString(16).padStart(16, "0");
}
