/**
 * Splits and merges: each is a message with all shards after it, which expects the map that it follows. Where another gateway's
 * comes between, what was asked is judged anew against that.
 */
import { randomBytes } from "node:crypto";
import { pause } from "../../../../../runtime/backoff.ts";
import type { Link } from "../cluster/link.ts";
import { isOf } from "../cluster/message-ids.ts";
import { ID_HEADER } from "../cluster/stored-message.ts";
import type { MapContent } from "./shard-history.ts";
import type { StreamTail } from "./stream-tail.ts";

export interface MapPlace {
  readonly link: Link;
  readonly tail: StreamTail;
  /** Of the JetStream stream, its subject, and the subject on which gateways tell its growth. */
  readonly stream: string;
  readonly subject: string;
  readonly tellSubject: string;
}

/** Resolves when the change holds here. @param change from the shards as they are to those that shall be; what it throws ends it */
export async function storeMap(place: MapPlace, change: () => MapContent): Promise<void> {
  const { link, tail, stream, subject, tellSubject } = place;
  const ids: string[] = [];
  /** Behind it one of these may stand that got no answer. */
  let unanswered: number | undefined;
  for (;;) {
    await tail.poll();
    await tail.reach((await link.state(stream)).lastSequence);
    // Others' maps may have come behind it, by which what was asked would be refused.
    if (unanswered !== undefined && (await hasOpened(tail, ids, unanswered))) return;
    const payload = Buffer.from(JSON.stringify(change()));
    const id = `map-${randomBytes(9).toString("base64url")}`;
    ids.push(id);
    const expected = tail.history.lastMapAt;
    const outcome = await link.publish(
      stream,
      `${subject}.map`,
      payload,
      {},
      expected,
      id,
      () => tail.closed,
    );
    if (outcome.stored) {
      link.tell(tellSubject, `${outcome.sequence} ${outcome.id}`);
      await tail.reach(outcome.sequence);
      // Of two maps stored at the same moment the first holds; this one is tried again on it.
      if (tail.history.shards.some(({ openedAt }) => openedAt === outcome.sequence)) return;
      continue;
    }
    if (outcome.uncertain) unanswered ??= expected;
    const last = await link.leaderGet(stream, { last_by_subj: `${subject}.map` });
    // Retention took the last map; what it said is kept in the list of streams.
    if (last === undefined && tail.firstSequence > expected) tail.history.mapSeen(0);
    if (last !== undefined) await tail.reachLast("map", last.sequence);
    await pause(10, link.signal);
  }
}

/** Whether a message of one of these publishes opened shards, at a place behind this one. @param ids the first of each */
async function hasOpened(tail: StreamTail, ids: readonly string[], behind: number): Promise<boolean> {
  for (const at of new Set(tail.history.shards.map(({ openedAt }) => openedAt))) {
    if (at <= behind) continue;
    const stored = (await tail.fetch(at))?.header(ID_HEADER) ?? "";
    if (ids.some((id) => isOf(id, stored))) return true;
  }
  return false;
}
