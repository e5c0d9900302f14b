/**
 * How a statement finds its way back: from its checkpoint, the consumer's, and what the stream still holds
 * to a session, which is all that lives as long as one consumer. After any failure it is built anew.
 */
import type { StatementConfig } from "../../config/gateway-config.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Log } from "../../runtime/log.ts";
import {
  type Consumer,
  lookForUnread,
  recordsBetween,
  ShardNews,
  type Streams,
  type UnreadShards,
} from "../streams/streams.ts";
import { AnalyticsStateError, type Checkpoint, type Totals } from "./checkpoint.ts";
import type { CheckpointPlace } from "./checkpoint-place.ts";
import type { Partials } from "./engines/duckdb-partials.ts";
import { type Comparison, compare, InputPositions, type Range, readBefore } from "./input-positions.ts";
import { newSink, type SinkState } from "./results.ts";
import type { Plan } from "./sql/plan.ts";
import { Watermark } from "./watermark.ts";
import { WindowState } from "./window-state.ts";

const READ_BYTES = 1_048_576;

export interface SessionParts {
  readonly config: StatementConfig;
  readonly plan: Plan;
  /** The checkpoint has to be of this plan. */
  readonly planHash: string;
  readonly streams: Streams;
  readonly clock: Clock;
  readonly log: Log;
  readonly maxGroups: number;
}

export interface Session {
  readonly consumer: Consumer;
  readonly place: CheckpointPlace;
  readonly state: WindowState;
  /** As the checkpoint has them: what the start found missing comes on top. */
  readonly restored: Totals;
  readonly streamId: string;
  readonly input: InputPositions;
  readonly news: ShardNews;
  readonly epoch: bigint;
  nextSequence: bigint;
  pending: Buffer[];
  checkpointMs: number;
  moved: boolean;
  unread: UnreadShards | undefined;
}

/**
 * @param place where its checkpoint is kept @param former what this gateway wrote last, for a stream that was made anew
 * @returns a session whose first commit finishes the one that a crash may have interrupted
 */
export async function resumeSession(
  parts: SessionParts,
  place: CheckpointPlace,
  former: Checkpoint | undefined,
  consumer: Consumer,
  partials: Partials,
  stop: AbortSignal,
): Promise<Session> {
  const { config, plan, planHash, streams, clock, log, maxGroups } = parts;
  const kept = await place.read();
  const description = streams.describe(plan.inputStream);
  const { streamId, shardList } = description;
  // What was kept beside the consumer went with the stream; what is known of it still counts.
  const stored = kept?.checkpoint ?? (former?.streamId === streamId ? undefined : former);
  if (stored === undefined && readBefore(consumer.positions(), shardList)) {
    throw new AnalyticsStateError(config.name, `${place.name} is missing, though the input is read half-way`);
  }
  if (stored !== undefined && stored.planHash !== planHash) {
    throw new AnalyticsStateError(
      config.name,
      "its SQL means something else than when its windows were opened",
    );
  }
  const nowMs = clock.monotonicMs();
  const watermark = new Watermark(plan.watermarkDelayMs, config.idleSeconds * 1_000);
  const state = new WindowState(plan, partials, watermark, maxGroups);
  let positions = consumer.positions();
  let sink: SinkState = newSink();
  if (stored !== undefined) {
    Object.assign(state.totals, stored.totals);
    sink = { epoch: stored.epoch, nextSequence: stored.nextSequence, pending: [...stored.pending] };
  }
  const restored = { ...state.totals };
  if (stored?.streamId === streamId && kept?.isWithPositions === true) {
    watermark.restore(stored.watermarkMs, stored.maxTimes, stored.arrivals, nowMs);
    await state.panes.restore(stored.groups);
  } else if (stored?.streamId === streamId) {
    const found = compare(stored.positions, positions, shardList);
    positions = found.positions;
    // Of what is skipped nobody knows when it came.
    const arrivals = found.skipped > 0 ? new Map() : stored.arrivals;
    watermark.restore(stored.watermarkMs, stored.maxTimes, arrivals, nowMs);
    if (found.lost > 0) {
      log.error({ records: found.lost }, "the input's log ends before the checkpoint: records are lost");
    }
    if (found.skipped > 0) {
      await goOnBehind(parts, found, stored, state, stop);
      state.totals.skipped += found.skipped;
      // The log knows the old epoch's sequences: results under them would be taken for repeats.
      sink = newSink();
    } else await state.panes.restore(stored.groups);
  } else if (stored !== undefined) {
    log.error({ windows: stored.groups.length }, "the input stream was made anew; open windows are lost");
    // Another gateway may have gone on from here, and what it wrote went with the stream. The log knows its sequences.
    sink = { ...newSink(), pending: sink.pending };
  }
  const reached = stored?.streamId === streamId ? stored.positions : new Map();
  const { missed, unread } = lookForUnread(
    stored?.unread,
    description,
    consumer,
    reached,
    (shardId, from, to) => recordsBetween(streams, plan.inputStream, shardId, from, to),
  );
  if (missed > 0) {
    state.totals.trimmed += missed;
    log.error({ records: missed }, "retention removed shards before they were read");
  }
  watermark.follow(consumer.shards, shardList, nowMs);
  const input = new InputPositions(positions, shardList);
  const news = new ShardNews(streams, plan.inputStream, clock);
  for (const shardId of input.open.keys()) news.add(shardId);
  return {
    consumer,
    place,
    state,
    restored,
    streamId,
    input,
    news,
    ...sink,
    checkpointMs: nowMs,
    moved: false,
    unread,
  };
}

