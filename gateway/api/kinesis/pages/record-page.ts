/**
 * A page of a shard's records: first it is found out what of the parts that were read fits, then all
 * is written at once, into memory of the right size.
 */
import { BatchWalk } from "../../../../protocol/batch-walk.ts";
import { joinRuns } from "../../../../protocol/record-batch.ts";
import type { LogPart, Offset, ShardDescription } from "../../../streams/streams.ts";
import { cborHead } from "../wire/cbor.ts";
import type { Codec } from "../wire/codec.ts";
import { type PageFrame, type PageJob, putFrame } from "./page-job.ts";
import { ESCAPE_BYTES, type RecordWindow, recordWindow } from "./record-window.ts";
import { escapedBytes, MAX_FRAME_BYTES, RecordWriter, type Stretch } from "./record-writer.ts";

export interface PageLimits {
  readonly records: number;
  /** Of data; a single record may be larger. */
  readonly dataBytes: number;
}

const NOTHING = Buffer.alloc(0);
const JSON_END = Buffer.from("]}");

/** What stands beside the records of an answer that has some. */
const MAX_MEMBERS_BYTES = 1_024;

/** A batch of fewer records is walked over sooner than it is copied. */
const MIN_MEASURED = 4;

export class RecordPage {
  readonly #shard: Pick<ShardDescription, "createdMs" | "index">;
  readonly #limits: PageLimits;
  readonly #window: RecordWindow;
  readonly #stretches: Stretch[] = [];
  #count = 0;
  #dataBytes = 0;
  #keyBytes = 0;
  #next: Offset;

  /** @param from where the page begins; what stands before it is passed over */
  constructor(
    shard: Pick<ShardDescription, "createdMs" | "index">,
    from: Offset,
    limits: PageLimits,
    window = recordWindow,
  ) {
    this.#shard = shard;
    this.#window = window;
    this.#next = from;
    this.#limits = limits;
  }

  get count(): number {
    return this.#count;
  }

  get dataBytes(): number {
    return this.#dataBytes;
  }

  /** The offset behind the last record. */
  get next(): Offset {
    return this.#next;
  }

  /** Retention may have moved the position on without a record to show for it. */
  skipTo(offset: Offset): void {
    this.#next = Math.max(this.#next, offset);
  }

  /**
   * Takes of a part what fits; parts come in order. Its bytes must not change until `encode`.
   * @returns false when a record is left over: the page is full
   */
  add(part: LogPart): boolean {
    const { first, arrivalMs } = part;
    const from = Math.max(first, this.#next);
    if (first + part.count <= from) return true;
    const batch = part.batch ?? joinRuns(part.runs);
    const to =
      from === first && this.#takesWhole(batch, part.count)
        ? first + part.count
        : this.#measure(new BatchWalk(batch), first, from);
    if (to > from) {
      this.#stretches.push({ batch, arrivalMs, first, from, to });
      this.#next = to;
    }
    return to === first + part.count;
  }

  /** Counts all records, if all fit and nothing is unusual. */
  #takesWhole(batch: Uint8Array, count: number): boolean {
    if (count < MIN_MEASURED || this.#count + count > this.#limits.records) return false;
    const whole = this.#window.measure(batch);
    if (whole?.records !== count) return false;
    if (this.#dataBytes + whole.dataBytes > this.#limits.dataBytes) return false;
    this.#count += count;
    this.#dataBytes += whole.dataBytes;
    this.#keyBytes += whole.keyBytes;
    return true;
  }

  /** Counts what fits of the records from `from` on. @returns where that ends */
  #measure(walk: BatchWalk, first: Offset, from: Offset): Offset {
    const { records, dataBytes } = this.#limits;
    let offset = first;
    while (walk.nextRun()) {
      const runEnd = offset + walk.count;
      if (runEnd <= from) {
        offset = runEnd;
        continue;
      }
      const fits = this.#count + walk.count <= records && this.#dataBytes + walk.payloadBytes <= dataBytes;
      if (fits && offset >= from) {
        this.#count += walk.count;
        this.#dataBytes += walk.payloadBytes;
        this.#countKeys(walk, walk.count);
        offset = runEnd;
        continue;
      }
      const before = this.#count;
      for (; walk.nextRecord(); offset++) {
        if (offset < from) continue;
        const bytes = walk.payloadEnd - walk.payloadAt;
        if (this.#count >= records || (this.#dataBytes + bytes > dataBytes && this.#count > 0)) break;
        this.#count++;
        this.#dataBytes += bytes;
      }
      this.#countKeys(walk, this.#count - before);
      if (offset < runEnd) break;
    }
    return offset;
  }

  #countKeys({ bytes, keyAt, keyEnd }: BatchWalk, times: number): void {
    this.#keyBytes += times * (keyEnd - keyAt + ESCAPE_BYTES * escapedBytes(bytes, keyAt, keyEnd));
  }

  /**
   * The answer: `members`, and behind them the `Records`.
   * @param members none of them undefined
   * @param memory gives room for so many bytes, or more
   * @param room bytes that are left free before and behind it
   */
  encode(
    codec: Codec,
    members: object,
    memory: (bytes: number) => Buffer = Buffer.allocUnsafe,
    room = { before: 0, after: 0 },
  ): Buffer {
    const frame = this.#frame(codec, members);
    const at = room.before + frame.beginBytes;
    const out = memory(at + this.#recordsBytes + frame.finish.length + room.after);
    const writer = new RecordWriter(codec.name, this.#shard, out, at, this.#window);
    for (const stretch of this.#stretches) writer.write(stretch);
    const end = putFrame(frame, out, at, writer.end());
    return out.subarray(0, end + room.after);
  }

  /** What `encode` would do, for somebody else. */
  job(codec: Codec, members: object): PageJob {
    return {
      codec: codec.name,
      shard: this.#shard,
      stretches: this.#stretches,
      frame: this.#frame(codec, members),
      recordsBytes: this.#recordsBytes,
    };
  }

  /** At most so much an answer with these records takes. */
  get answerBytes(): number {
    return this.#recordsBytes + MAX_MEMBERS_BYTES;
  }

  /** At most so much the records take. */
  get #recordsBytes(): number {
    return Math.ceil((this.#dataBytes * 4) / 3) + this.#keyBytes + this.#count * MAX_FRAME_BYTES;
  }

  #frame(codec: Codec, members: object): PageFrame {
    const empty = codec.encode({ ...members, Records: [] });
    // With no record, JSON ends in `]}` and CBOR in an array of none: there the records go.
    if (typeof empty === "string") {
      const beginBytes = Buffer.byteLength(empty) - JSON_END.length;
      return { empty, head: NOTHING, beginBytes, finish: JSON_END, separatorBytes: this.#count > 0 ? 1 : 0 };
    }
    const head = cborHead(4, this.#count);
    return { empty, head, beginBytes: empty.length - 1 + head.length, finish: NOTHING, separatorBytes: 0 };
  }
}
