/**
 * The streams that the config names: made when they are missing, changed where the config says
 * something else than what is there. Only what is written in the config counts: what it leaves out
 * may have been set by the API, and stays. Shards are never split or merged from here.
 */
import type { GatewayConfig, StreamConfig } from "../config/gateway-config.ts";
import { GAPS_STREAM } from "../protocol/topics.ts";
import type { Log } from "../runtime/log.ts";
import {
  type StreamChange,
  type StreamDescription,
  StreamExistsError,
  type StreamSpec,
  type Streams,
} from "./streams/streams.ts";

const DEFAULT_RETENTION_HOURS = 24;
/** As AWS begins. */
const ON_DEMAND_SHARDS = 4;
const GAPS_RETENTION_HOURS = 168;

/** Resolves when all of them are there, as the config says. */
export async function prepareStreams(
  streams: Streams,
  configured: readonly StreamConfig[],
  log: Log,
): Promise<void> {
  const there = new Set(streams.listStreams());
  for (const entry of configured) {
    if (there.has(entry.name) || !(await make(streams, specOf(entry)))) await adjust(streams, entry, log);
    there.add(entry.name);
  }
  if (!there.has(GAPS_STREAM)) {
    await make(streams, { name: GAPS_STREAM, shards: 1, retentionHours: GAPS_RETENTION_HOURS });
  }
}

/**
 * Where the config names a stream that is not among these, by path: perhaps misspelt. No mistake, as it may still be made by API.
 * @param sqlStreams of each statement, in the config's order: what it reads and what it writes
 */
export function missingStreams(
  { rules, delivery }: Pick<GatewayConfig, "rules" | "delivery">,
  sqlStreams: readonly (readonly string[])[],
  there: readonly string[],
): { path: string; stream: string }[] {
  const known = new Set([...there, GAPS_STREAM]);
  return [
    ...rules.map(({ stream }, i) => ({ path: `rules[${i}].stream`, stream })),
    ...delivery.map(({ stream }, i) => ({ path: `delivery[${i}].stream`, stream })),
    ...sqlStreams.flatMap((names, i) => names.map((stream) => ({ path: `analytics[${i}].sql`, stream }))),
  ].filter(({ stream }) => !known.has(stream));
}

/** False when another gateway of the same store has just made it. */
async function make(streams: Streams, spec: StreamSpec): Promise<boolean> {
  try {
    await streams.createStream(spec);
    return true;
  } catch (error) {
    if (error instanceof StreamExistsError) return false;
    throw error;
  }
}

function specOf(entry: StreamConfig): StreamSpec {
  return {
    name: entry.name,
    shards: entry.onDemand ? ON_DEMAND_SHARDS : (entry.shards ?? 1),
    retentionHours: entry.retentionHours ?? DEFAULT_RETENTION_HOURS,
    mode: entry.onDemand ? "on-demand" : "provisioned",
    ...(entry.limits !== undefined && { limits: entry.limits }),
    ...(entry.maxRecordKiB !== undefined && { maxRecordBytes: entry.maxRecordKiB * 1_024 }),
  };
}

async function adjust(streams: Streams, entry: StreamConfig, log: Log): Promise<void> {
  const stream = streams.describe(entry.name);
  const change = changeOf(stream, entry);
  const changed = Object.keys(change) as (keyof StreamChange)[];
  if (changed.length > 0) {
    const before = Object.fromEntries(changed.map((key) => [key, stream[key]]));
    await streams.updateStream(entry.name, change);
    log.info({ stream: entry.name, before, now: change }, "the config changes a stream");
  }
  const openShards = stream.shardList.filter((shard) => shard.closedMs === undefined).length;
  if (entry.shards !== undefined && entry.shards !== openShards) {
    log.warn(
      { stream: entry.name, openShards, configured: entry.shards },
      "the stream has other shards than the config says; it is not resharded (UpdateShardCount does that)",
    );
  }
}

/** What the config asks for and is otherwise; empty when nothing is. */
function changeOf(stream: StreamDescription, entry: StreamConfig): StreamChange {
  const mode = entry.onDemand ? "on-demand" : entry.shards === undefined ? undefined : "provisioned";
  const maxRecordBytes = entry.maxRecordKiB === undefined ? undefined : entry.maxRecordKiB * 1_024;
  const { retentionHours, limits } = entry;
  return {
    ...(differs(retentionHours, stream.retentionHours) && { retentionHours }),
    ...(differs(mode, stream.mode) && { mode }),
    ...(differs(limits, stream.limits) && { limits }),
    ...(differs(maxRecordBytes, stream.maxRecordBytes) && { maxRecordBytes }),
  };
}

function differs<T>(wanted: T | undefined, is: T): wanted is T {
  return wanted !== undefined && wanted !== is;
}
