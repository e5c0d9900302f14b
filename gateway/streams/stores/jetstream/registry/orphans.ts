/**
 * What stands on the cluster and belongs to no stream. A stream is named before anything of it is made, so what has no name when it
 * is asked for later is nobody's. What holds records is left where it is all the same: the names may be what was lost.
 */
import type { Log } from "../../../../../runtime/log.ts";
import { StreamNotFoundError } from "../../../streams.ts";
import type { Documents } from "../cluster/documents.ts";
import type { Link } from "../cluster/link.ts";
import type { StreamList } from "./stream-list.ts";

export interface OrphansOptions {
  readonly link: Link;
  readonly documents: Documents;
  readonly prefix: string;
  readonly log: Log;
  readonly list: StreamList;
}

/** Removes empty JetStream streams and consumers' documents that have no name. */
export async function removeOrphans(options: OrphansOptions): Promise<void> {
  const { link, documents, prefix, list } = options;
  const made = (await link.streams.names(`${prefix}-`)).map((name) => name.slice(prefix.length + 1));
  const ids = made.filter((id) => /^[0-9a-f]{32}$/.test(id));
  const consumed = (await documents.keys("c")).map((key) => key.split(".")[0]!);
  await list.refresh();
  const known = list.ids;
  if ([...ids, ...consumed].every((id) => known.has(id))) return;
  const named = await list.confirmedIds();
  for (const id of ids) if (!named.has(id) && (await holdsRecords(options, id))) named.add(id);
  for (const id of new Set(consumed)) if (!named.has(id)) await documents.drop(`c.${id}`);
}

/** Of a JetStream stream of no name: it is removed when it is empty. */
async function holdsRecords({ link, prefix, log }: OrphansOptions, id: string): Promise<boolean> {
  const stream = `${prefix}-${id}`;
  const state = await link.state(stream).catch((error: unknown) => {
    // Another gateway that starts at the same moment was quicker.
    if (error instanceof StreamNotFoundError) return undefined;
    throw error;
  });
  if (state === undefined) return false;
  if (state.bytes > 0) {
    log.error({ stream }, "a JetStream stream with records belongs to no stream; remove it by hand");
    return true;
  }
  log.warn({ stream }, "an empty JetStream stream that belongs to no stream is removed");
  await link.streams.remove(stream);
  return false;
}
