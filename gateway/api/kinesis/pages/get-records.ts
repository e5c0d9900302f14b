/** GetRecords: what stands in a shard from an iterator on, and the iterator for what comes next. */
import { setImmediate as nextTurn } from "node:timers/promises";
import { Turnstile } from "../../../../runtime/turnstile.ts";
import {
  type ReadResult,
  type ShardDescription,
  ShardNotFoundError,
  StreamNotFoundError,
  type StreamSettings,
} from "../../../streams/streams.ts";
import { memoryForAnswer } from "../../answers/answer-memory.ts";
import { type AnswerRoom, isLarge } from "../../answers/unread-answers.ts";
import { AwsError } from "../../aws-error.ts";
import { BusyError } from "../../bodies/body-budget.ts";
import { shardIdOf, streamArnField } from "../account.ts";
import { childShardsOf } from "../child-shards.ts";
import { dryRunField, endDryRun } from "../dry-run.ts";
import { type KinesisContext, nowMs, type PageOperation } from "../operation.ts";
import { checkShape, type Shape } from "../shape.ts";
import { type IteratorPlace, openIterator, sealIterator } from "../shard-iterator.ts";
import type { Codec } from "../wire/codec.ts";
import { expectedBytes } from "./expected-page.ts";
import { isForThread } from "./page-thread.ts";
import { type PageLimits, RecordPage } from "./record-page.ts";

const MAX_RECORDS = 10_000;
const MAX_ANSWER_BYTES = 10 * 1_048_576;
/** What is read from the log at once, and what a record is guessed to take of it before any was seen. */
const MIN_READ_BYTES = 65_536;
const MAX_READ_BYTES = 4 * 1_048_576;
const GUESSED_RECORD_BYTES = 256;
/** Heads and a key, beside the data. */
const GUESSED_FRAME_BYTES = 64;
/**
 * A page that takes longer is given as far as it came. Where shards share a log, and the records of one lie far
 * apart in it, its client would otherwise give up each time and ask for the same again.
 */
const MAX_PAGE_MS = 1_000;
/**
 * Pages that are read and written at once, over all connections: each may hold 10 MiB of the log and an
 * answer a third larger. What is written and not taken is counted by itself (unread-answers.ts).
 */
const places = new Turnstile(16);
/**
 * Small pages do not wait for a place behind large ones, for which their clients would give up waiting. What is small is
 * guessed: a page that is not, ends early.
 */
const sidePlaces = new Turnstile(16);
/** Also of who has closed its side, as those do that gave up waiting: many of them must not keep others waiting for pages that nobody takes. */
const MAX_SIDE_BYTES = 1_048_576;
/**
 * Larger pages are written one in each turn of the event loop. What they are made of may all be in memory; then one would follow
 * the other, for as long as somebody asks, and whatever else has come would wait.
 */
const QUICK_PAGE_BYTES = 1_048_576;
const ownTurn = new Turnstile(1);
/** An answer has no more unless its keys are long. While there is room for it, nobody asks how large one will be. */
const FULL_PAGE_BYTES = 16 * 1_048_576;

const shape = {
  DryRun: dryRunField,
  Limit: { type: "integer", min: 1, max: MAX_RECORDS },
  ShardIterator: { type: "string", required: true, minLength: 1, maxLength: 512 },
  StreamARN: streamArnField,
} as const satisfies Shape;

/** What one answer takes from the log. */
interface Gathered {
  readonly page: RecordPage;
  /** MillisBehindLatest: 0 at the tip, otherwise the age of what is next. */
  readonly behindMs: number;
  /** True when the page reaches the end of a closed shard. */
  readonly ended: boolean;
  /** What the page is made of: to be released when it is written. */
  readonly reads: readonly ReadResult[];
}

export const getRecords: PageOperation = {
  page: async (context, body, codec, room) => {
    const input = checkShape(codec.decode(body), shape);
    const place = openIterator(context, input.ShardIterator);
    const { StreamARN } = input;
    if (StreamARN !== undefined) context.account.streamNameOf({ StreamName: place.stream, StreamARN });
    const { settings, shard: asked } = findShard(context, place);
    endDryRun(input.DryRun);
    const read = () => readInPlace(context, place, input.Limit ?? MAX_RECORDS, codec, room);
    if (settings.limits !== "aws") return read();
    const { rates } = context;
    const exceeded = () =>
      new AwsError(
        "ProvisionedThroughputExceededException",
        `Rate exceeded for shard ${asked.shardId} in stream ${settings.name} under account ${context.account.accountId}.`,
      );
    if (!rates.admitRead(settings.streamId, asked.index)) throw exceeded();
    return rates.readInTurn(settings.streamId, asked.index, (hasBytes) => {
      if (hasBytes) return read();
      throw exceeded();
    });
  },
};

async function readInPlace(
  context: KinesisContext,
  place: IteratorPlace,
  limit: number,
  codec: Codec,
  room: AnswerRoom,
): Promise<string | Buffer> {
  const read = (dataBytes: number) => () =>
    readPage(context, place, { records: limit, dataBytes }, codec, room);
  if (places.isFull(1)) {
    const { shard } = findShard(context, place);
    const isSmall = !isLarge(
      expectedBytes(shard, place.offset, { records: limit, dataBytes: MAX_ANSWER_BYTES }),
    );
    if (isSmall) return sidePlaces.run(1, read(MAX_SIDE_BYTES));
  }
  return places.run(1, read(MAX_ANSWER_BYTES));
}

