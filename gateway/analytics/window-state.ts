/**
 * A statement's state in memory: records in, closed windows out. It knows event time and SQL, and
 * nothing of files or streams.
 */
import { forEachUserRecordInTurns, type LogPart, type Offset, type ShardId } from "../streams/streams.ts";
import type { Totals } from "./checkpoint.ts";
import { ColumnBatch } from "./columns.ts";
import { compileDecoder, type DecodedRecord, type Decoder } from "./decode.ts";
import type { Partials } from "./engines/duckdb-partials.ts";
import type { Range } from "./input-positions.ts";
import { type Group, Panes } from "./panes.ts";
import type { Plan } from "./sql/plan.ts";
import type { Watermark } from "./watermark.ts";

/** A batch ends with the read that reaches it. */
const BATCH_ROWS = 65_536;
const READ_BYTES = 1_048_576;
/** A record takes no less in the log, with its head and its JSON. */
const MIN_RECORD_BYTES = 32;
/**
 * Of what the state holds. Beyond the first, only those shards are read that hold the watermark back; what a batch adds
 * from there on stays below the second, so that what they bring has room.
 */
const CROWDED = 1 / 3;
const NEARLY_FULL = 2 / 3;

export class WindowState {
  readonly panes: Panes;
  readonly watermark: Watermark;
  readonly totals: Totals = { records: 0, late: 0, rejected: 0, results: 0, trimmed: 0, skipped: 0 };
  /** Why the last record was rejected. */
  lastRejection: string | undefined;
  readonly #plan: Plan;
  readonly #maxGroups: number;
  readonly #decode: Decoder;
  readonly #partials: Partials;
  readonly #batch: ColumnBatch;
  readonly #record: DecodedRecord;

  constructor(plan: Plan, partials: Partials, watermark: Watermark, maxGroups: number) {
    this.#plan = plan;
    this.#maxGroups = maxGroups;
    this.#decode = compileDecoder(plan);
    this.#partials = partials;
    this.watermark = watermark;
    this.panes = new Panes(maxGroups);
    this.#batch = new ColumnBatch(plan.measures);
    this.#record = { timeMs: 0, keyName: "", key: [], measures: plan.measures.map(() => null) };
  }

  /**
   * So many windows are open that shards may no longer run ahead of one another: a backlog is read far faster than it
   * came, and what a shard of few records brings of a whole day would wait for the others'. To be asked between batches.
   */
  get isCrowded(): boolean {
    return this.#fill > CROWDED;
  }

  /** Enough is gathered for a batch, so that the rest has to wait for the next one. */
  isBatchFull(isCrowded: boolean): boolean {
    const { rows } = this.#batch;
    return rows >= BATCH_ROWS || (rows > 0 && this.#fill > (isCrowded ? NEARLY_FULL : CROWDED));
  }

  /** What may be read of a shard without more windows than there is room for, were each record of another. @param reads before the next batch */
  readBytes(reads: number): number {
    const room = (1 - this.#fill) * this.#maxGroups;
    return Math.max(1, Math.min(READ_BYTES, Math.floor((room * MIN_RECORD_BYTES) / reads)));
  }

  get #fill(): number {
    const { groupsAtMost, keyCharactersAtMost } = this.#batch;
    return this.panes.fill(groupsAtMost, keyCharactersAtMost);
  }

  /**
   * Decodes the records from `from` on, those that the KPL packed one by one. Lateness is judged by the
   * watermark before the batch.
   * @returns how many can be decoded and are not late
   */
  async gather(shardId: ShardId, parts: readonly LogPart[], from: Offset): Promise<number> {
    let taken = 0;
    let takenMs = 0;
    const { windowMs } = this.#plan;
    const watermarkMs = this.watermark.ms ?? Number.NEGATIVE_INFINITY;
    const record = this.#record;
    await forEachUserRecordInTurns(parts, (payload, offset, arrivalMs) => {
      if (offset < from) return;
      this.totals.records++;
      const problem = this.#decode(payload, arrivalMs, record);
      if (problem !== undefined) {
        this.totals.rejected++;
        this.lastRejection = problem;
        return;
      }
      this.watermark.seen(shardId, record.timeMs);
      const paneMs = Math.floor(record.timeMs / windowMs) * windowMs;
      if (paneMs + windowMs <= watermarkMs) this.totals.late++;
      else {
        this.#batch.add(record.keyName, record.key, paneMs, record.measures);
        taken++;
        takenMs = arrivalMs;
      }
    });
    if (taken > 0) this.watermark.arrived(shardId, takenMs);
    return taken;
  }

  /** The newest event time of the records within the range; undefined when none can be decoded. */
  async newestMs(parts: readonly LogPart[], { from, to }: Range): Promise<number | undefined> {
    const record = this.#record;
    let newest: number | undefined;
    await forEachUserRecordInTurns(parts, (payload, offset, arrivalMs) => {
      if (offset < from || offset >= to) return;
      if (this.#decode(payload, arrivalMs, record) !== undefined) return;
      if (newest === undefined || record.timeMs > newest) newest = record.timeMs;
    });
    return newest;
  }

  /**
   * Merges what was gathered, moves the watermark and takes out the windows that it closes.
   * @param nowMs monotonic, of before anything was gathered @throws StateFullError
   */
  async advance(nowMs: number): Promise<Group[]> {
    for (let from = 0; from < this.#batch.rows; from += this.#partials.rowsAtOnce) {
      await this.panes.merge(await this.#partials.aggregate(this.#batch, from));
    }
    this.#batch.clear();
    if (!this.watermark.advance(nowMs)) return [];
    return this.panes.close(this.watermark.ms!, this.#plan.windowMs);
  }
}
