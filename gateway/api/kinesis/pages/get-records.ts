/** GetRecords: what stands in a shard from an iterator on, and the iterator for what comes next. */
import { Turnstile } from "../../../../runtime/turnstile.ts";
import {
  type ReadResult,
  type ShardDescription,
  ShardNotFoundError,
  type StreamDescription,
  StreamNotFoundError,
  type StreamSettings,
} from "../../../streams/streams.ts";
import { answerMemory } from "../../answer-memory.ts";
import { AwsError } from "../../aws-error.ts";
import { isLarge } from "../../unread-answers.ts";
import { shardIdOf, streamArnField } from "../account.ts";
import { dryRunField, endDryRun } from "../dry-run.ts";
import { type KinesisContext, nowMs, type RawOperation } from "../operation.ts";
import { checkShape, type Shape } from "../shape.ts";
import { type IteratorPlace, openIterator, sealIterator } from "../shard-iterator.ts";
import type { Codec } from "../wire/codec.ts";
import { isForThread } from "./page-thread.ts";
import { RecordPage } from "./record-page.ts";

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

export const getRecords: RawOperation = {
  raw: async (context, body, codec) => {
    const input = checkShape(codec.decode(body), shape);
    const place = openIterator(context, input.ShardIterator);
    const { StreamARN } = input;
    if (StreamARN !== undefined) context.account.streamNameOf({ StreamName: place.stream, StreamARN });
    const { settings, shard: asked } = findShard(context, place);
    endDryRun(input.DryRun);
    const read = () => places.run(1, () => readPage(context, place, input.Limit ?? MAX_RECORDS, codec));
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

async function readPage(
  context: KinesisContext,
  place: IteratorPlace,
  limit: number,
  codec: Codec,
): Promise<string | Buffer> {
  // It may have waited, and another stream may have the name by now.
  const { settings, shard } = findShard(context, place);
  const { page, behindMs, members, reads } = await gatherPage(context, place, shard, limit);
  context.reads.page(settings.name, page.count, page.dataBytes, behindMs);
  if (settings.limits === "aws") context.rates.countRead(settings.streamId, shard.index, page.dataBytes);
  const written = isForThread(page.count) && (await context.pageThread.write(page.job(codec, members)));
  const answer = written || page.encode(codec, members, memoryFor);
  for (const read of reads) read.release?.();
  return answer;
}

/** Lanes give back what was large, and only that. */
function memoryFor(bytes: number): Buffer {
  return isLarge(bytes) ? answerMemory.take(bytes) : Buffer.allocUnsafe(bytes);
}

/** A page, and what stands beside its records. */
async function gatherPage(
  context: KinesisContext,
  place: IteratorPlace,
  shard: ShardDescription,
  limit: number,
): Promise<Omit<Gathered, "ended"> & { readonly members: object }> {
  try {
    const { page, behindMs, ended, reads } = await gather(context, place, shard, limit);
    // As in AWS the end is told by itself: some clients drop the records of an answer without an iterator.
    const isEnd = ended && page.count === 0;
    const rest = isEnd
      ? { ChildShards: childShardsOf(context.streams.describe(place.stream), shard) }
      : { NextShardIterator: sealIterator(context, { ...place, offset: page.next }) };
    return { page, behindMs, reads, members: { ...rest, MillisBehindLatest: behindMs } };
  } catch (error) {
    if (error instanceof StreamNotFoundError || error instanceof ShardNotFoundError) {
      throw context.account.shardNotFound(place.stream, shard.shardId);
    }
    throw error;
  }
}

/** What a closed shard was split or merged into. */
function childShardsOf(stream: StreamDescription, parent: ShardDescription): object[] {
  return stream.shardList
    .filter((shard) => shard.parents.includes(parent.shardId))
    .map((shard) => ({
      HashKeyRange: { EndingHashKey: String(shard.hashTo), StartingHashKey: String(shard.hashFrom) },
      ParentShards: shard.parents,
      ShardId: shard.shardId,
    }));
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
  limit: number,
): Promise<Gathered> {
  const { stream, offset } = place;
  const page = new RecordPage(shard, offset, { records: limit, dataBytes: MAX_ANSWER_BYTES });
  const untilMs = context.clock.monotonicMs() + MAX_PAGE_MS;
  const reads: ReadResult[] = [];
  for (;;) {
    const from = page.next;
    // During the read before, another stream may have got the name.
    findShard(context, place);
    const read = await context.streams.read(stream, shard.shardId, from, readBytes(page, limit));
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
    const isFull = page.count >= limit || context.clock.monotonicMs() > untilMs;
    if (isFull && page.next < shard.latest) {
      return { page, behindMs: Math.max(1, behindMs), ended: false, reads };
    }
  }
}

/** What the rest of a page will take, as far as its beginning tells. */
function readBytes(page: RecordPage, limit: number): number {
  const { count, dataBytes } = page;
  const each = count === 0 ? GUESSED_RECORD_BYTES : dataBytes / count + GUESSED_FRAME_BYTES;
  const wanted = Math.max(MIN_READ_BYTES, Math.ceil((limit - count) * each));
  return Math.min(wanted, MAX_READ_BYTES, Math.max(1, MAX_ANSWER_BYTES - dataBytes));
}
