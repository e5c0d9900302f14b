/**
 * From publishes of plain clients, as columns, to entries of the log: one entry for all that come
 * together, where `appendPublish` (local-stream.ts), the plain way beside this one, makes one for each.
 *
 *   columns ─ judged in order ─┬ known → "duplicate", once what still waits is on disk
 *                              └ new, up to a limit → one entry, with whose each is
 */

import type { ShardMap } from "../../shard-map.ts";
import type { AppendOutcome, PublishColumns, PutColumns } from "../../streams.ts";
import { MAX_PUBLISHES_BYTES, publishBytes, publishesOf } from "../entry-producer.ts";
import { ENTRY_KIND } from "../log-entry.ts";
import { identityOf } from "../publish-identity.ts";
import { shortClientId } from "../routing.ts";
import type { StreamLog } from "./log/stream-log.ts";
import { routeColumns } from "./route-columns.ts";

/** A reader reads an entry's part whole. */
const MAX_ENTRY_DATA_BYTES = 1_048_576;

/** @param duplicates hears of known ones. @returns once all are on disk; rejects when one cannot be */
export function appendPublishes(
  publishes: PublishColumns,
  log: StreamLog,
  shards: ShardMap,
  duplicates: (count: number) => void,
): Promise<readonly AppendOutcome[]> {
  return new Promise((resolve, reject) => {
    const { count, clientIds, packetIds, partitionKeys, mayRepeat, data, ends } = publishes;
    const outcomes = new Array<AppendOutcome>(count).fill("stored");
    // One for the loop, so that nothing resolves before all are handed over.
    let pending = 1;
    const done = (): void => {
      if (--pending === 0) resolve(outcomes);
    };
    const waiter = { done, failed: reject };
    let draft = new Draft(publishes, 0);
    const close = (end: number): void => {
      if (draft.from < end) {
        pending++;
        const { parts } = routeColumns(draft.columns(end), shards, publishes.timeUs);
        log.append(ENTRY_KIND.records, draft.producer(), parts, waiter);
      }
      draft = new Draft(publishes, end);
    };
    for (let i = 0; i < count; i++) {
      const clientId = shortClientId(clientIds[i]!);
      const from = i === 0 ? 0 : ends[i - 1]!;
      const packetId = packetIds[i]!;
      const identity =
        packetId === 0 ? undefined : identityOf(packetId, partitionKeys[i]!, data, from, ends[i]!);
      // What comes before it in here has to be known to the judge.
      if (mayRepeat[i] || !draft.hasRoomFor(clientId, ends[i]!)) close(i);
      if (mayRepeat[i] && identity !== undefined) {
        const verdict = log.producers.judgePublish(clientId, identity);
        if (verdict !== "new") {
          outcomes[i] = "duplicate";
          duplicates(1);
          if (verdict === "duplicate-of-waiting") {
            pending++;
            log.barrier(waiter);
          }
          draft = new Draft(publishes, i + 1);
          continue;
        }
      }
      draft.add(clientId, identity);
    }
    close(count);
    done();
  });
}

/** What will be one entry: some that follow one another in the columns. */
class Draft {
  readonly from: number;
  readonly #publishes: PublishColumns;
  readonly #dataFrom: number;
  readonly #clientIds: string[] = [];
  readonly #identities: string[] = [];
  #producerBytes = 0;

  constructor(publishes: PublishColumns, from: number) {
    this.from = from;
    this.#publishes = publishes;
    this.#dataFrom = from === 0 ? 0 : publishes.ends[from - 1]!;
  }

  hasRoomFor(clientId: string, dataEnd: number): boolean {
    return (
      this.#producerBytes + publishBytes(clientId) <= MAX_PUBLISHES_BYTES &&
      dataEnd - this.#dataFrom <= MAX_ENTRY_DATA_BYTES
    );
  }

  /** @param identity undefined: it never comes again */
  add(clientId: string, identity: string | undefined): void {
    if (identity === undefined) return;
    this.#clientIds.push(clientId);
    this.#identities.push(identity);
    this.#producerBytes += publishBytes(clientId);
  }

  producer() {
    return this.#clientIds.length === 0 ? undefined : publishesOf(this.#clientIds, this.#identities);
  }

  /** Those before `end`. */
  columns(end: number): PutColumns {
    const { partitionKeys, data, ends } = this.#publishes;
    const { from } = this;
    const dataFrom = this.#dataFrom;
    const part = ends.slice(from, end);
    if (dataFrom > 0) for (let i = 0; i < part.length; i++) part[i]! -= dataFrom;
    return {
      count: end - from,
      keys: from === 0 && end === partitionKeys.length ? partitionKeys : partitionKeys.slice(from, end),
      hashes: undefined,
      data: data.subarray(dataFrom, end === 0 ? 0 : ends[end - 1]!),
      ends: part,
    };
  }
}
