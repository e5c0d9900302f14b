/** GetRecords: what stands in a shard from an iterator on, and the iterator for what comes next. */
import { forEachRecord } from "../../../protocol/record-batch.ts";
import {
  formatSequenceNumber,
  type LogPart,
  type Offset,
  type ShardDescription,
  ShardNotFoundError,
  type StreamDescription,
  StreamNotFoundError,
} from "../../streams/streams.ts";
import { AwsError } from "../aws-error.ts";
import { shardIdOf, streamArnField } from "./account.ts";
import { Timestamp } from "./codec.ts";
import { type KinesisContext, nowMs, type RawOperation } from "./operation.ts";
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

/** The records of one answer, as they travel. */
interface Gathered {
  readonly form: "json" | "cbor";
  /** Texts of JSON, or what becomes CBOR. */
  readonly records: unknown[];
  dataBytes: number;
  next: Offset;
  /** True when the answer has no room for the next record. */
  full: boolean;
  /** True when `next` is the end of a closed shard. */
  ended: boolean;
}

export const getRecords: RawOperation = {
  raw: async (context, body, codec) => {
    const input = checkShape(codec.decode(body), shape);
    const place = openIterator(context, input.ShardIterator);
    const { stream, shard } = findShard(context, place.stream, place.streamId, place.shardIndex);
    const isLimited = stream.limits === "aws";
    if (isLimited && !context.rates.admitRead(stream.streamId, shard.index)) {
      throw new AwsError(
        "ProvisionedThroughputExceededException",
        `Rate exceeded for shard ${shard.shardId} in stream ${stream.name} under account ${context.account.accountId}.`,
      );
    }
    const gathered: Gathered = {
      form: codec.name,
      records: [],
      dataBytes: 0,
      next: place.offset,
      full: false,
      ended: false,
    };
    let behindMs: number;
    let rest: object;
    try {
      behindMs = await gather(context, place.stream, shard, input.Limit ?? MAX_RECORDS, gathered);
      rest = gathered.ended
        ? { ChildShards: childShardsOf(context.streams.describe(place.stream), shard) }
        : { NextShardIterator: sealIterator(context, { ...place, offset: gathered.next }) };
    } catch (error) {
      if (error instanceof StreamNotFoundError || error instanceof ShardNotFoundError) {
        throw context.account.shardNotFound(place.stream, shard.shardId);
      }
      throw error;
    }
    if (isLimited) context.rates.countRead(stream.streamId, shard.index, gathered.dataBytes);
    const tail = { ...rest, MillisBehindLatest: behindMs };
    if (codec.name === "cbor") return codec.encode({ ...tail, Records: gathered.records });
    return Buffer.from(`${JSON.stringify(tail).slice(0, -1)},"Records":[${gathered.records.join(",")}]}`);
  },
};

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
  stream: string,
  streamId: string,
  index: number,
): { readonly stream: StreamDescription; readonly shard: ShardDescription } {
  const shardId = shardIdOf(index);
  try {
    const description = context.streams.describe(stream);
    const shard = description.shardList.find((candidate) => candidate.index === index);
    // An iterator of a deleted stream says nothing about a new stream of that name.
    if (shard !== undefined && description.streamId === streamId) {
      return { stream: description, shard };
    }
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
    gathered.ended = read.ended;
    if (read.ended) return 0;
    if (gathered.next === from) return Math.max(0, Math.round(read.behindMs));
    if (gathered.records.length >= limit && !isAtTip(context, stream, shard, gathered.next)) {
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
      const fits = gathered.dataBytes + payload.length <= MAX_ANSWER_BYTES || gathered.records.length === 0;
      if (gathered.records.length >= limit || !fits) {
        gathered.full = true;
        return;
      }
      const sequenceNumber = formatSequenceNumber({
        shardCreatedMs,
        shardIndex,
        offset: at,
        arrivalMs: part.arrivalMs,
      });
      gathered.records.push(
        gathered.form === "json"
          ? `{"ApproximateArrivalTimestamp":${arrival},"Data":"${payload.toString("base64")}","PartitionKey":${key},"SequenceNumber":"${sequenceNumber}"}`
          : {
              ApproximateArrivalTimestamp: new Timestamp(part.arrivalMs),
              Data: payload,
              PartitionKey: run.key,
              SequenceNumber: sequenceNumber,
            },
      );
      gathered.dataBytes += payload.length;
      gathered.next = at + 1;
    });
  }
}