async function readPage(
  context: KinesisContext,
  place: IteratorPlace,
  most: PageLimits,
  codec: Codec,
  room: AnswerRoom,
): Promise<string | Buffer> {
  // It may have waited: its client may have given up, and another stream may have the name by now.
  room.checkWanted();
  const { settings, shard } = findShard(context, place);
  const limits = room.asker.hasSaidAll
    ? { ...most, dataBytes: Math.min(most.dataBytes, MAX_SIDE_BYTES) }
    : most;
  if (!room.fits(FULL_PAGE_BYTES)) room.reserve(expectedBytes(shard, place.offset, limits));
  const { page, behindMs, members, reads } = await gatherPage(context, place, shard, limits);
  try {
    if (!room.fits(page.answerBytes)) throw new BusyError();
    // Returned without waiting, it would be released before it is written.
    const answer = await writePage(context, page, codec, members, room);
    context.reads.page(settings.name, page.count, page.dataBytes, behindMs);
    if (settings.limits === "aws") context.rates.countRead(settings.streamId, shard.index, page.dataBytes);
    return answer;
  } finally {
    for (const read of reads) read.release?.();
  }
}

async function writePage(
  context: KinesisContext,
  page: RecordPage,
  codec: Codec,
  members: object,
  room: AnswerRoom,
): Promise<Buffer> {
  // Not while it waits for its turn: pages that wait for one another would leave no room.
  const reserve = (): void => room.reserve(page.answerBytes);
  const writing = isForThread(page.count) ? context.pageThread.write(page.job(codec, members)) : undefined;
  if (writing !== undefined) {
    reserve();
    const written = await writing;
    if (written !== undefined) return written;
  }
  const write = (): Buffer => {
    room.checkWanted();
    reserve();
    return page.encode(codec, members, memoryForAnswer);
  };
  return page.answerBytes <= QUICK_PAGE_BYTES ? write() : ownTurn.run(1, () => nextTurn().then(write));
}

/** A page, and what stands beside its records. */
async function gatherPage(
  context: KinesisContext,
  place: IteratorPlace,
  shard: ShardDescription,
  limits: PageLimits,
): Promise<Omit<Gathered, "ended"> & { readonly members: object }> {
  try {
    const { page, behindMs, ended, reads } = await gather(context, place, shard, limits);
    // As in AWS the end is told by itself: some clients drop the records of an answer without an iterator.
    const isEnd = ended && page.count === 0;
    const rest = isEnd
      ? { ChildShards: childShardsOf(context.streams, place.stream, shard.shardId) }
      : { NextShardIterator: sealIterator(context, { ...place, offset: page.next }) };
    return { page, behindMs, reads, members: { ...rest, MillisBehindLatest: behindMs } };
  } catch (error) {
    if (error instanceof StreamNotFoundError || error instanceof ShardNotFoundError) {
      throw context.account.shardNotFound(place.stream, shard.shardId);
    }
    throw error;
  }
}

function findShard(
  context: KinesisContext,
  { stream, streamId, shardIndex }: IteratorPlace,
): { readonly settings: StreamSettings; readonly shard: ShardDescription } {
  try {
    const settings = context.streams.settings(stream);
    // An iterator of a deleted stream says nothing about a new stream of that name.
    if (settings.streamId === streamId) return { settings, shard: context.streams.shard(stream, shardIndex) };
  } catch (error) {
    if (!(error instanceof StreamNotFoundError || error instanceof ShardNotFoundError)) throw error;
  }
  throw context.account.shardNotFound(stream, shardIdOf(shardIndex));
}

async function gather(
  context: KinesisContext,
  place: IteratorPlace,
  shard: ShardDescription,
  limits: PageLimits,
): Promise<Gathered> {
  const { stream, offset } = place;
  const page = new RecordPage(shard, offset, limits);
  const untilMs = context.clock.monotonicMs() + MAX_PAGE_MS;
  const reads: ReadResult[] = [];
  for (;;) {
    const from = page.next;
    // During the read before, another stream may have got the name.
    findShard(context, place);
    const read = await context.streams.read(stream, shard.shardId, from, readBytes(page, limits));
    reads.push(read);
    for (const part of read.parts) {
      if (page.add(part)) continue;
      return { page, behindMs: Math.max(1, nowMs(context.clock) - part.arrivalMs), ended: false, reads };
    }
    page.skipTo(read.next);
    // Only a read that finds nothing tells the tip: what waits behind a record may be no millisecond older.
    if (read.ended) return { page, behindMs: 0, ended: true, reads };
    const behindMs = Math.round(read.behindMs);
    if (page.next === from) return { page, behindMs: Math.max(0, behindMs), ended: false, reads };
    const isFull = page.count >= limits.records || context.clock.monotonicMs() > untilMs;
    if (isFull && page.next < shard.latest) {
      return { page, behindMs: Math.max(1, behindMs), ended: false, reads };
    }
  }
}

/** What the rest of a page will take, as far as its beginning tells. */
function readBytes(page: RecordPage, limits: PageLimits): number {
  const { count, dataBytes } = page;
  const each = count === 0 ? GUESSED_RECORD_BYTES : dataBytes / count + GUESSED_FRAME_BYTES;
  const wanted = Math.max(MIN_READ_BYTES, Math.ceil((limits.records - count) * each));
  return Math.min(wanted, MAX_READ_BYTES, Math.max(1, limits.dataBytes - dataBytes));
}
