/**
 * What is read of each stream, for those who know it from CloudWatch: how much by GetRecords and by pushes,
 * how far behind the newest record readers are, and what the rates of `limits: aws` held back.
 */
import type { Gauge } from "prom-client";
import type { Clock } from "../../../runtime/clock.ts";
import type { Metrics } from "../../../runtime/metrics.ts";

/** A figure is the highest of this period and the one before; nobody who reads no more has one. */
const PERIOD_MS = 60_000;

export type ReadBy = "GetRecords" | "SubscribeToShard";

interface Highest {
  readonly stream: string;
  readonly by: ReadBy;
  periodMs: number;
  now: number;
  before: number;
}

export class ReadMeters {
  readonly #clock: Clock;
  readonly #records;
  readonly #bytes;
  readonly #pushed;
  readonly #throttled;
  readonly #behind = new Map<string, Highest>();
  /** Of which something was counted. */
  readonly #streams = new Set<string>();

  /** @param listStreams the names of those that there are: of others nothing is told any more */
  constructor(metrics: Metrics, clock: Clock, listStreams: () => readonly string[]) {
    this.#clock = clock;
    // First: what is asked for behind it no longer tells of streams that are gone.
    const collect = (gauge: Gauge<"stream" | "by">): void => {
      const there = new Set(listStreams());
      for (const stream of this.#streams) if (!there.has(stream)) this.#forget(stream);
      gauge.reset();
      for (const { stream, by, seconds } of this.#figures()) gauge.set({ stream, by }, seconds);
    };
    metrics.gauge(
      "headwater_kinesis_read_behind_seconds",
      "How far behind the newest record readers were, at most, within the last minute or two",
      ["stream", "by"],
      function () {
        collect(this);
      },
    );
    this.#records = metrics.counter(
      "headwater_kinesis_read_records_total",
      "Records that GetRecords gave, by stream",
      ["stream"],
    );
    this.#bytes = metrics.counter(
      "headwater_kinesis_read_bytes_total",
      "Bytes of data that GetRecords gave, by stream",
      ["stream"],
    );
    this.#pushed = metrics.counter(
      "headwater_kinesis_pushed_records_total",
      "Records sent to subscribers of enhanced fan-out",
      ["stream"],
    );
    this.#throttled = metrics.counter(
      "headwater_kinesis_throttled_records_total",
      "Records that the rates of `limits: aws` refused, by stream",
      ["stream"],
    );
  }

  page(stream: string, records: number, dataBytes: number, behindMs: number): void {
    this.#streams.add(stream);
    this.#records.inc({ stream }, records);
    this.#bytes.inc({ stream }, dataBytes);
    this.#noteBehind(stream, "GetRecords", behindMs);
  }

  /** An event of SubscribeToShard. */
  pushed(stream: string, records: number, behindMs: number): void {
    this.#pushed.inc({ stream }, records);
    this.#noteBehind(stream, "SubscribeToShard", behindMs);
  }

  /** @param behindMs as an answer says it: MillisBehindLatest */
  #noteBehind(stream: string, by: ReadBy, behindMs: number): void {
    const key = `${by} ${stream}`;
    let highest = this.#behind.get(key);
    if (highest === undefined) {
      this.#streams.add(stream);
      highest = { stream, by, periodMs: 0, now: 0, before: 0 };
      this.#behind.set(key, highest);
    }
    this.#turn(highest);
    highest.now = Math.max(highest.now, behindMs);
  }

  throttled(stream: string, records: number): void {
    this.#streams.add(stream);
    this.#throttled.inc({ stream }, records);
  }

  /** Lets the period that is over be the one before. */
  #turn(highest: Highest): void {
    const periodMs = this.#periodMs();
    if (highest.periodMs === periodMs) return;
    highest.before = highest.periodMs === periodMs - PERIOD_MS ? highest.now : 0;
    highest.now = 0;
    highest.periodMs = periodMs;
  }

  *#figures(): Iterable<{ readonly stream: string; readonly by: ReadBy; readonly seconds: number }> {
    const periodMs = this.#periodMs();
    for (const [key, highest] of this.#behind) {
      if (highest.periodMs < periodMs - PERIOD_MS) {
        this.#behind.delete(key);
        continue;
      }
      const { stream, by, now } = highest;
      const before = highest.periodMs === periodMs ? highest.before : 0;
      yield { stream, by, seconds: Math.max(now, before) / 1_000 };
    }
  }

  #periodMs(): number {
    const nowMs = this.#clock.monotonicMs();
    return nowMs - (nowMs % PERIOD_MS);
  }

  #forget(stream: string): void {
    this.#streams.delete(stream);
    const counters = [this.#records, this.#bytes, this.#pushed, this.#throttled];
    for (const counter of counters) counter.remove({ stream });
    for (const [key, highest] of this.#behind) if (highest.stream === stream) this.#behind.delete(key);
  }
}
