/**
 * A statement's state in memory: records in, closed windows out. It knows event time and SQL, and
 * nothing of files or streams.
 */
import { forEachUserRecord, type LogPart, type Offset, type ShardId } from "../streams/streams.ts";
import type { Totals } from "./checkpoint.ts";
import { ColumnBatch } from "./columns.ts";
import { compileDecoder, type DecodedRecord, type Decoder } from "./decode.ts";
import type { Partials } from "./engines/duckdb-partials.ts";
import type { Range } from "./input-positions.ts";
import { type Group, Panes } from "./panes.ts";
import type { Plan } from "./sql/plan.ts";
import type { Watermark } from "./watermark.ts";

export class WindowState {
  readonly panes: Panes;
  readonly watermark: Watermark;
  readonly totals: Totals = { records: 0, late: 0, rejected: 0, results: 0, trimmed: 0, skipped: 0 };
  /** Why the last record was rejected. */
  lastRejection: string | undefined;
  readonly #plan: Plan;
  readonly #decode: Decoder;
  readonly #partials: Partials;
  readonly #batch: ColumnBatch;
  readonly #record: DecodedRecord;

  constructor(plan: Plan, partials: Partials, watermark: Watermark, maxGroups: number) {
    this.#plan = plan;
    this.#decode = compileDecoder(plan);
    this.#partials = partials;
    this.watermark = watermark;
    this.panes = new Panes(maxGroups);
    this.#batch = new ColumnBatch(plan.measures);
    this.#record = { timeMs: 0, keyName: "", key: [], measures: plan.measures.map(() => null) };
  }

  /** Rows gathered and not yet merged. */
  get gathered(): number {
    return this.#batch.rows;
  }

  /** Decodes the records of a part from `from` on, those that the KPL packed one by one. Lateness is judged by the watermark before the batch. */
  gather(shardId: ShardId, part: LogPart, from: Offset): void {
    const { windowMs } = this.#plan;
    const watermarkMs = this.watermark.ms ?? Number.NEGATIVE_INFINITY;
    const record = this.#record;
    let first = part.first;
    for (const run of part.runs) {
      forEachUserRecord(run, (payload, _timeUs, index) => {
        if (first + index < from) return;
        this.totals.records++;
        const problem = this.#decode(payload, part.arrivalMs, record);
        if (problem !== undefined) {
          this.totals.rejected++;
          this.lastRejection = problem;
          return;
        }
        this.watermark.seen(shardId, record.timeMs);
        const paneMs = Math.floor(record.timeMs / windowMs) * windowMs;
        if (paneMs + windowMs <= watermarkMs) this.totals.late++;
        else this.#batch.add(record.keyName, record.key, paneMs, record.measures);
      });
      first += run.count;
    }
  }

  /** The newest event time of a part's records within the range; undefined when none can be decoded. */
  newestMs(part: LogPart, { from, to }: Range): number | undefined {
    const record = this.#record;
    let newest: number | undefined;
    let first = part.first;
    for (const run of part.runs) {
      forEachUserRecord(run, (payload, _timeUs, index) => {
        if (first + index < from || first + index >= to) return;
        if (this.#decode(payload, part.arrivalMs, record) !== undefined) return;
        if (newest === undefined || record.timeMs > newest) newest = record.timeMs;
      });
      first += run.count;
    }
    return newest;
  }

  /** Merges what was gathered, moves the watermark and takes out the windows that it closes. @throws StateFullError */
  async advance(nowMs: number): Promise<Group[]> {
    const partials = await this.#partials.aggregate(this.#batch);
    this.#batch.clear();
    this.panes.merge(partials);
    if (!this.watermark.advance(nowMs)) return [];
    return this.panes.close(this.watermark.ms!, this.#plan.windowMs);
  }
}
