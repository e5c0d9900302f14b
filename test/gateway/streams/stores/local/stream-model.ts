/**
 * What must be true of one stream, kept the plain way: every record that was ever handed in, what became of
 * it, and where it was seen. It is told what the store answered, and judges what the store gives back.
 */
import assert from "node:assert/strict";

const HOUR_MS = 3_600_000;

/**
 * `waiting`: no answer yet; `acknowledged`: it must be there; `refused`: it must not; `doubtful`: it may, as
 * the power went or the disk failed under way.
 */
export type Fate = "waiting" | "acknowledged" | "refused" | "failed" | "doubtful";

export interface Handed {
  readonly text: string;
  readonly key: string;
  /** Rising in the order of calls, among records of one key. */
  readonly order: number;
  /** Handed in with it, all or none. */
  readonly unit: number;
  /** By a clock that is never ahead. */
  bornMs: number;
  fate: Fate;
  shard?: number;
  offset?: number;
  /** Damaged on purpose. */
  isHarmed: boolean;
}

export interface Found {
  readonly key: string;
  readonly text: string;
  readonly offset: number;
}

export class StreamModel {
  readonly streamId: string;
  retentionHours: number;
  readonly records = new Map<string, Handed>();
  /** By shard and offset: what stood there once stands there for ever, or is gone. */
  readonly #places = new Map<string, string>();

  constructor(streamId: string, retentionHours: number) {
    this.streamId = streamId;
    this.retentionHours = retentionHours;
  }

  hand(text: string, key: string, order: number, unit: number, bornMs: number): Handed {
    const record: Handed = { text, key, order, unit, bornMs, fate: "waiting", isHarmed: false };
    this.records.set(text, record);
    return record;
  }

  /** What had no answer, or was refused by the disk alone, is in doubt behind a crash. */
  crash(): void {
    for (const record of this.records.values()) {
      if (record.fate === "waiting" || record.fate === "failed") record.fate = "doubtful";
    }
  }

  /** It stands there, said the store. */
  place(record: Handed, shard: number, offset: number): void {
    const place = `${shard}/${offset}`;
    const other = this.#places.get(place);
    assert.ok(
      other === undefined || other === record.text,
      `${place} held ${other}, now ${record.text}: ${JSON.stringify(this.records.get(other ?? ""))}`,
    );
    if (record.offset !== undefined && !record.isHarmed) {
      const known = `${record.shard}/${record.offset}`;
      assert.equal(place, known, `${record.text} stands at ${place} and at ${known}`);
    }
    // One that was lost may come again, from a producer who never heard that it was there.
    if (place !== `${record.shard}/${record.offset}`) record.isHarmed = false;
    this.#places.set(place, record.text);
    record.shard = shard;
    record.offset = offset;
  }

  /** It was read. */
  see(shard: number, { key, text, offset }: Found): Handed {
    const record = this.records.get(text);
    assert.ok(record !== undefined, `nobody handed in ${text}, found at ${shard}/${offset}`);
    assert.equal(key, record.key);
    assert.ok(
      record.fate !== "refused" && record.fate !== "failed",
      `${text} was ${record.fate} and stands at ${shard}/${offset}`,
    );
    this.place(record, shard, offset);
    // Whoever read it once may read it again. Where no answer came yet, that one must not be a refusal.
    if (record.fate === "doubtful") record.fate = "acknowledged";
    return record;
  }

  /** A read from `from` on gave `found` and goes on at `next`; nothing before `horizon` is kept. */
  judgeRead(
    shard: number,
    from: number,
    next: number,
    horizon: number,
    found: readonly Found[],
    acknowledged: readonly Handed[],
  ): void {
    const texts = new Set<string>();
    let last = -1;
    for (const one of found) {
      assert.ok(one.offset > last, `${one.offset} behind ${last} in shard ${shard}`);
      last = one.offset;
      texts.add(this.see(shard, one).text);
    }
    for (const record of acknowledged) {
      if (record.shard !== shard || record.isHarmed || texts.has(record.text)) continue;
      const { offset } = record;
      if (offset === undefined || offset < Math.max(from, horizon) || offset >= next) continue;
      assert.fail(`${record.text} at ${shard}/${offset} is passed over by a read from ${from} to ${next}`);
    }
  }

  acknowledged(): Handed[] {
    return [...this.records.values()].filter(({ fate }) => fate === "acknowledged");
  }

  /**
   * All that is there was read just now.
   * @param horizons of the shards that there are, by index
   * @param nowMs by a clock that is never wrong
   */
  judgeAll(found: ReadonlySet<string>, horizons: ReadonlyMap<number, number>, nowMs: number): void {
    const units = new Map<number, { there: number; gone: string[] }>();
    for (const record of this.records.values()) {
      if (record.fate !== "acknowledged" && !found.has(record.text)) continue;
      const mayBeOld = nowMs - record.bornMs > (this.retentionHours - 1) * HOUR_MS;
      const isTrimmed =
        record.offset !== undefined &&
        record.offset < (horizons.get(record.shard!) ?? Number.POSITIVE_INFINITY);
      if (found.has(record.text)) {
        const unit = units.get(record.unit) ?? { there: 0, gone: [] };
        unit.there++;
        units.set(record.unit, unit);
        continue;
      }
      if (record.isHarmed) continue;
      // One of a frame whose place nobody read before it was too old.
      if (mayBeOld && (isTrimmed || record.offset === undefined)) continue;
      assert.fail(
        `${record.text} is lost: ${JSON.stringify(record)}, horizon ${horizons.get(record.shard ?? -1)}, at ${nowMs}`,
      );
    }
    for (const record of this.records.values()) {
      const unit = units.get(record.unit);
      if (unit === undefined || found.has(record.text) || record.isHarmed) continue;
      const mayBeOld = nowMs - record.bornMs > (this.retentionHours - 1) * HOUR_MS;
      assert.ok(mayBeOld, `${record.text} is missing from a unit of which ${unit.there} are there`);
    }
  }
}
