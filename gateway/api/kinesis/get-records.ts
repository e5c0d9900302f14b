/** GetRecords: what stands in a shard from an iterator on, and the iterator for what comes next. */
import { forEachRecord } from "../../../protocol/record-batch.ts";
import {
  formatSequenceNumber,
  type LogPart,
  type Offset,
  type ShardDescription,
  ShardNotFoundError,
  StreamNotFoundError,
} from "../../streams/streams.ts";
import { shardIdOf, streamArnField } from "./account.ts";
import { type KinesisContext, nowMs, type Operation } from "./operation.ts";
import { checkShape, type Shape } from "./shape.ts";
import { openIterator, sealIterator } from "./shard-iterator.ts";

const MAX_RECORDS = 10_000;
const MAX_ANSWER_BYTES = 10 * 1_048_576;
/** What is read from the log at once. */
const READ_BYTES = 1_048_576;

const shape = {
  Limit: { type: "integer", min: 1, max: MAX_RECORDS },
  ShardIterator: { type: "string", required: true, minLength: 1, maxLength: 512 },
  StreamARN: streamArnField,
} as const satisfies Shape;

/** The records of one answer, as the JSON they travel in. */
interface Gathered {
  readonly json: string[];
  dataBytes: number;
  next: Offset;
  /** Undefined while nothing was read. */
  lastArrivalMs: number | undefined;
  /** True when the answer has no room for the next record. */
  full: boolean;
}

export const getRecords: Operation = async (context, body) => {
  const input = checkShape(body, shape);
  const place = openIterator(context, input.ShardIterator);
  const shardId = shardIdOf(place.shardIndex);
  const shard = findShard(context, place.stream, place.streamId, place.shardIndex);
  const gathered: Gathered = {
    json: [],
    dataBytes: 0,
    next: place.offset,
    lastArrivalMs: undefined,
    full: false,
  };
  let behindMs: number;
  try {
    behindMs = await gather(context, place.stream, shard, input.Limit ?? MAX_RECORDS, gathered);
  } catch (error) {
    if (error instanceof StreamNotFoundError || error instanceof ShardNotFoundError) {
      throw context.account.shardNotFound(place.stream, shardId);
    }
    throw error;
  }
  const next = sealIterator(context, { ...place, offset: gathered.next });
  return Buffer.from(
    `{"MillisBehindLatest":${behindMs},"NextShardIterator":"${next}","Records":[${gathered.json.join(",")}]}`,
  );
};

function findShard(
  context: KinesisContext,
  stream: string,
  streamId: string,
  index: number,
): ShardDescription {
  const shardId = shardIdOf(index);
  try {
    const description = context.streams.describe(stream);
    const shard = description.shardList.find((candidate) => candidate.index === index);
    // An iterator of a deleted stream says nothing about a new stream of that name.
    if (shard !== undefined && description.streamId === streamId) return shard;
  } catch (error) {
    if (!(error instanceof StreamNotFoundError)) throw error;
  }
  throw context.account.shardNotFound(stream, shardId);
}

/** @returns MillisBehindLatest: 0 at the tip, otherwise the age of what is next */
async function gather(
  context: KinesisContext,
  stream: string,
  shard: ShardDescription,
  limit: number,
  gathered: Gathered,
): Promise<number> {
  for (;;) {
    const from = gathered.next;
    const left = Math.max(1, MAX_ANSWER_BYTES - gathered.dataBytes);
    const read = await context.streams.read(stream, shard.shardId, from, Math.min(left, READ_BYTES));
    for (const part of read.parts) {
      takePart(part, shard, limit, gathered);
      if (gathered.full) return Math.max(1, nowMs(context.clock) - part.arrivalMs);
    }
    // Retention may have moved the position on without a record to show for it.
    gathered.next = Math.max(from, read.next);
    // Only a read that finds nothing tells the tip: what waits behind a record may be no millisecond older.
    if (gathered.next === from) return Math.max(0, Math.round(read.behindMs));
    if (gathered.json.length >= limit && !isAtTip(context, stream, shard, gathered.next)) {
      return Math.max(1, Math.round(read.behindMs));
    }
  }
}

function isAtTip(context: KinesisContext, stream: string, shard: ShardDescription, next: Offset): boolean {
  const now = context.streams.describe(stream).shardList.find(({ index }) => index === shard.index);
  return now === undefined || next >= now.latest;
}

function takePart(part: LogPart, shard: ShardDescription, limit: number, gathered: Gathered): void {
  let offset = part.first;
  const { createdMs: shardCreatedMs, index: shardIndex } = shard;
  const arrival = part.arrivalMs / 1000;
  for (const run of part.runs) {
    if (gathered.full) return;
    const runEnd = offset + run.count;
    if (runEnd <= gathered.next) {
      offset = runEnd;
      continue;
    }
    const key = JSON.stringify(run.key);
    forEachRecord(run, (payload) => {
      const at = offset++;
      if (gathered.full || at < gathered.next) return;
      const fits = gathered.dataBytes + payload.length <= MAX_ANSWER_BYTES || gathered.json.length === 0;
      if (gathered.json.length >= limit || !fits) {
        gathered.full = true;
        return;
      }
      const sequenceNumber = formatSequenceNumber({
        shardCreatedMs,
        shardIndex,
        offset: at,
        arrivalMs: part.arrivalMs,
      });
      gathered.json.push(
        `{"ApproximateArrivalTimestamp":${arrival},"Data":"${payload.toString("base64")}","PartitionKey":${key},"SequenceNumber":"${sequenceNumber}"}`,
      );
      gathered.dataBytes += payload.length;
      gathered.next = at + 1;
    });
  }
}
