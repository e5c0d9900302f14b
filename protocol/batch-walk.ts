/**
 * Goes over a batch of records where it lies: no object for a run or a record, no copy, no key
 * decoded. `decodeBatch` and `forEachRecord` of record-batch.ts are the plain way.
 *
 *   const walk = new BatchWalk(batch);
 *   while (walk.nextRun()) while (walk.nextRecord()) … walk.bytes[walk.payloadAt … walk.payloadEnd]
 */
import {
  asBuffer,
  MAX_KEY_BYTES,
  MalformedBatchError,
  RECORD_HEAD_BYTES,
  RUN_OVERHEAD_BYTES,
} from "./record-batch.ts";

/** u32 runCount | u32 tableBytes */
const BATCH_HEAD_BYTES = 8;

export class BatchWalk {
  readonly bytes: Buffer;
  /** The run in hand: where its key stands, and how many records it has in how many bytes. */
  keyAt = 0;
  keyEnd = 0;
  count = 0;
  bodyBytes = 0;
  /** The record in hand. */
  payloadAt = 0;
  payloadEnd = 0;
  #runsLeft: number;
  #recordsLeft = 0;
  #tableAt = BATCH_HEAD_BYTES;
  readonly #tableEnd: number;
  /** Where the next record has its head, and where the run in hand ends. */
  #bodyAt: number;
  #runEnd: number;

  /** @throws MalformedBatchError, as do the steps: nothing is read outside of `batch`, whatever it says */
  constructor(batch: Uint8Array) {
    const bytes = asBuffer(batch);
    if (bytes.length < BATCH_HEAD_BYTES) throw new MalformedBatchError("shorter than its head");
    this.bytes = bytes;
    this.#runsLeft = bytes.readUInt32BE(0);
    this.#tableEnd = BATCH_HEAD_BYTES + bytes.readUInt32BE(4);
    if (this.#tableEnd > bytes.length) throw new MalformedBatchError("its table runs over the end");
    this.#bodyAt = this.#tableEnd;
    this.#runEnd = this.#tableEnd;
  }

  /** Steps to the next run, also from the middle of one. False at the end of the batch. */
  nextRun(): boolean {
    const { bytes } = this;
    const at = this.#tableAt;
    this.#bodyAt = this.#runEnd;
    if (this.#runsLeft === 0) {
      if (at !== this.#tableEnd) throw new MalformedBatchError("its table is longer than its runs");
      if (this.#runEnd !== bytes.length) throw new MalformedBatchError("its body is longer than its runs");
      return false;
    }
    this.#runsLeft--;
    this.keyAt = at + RUN_OVERHEAD_BYTES;
    if (this.keyAt > this.#tableEnd) throw new MalformedBatchError("a run's head is cut off");
    const keyBytes = (bytes[at]! << 8) | bytes[at + 1]!;
    if (keyBytes === 0 || keyBytes > MAX_KEY_BYTES)
      throw new MalformedBatchError(`a key of ${keyBytes} bytes`);
    this.keyEnd = this.keyAt + keyBytes;
    if (this.keyEnd > this.#tableEnd) throw new MalformedBatchError("a key is cut off");
    this.count = readUInt32(bytes, at + 2);
    this.bodyBytes = readUInt32(bytes, at + 6);
    this.#runEnd += this.bodyBytes;
    if (this.#runEnd > bytes.length) throw new MalformedBatchError("a run is cut off");
    if (this.count === 0 || this.count * RECORD_HEAD_BYTES > this.bodyBytes)
      throw new MalformedBatchError(`${this.count} records in ${this.bodyBytes} bytes`);
    this.#tableAt = this.keyEnd;
    this.#recordsLeft = this.count;
    return true;
  }

  /** Steps to the next record of the run in hand. False at the run's end. */
  nextRecord(): boolean {
    const at = this.#bodyAt;
    if (this.#recordsLeft === 0) {
      if (at !== this.#runEnd) throw new MalformedBatchError("a run is longer than its records");
      return false;
    }
    this.#recordsLeft--;
    this.payloadAt = at + RECORD_HEAD_BYTES;
    if (this.payloadAt > this.#runEnd) throw new MalformedBatchError("a record's head is cut off");
    this.payloadEnd = this.payloadAt + readUInt32(this.bytes, at);
    if (this.payloadEnd > this.#runEnd) throw new MalformedBatchError("a record is cut off");
    this.#bodyAt = this.payloadEnd;
    return true;
  }

  /** Bytes of all payloads of the run in hand. */
  get payloadBytes(): number {
    return this.bodyBytes - this.count * RECORD_HEAD_BYTES;
  }
}

/** As `Buffer.readUInt32BE`, of bytes that are known to be there. */
function readUInt32(bytes: Buffer, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}
