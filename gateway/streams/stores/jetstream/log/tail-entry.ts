/** Messages of a stream taken apart by shard, and those of them that were needed last. */
import type { LogPart } from "../../../streams.ts";
import type { StoredMessage } from "../cluster/stored-message.ts";
import { decodeEntry, type HashedRun, offsetOf } from "./entry.ts";
import type { ShardHistory } from "./shard-history.ts";

/** Of all streams together. */
const CACHED_BYTES = 128 * 1_048_576;
/** What an entry and each run in it take beside their bytes, as measured: of small messages that is most. */
const ENTRY_BYTES = 1_200;
const RUN_BYTES = 280;

/** A message, taken apart by shard. */
export interface TailEntry {
  readonly sequence: number;
  readonly arrivalMs: number;
  /** Of memory. */
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
  const bytes = payload.length + ENTRY_BYTES + runs.length * RUN_BYTES;
  return { sequence, arrivalMs, bytes, runs, parts };
}

/** What the caches of all streams hold together, bounded in bytes; what was put in first leaves first, whosever it is. */
export class CacheRoom {
  readonly #maxBytes: number;
  readonly #owners = new Map<TailEntry, Map<number, TailEntry>>();
  #bytes = 0;

  constructor(maxBytes = CACHED_BYTES) {
    this.#maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  take(entry: TailEntry, owner: Map<number, TailEntry>): void {
    this.#owners.set(entry, owner);
    this.#bytes += entry.bytes;
    for (const [oldest, itsOwner] of this.#owners) {
      if (this.#bytes <= this.#maxBytes) break;
      itsOwner.delete(oldest.sequence);
      this.give(oldest);
    }
  }

  give(entry: TailEntry): void {
    if (this.#owners.delete(entry)) this.#bytes -= entry.bytes;
  }
}

/** Of one stream. */
export class EntryCache {
  readonly #entries = new Map<number, TailEntry>();
  readonly #room: CacheRoom;

  constructor(room: CacheRoom) {
    this.#room = room;
  }

  get(sequence: number): TailEntry | undefined {
    return this.#entries.get(sequence);
  }

  keep(entry: TailEntry): void {
    if (this.#entries.has(entry.sequence)) return;
    this.#entries.set(entry.sequence, entry);
    this.#room.take(entry, this.#entries);
  }

  clear(): void {
    for (const entry of this.#entries.values()) this.#room.give(entry);
    this.#entries.clear();
  }
}
