/**
 * The last steps of a reading, the same for every source: it is shaped, made a record, and stored.
 * Order is kept. While the buffer is full whoever stores waits; that is the back-pressure.
 */
import { pause } from "../../runtime/backoff.ts";
import {
  BufferFullError,
  type BufferRecord,
  MAX_PAYLOAD_BYTES,
  type Mark,
  type RecordBuffer,
  RecordInvalidError,
} from "../buffer/record-buffer.ts";
import { readingRecord } from "./reading-record.ts";
import type { Shape } from "./shape/shape.ts";
import type { Arrival, SensorReading, SourceClock } from "./source.ts";
import type { SourceMeters } from "./source-meters.ts";

/** Stored at once: an eighth of the buffer, so that also a small one has room for it some time, within these. */
const MIN_APPEND_BYTES = 8_192;
const MAX_APPEND_BYTES = 1_048_576;
/** Every buffer has room for such a payload some time. */
const SMALL_PAYLOAD_BYTES = 8_192;
/** A full buffer that refuses is asked again after so long. */
const REFUSED_WAIT_MS = 250;
/** Bytes of something undecodable that are kept. */
const MAX_RAW_BYTES = 65_536;

export interface Arrived extends Arrival {
  /** Stored in the same write; also when the reading is left out. */
  readonly mark?: Mark;
}

export interface IntakeOptions {
  readonly device: string;
  readonly stream: string;
  readonly shape: Shape | undefined;
  readonly buffer: RecordBuffer;
  readonly clock: SourceClock;
  readonly meters: SourceMeters;
  /** Told when the buffer begins and ends to refuse. */
  readonly onHeld?: (held: boolean) => void;
}

export class Intake {
  readonly #options: IntakeOptions;

  constructor(options: IntakeOptions) {
    this.#options = options;
  }

  /** As they arrived, without the shape: what they take in the buffer, about. */
  unshaped(arrived: readonly Arrived[]): readonly BufferRecord[] {
    return arrived.map((one) => this.#record(one.reading, one));
  }

  /** A filter has to be waited for; without one the records come at once. */
  records(arrived: readonly Arrived[]): readonly BufferRecord[] | Promise<readonly BufferRecord[]> {
    const { shape } = this.#options;
    if (shape === undefined) return this.unshaped(arrived);
    const shaped = shape.apply(arrived);
    const made = (lists: readonly (readonly SensorReading[])[]): BufferRecord[] =>
      lists.flatMap((readings, i) => readings.map((reading) => this.#record(reading, arrived[i]!)));
    return shaped instanceof Promise ? shaped.then(made) : made(shaped);
  }

  #record(reading: SensorReading, { arrivalUs, mark }: Arrived): BufferRecord {
    const { device, stream, clock } = this.#options;
    const record = readingRecord(device, stream, reading, arrivalUs, clock.knownBy);
    return mark === undefined ? record : { ...record, mark };
  }

  /**
   * Resolves when all are on disk, the last one's mark with them, whatever was left out.
   * A crash in between leaves a leading part, and the mark of the last record of it.
   * @throws when `signal` aborts while the buffer is full, or the buffer failed
   */
  async store(arrived: readonly Arrived[], signal: AbortSignal): Promise<void> {
    const records = [...(await this.records(arrived))];
    // The mark of a reading that was left out goes with the record before it.
    const lastMark = arrived.findLast(({ mark }) => mark !== undefined)?.mark;
    if (records.length === 0) {
      if (lastMark !== undefined) await this.#options.buffer.setMarks([lastMark]);
      return;
    }
    if (lastMark !== undefined) records.push({ ...records.pop()!, mark: lastMark });
    try {
      await this.#appendAll(records, signal);
    } catch (error) {
      this.notStored();
      throw error;
    }
  }

  async #appendAll(records: readonly BufferRecord[], signal: AbortSignal): Promise<void> {
    const share = this.#options.buffer.usage().maxBytes / 8;
    const appendBytes = Math.min(MAX_APPEND_BYTES, Math.max(MIN_APPEND_BYTES, share));
    for (let at = 0; at < records.length; ) {
      let end = at;
      for (let bytes = 0; end < records.length; end++) {
        bytes += records[end]!.payload.length;
        if (end > at && bytes > appendBytes) break;
      }
      await this.append(records.slice(at, end), signal);
      at = end;
    }
  }

  /** What was shaped comes again: a deadband must not take it for known. */
  notStored(): void {
    this.#options.shape?.reset();
  }

  /** As the buffer's, but asks again while it is full. */
  async append(records: readonly BufferRecord[], signal: AbortSignal): Promise<void> {
    const { buffer, meters, onHeld } = this.#options;
    let held = false;
    try {
      while (!signal.aborted) {
        try {
          await buffer.append(records);
          meters.stored(records.length);
          return;
        } catch (error) {
          if (error instanceof RecordInvalidError && records.length > 1)
            return await this.#oneByOne(records, signal);
          if (error instanceof RecordInvalidError) return meters.rejected(error.message);
          if (!(error instanceof BufferFullError)) throw error;
          meters.fault(error.message);
          held = true;
          onHeld?.(true);
          await pause(REFUSED_WAIT_MS, signal);
        }
      }
    } finally {
      if (held) onHeld?.(false);
    }
    throw new Error("closed while the buffer was full");
  }

  /** One that can never be stored must not take the others with it. */
  async #oneByOne(records: readonly BufferRecord[], signal: AbortSignal): Promise<void> {
    for (const record of records) await this.append([record], signal);
  }

  /**
   * A record that is too large for the buffer becomes one that says so. For a source whose device would send
   * it again, first, for ever: numbers such as 1e20, or units, make of a small message a large record.
   */
  bounded(records: readonly BufferRecord[]): readonly BufferRecord[] {
    const isLarge = (largest: number): boolean => records.some(({ payload }) => payload.length > largest);
    // Nearly all of them are small: nothing is asked of the buffer for these.
    if (!isLarge(SMALL_PAYLOAD_BYTES)) return records;
    const share = this.#options.buffer.usage().maxBytes / 4;
    const largest = Math.min(MAX_PAYLOAD_BYTES, Math.max(SMALL_PAYLOAD_BYTES, share));
    if (!isLarge(largest)) return records;
    const { device, stream } = this.#options;
    return records.map((record) => {
      const { partitionKey, payload, timeUs } = record;
      if (payload.length <= largest) return record;
      const fields = { reason: `a reading of ${payload.length} bytes is too large`, bytes: payload.length };
      const reading = { sensor: partitionKey.slice(device.length + 1), timeUs: undefined, fields };
      return readingRecord(device, stream, reading, timeUs);
    });
  }

  /** What no format fits, as a reading that holds its bytes. */
  raw(sensor: string, reason: string, bytes: Uint8Array): SensorReading {
    this.#options.meters.rejected(reason);
    const kept = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, MAX_RAW_BYTES));
    const cut = bytes.length > MAX_RAW_BYTES ? { bytes: bytes.length } : {};
    return { sensor, timeUs: undefined, fields: { reason, ...cut, raw: kept.toString("base64") } };
  }
}
