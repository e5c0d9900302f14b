/** Messages of a stream taken apart by shard, and those of them that were needed last. */
import type { LogPart } from "../../streams.ts";
import { decodeEntry, type HashedRun, offsetOf } from "./entry.ts";
import type { ShardHistory } from "./shard-history.ts";
import type { StoredMessage } from "./stored-message.ts";

const CACHED_BYTES = 32 * 1_048_576;

/** A message, taken apart by shard. */
export interface TailEntry {
  readonly sequence: number;
  readonly arrivalMs: number;
  readonly bytes: number;
  readonly runs: readonly HashedRun[];
  /** Shard index → its records, where they stand one behind the other. */
  readonly parts: ReadonlyMap<number, readonly LogPart[]>;
}

/** By the shards that were open at its place. @throws MalformedBatchError */
export function openMessage(history: ShardHistory, message: StoredMessage): TailEntry {
  const { sequence, payload } = message;
  const { arrivalMs, runs } = decodeEntry(payload);
  const map = history.mapAt(sequence);
  const parts = new Map<number, LogPart[]>();
  let index = 0;
  let open: { shard: number; first: number; count: number; runs: HashedRun[] } | undefined;
  const end = (): void => {
    if (open === undefined) return;
    const part = { first: open.first, count: open.count, arrivalMs, runs: open.runs };
    const known = parts.get(open.shard);
    if (known === undefined) parts.set(open.shard, [part]);
    else known.push(part);
  };
  for (const run of runs) {
    const shard = history.shardOfRun(run, map);
    if (open?.shard !== shard) {
      end();
      open = { shard, first: offsetOf(sequence, index), count: 0, runs: [] };
    }
    open.runs.push(run);
    open.count += run.count;
    index += run.count;
  }
  end();
  return { sequence, arrivalMs, bytes: payload.length, runs, parts };
}

/** Bounded in bytes; what was put in first leaves first. */
export class EntryCache {
  readonly #entries = new Map<number, TailEntry>();
  #bytes = 0;

  get(sequence: number): TailEntry | undefined {
    return this.#entries.get(sequence);
  }

  keep(entry: TailEntry): void {
    if (this.#entries.has(entry.sequence)) return;
    this.#entries.set(entry.sequence, entry);
    this.#bytes += entry.bytes;
    for (const [sequence, oldest] of this.#entries) {
      if (this.#bytes <= CACHED_BYTES) break;
      this.#entries.delete(sequence);
      this.#bytes -= oldest.bytes;
    }
  }
}