/**
 * Before anything is appended: the checkpoint is ahead of the consumer's for a moment of each commit, and
 * were the input's log to lose its end in it, new records would be taken for those that the windows hold.
 */
export async function leaveOutWhatWasRead(parts: SessionParts, place: CheckpointPlace): Promise<void> {
  const { config, plan, streams } = parts;
  const stored = (await place.read())?.checkpoint;
  if (stored === undefined || streams.settings(plan.inputStream).streamId !== stored.streamId) return;
  streams.leaveOut(plan.inputStream, `analytics/${config.name}`, stored.positions);
}

/**
 * The windows that the old file holds were closed since, or lack what is skipped: either way their
 * results would be wrong, so they are dropped. Nor may one that was closed since be opened again by a late
 * record: what was closed ended before the newest event time that was read, less the delay.
 */
async function goOnBehind(
  parts: SessionParts,
  { skipped, ranges }: Comparison,
  stored: Checkpoint,
  state: WindowState,
  stop: AbortSignal,
): Promise<void> {
  const { log, plan } = parts;
  log.error(
    { records: skipped, windows: stored.groups.length },
    "the checkpoint is older than what was read, as if put back from a backup; reading goes on where it had got to, without the windows that were open",
  );
  let newestMs = Math.max(Number.NEGATIVE_INFINITY, ...stored.maxTimes.values());
  for (const range of ranges) newestMs = Math.max(newestMs, await newestIn(parts, range, state, stop));
  if (newestMs > Number.NEGATIVE_INFINITY) state.watermark.atLeast(newestMs - plan.watermarkDelayMs);
}

async function newestIn(
  { streams, plan }: SessionParts,
  range: Range,
  state: WindowState,
  stop: AbortSignal,
): Promise<number> {
  let newestMs = Number.NEGATIVE_INFINITY;
  for (let at = range.from; at < range.to; ) {
    // Half of them would let a window be opened again, and the next start would not look once more.
    stop.throwIfAborted();
    const read = await streams.read(plan.inputStream, range.shardId, at, READ_BYTES);
    newestMs = Math.max(newestMs, (await state.newestMs(read.parts, range)) ?? newestMs);
    read.release?.();
    if (read.next === at) break;
    at = read.next;
  }
  return newestMs;
}
