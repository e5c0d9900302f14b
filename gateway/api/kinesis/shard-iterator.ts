/** Shard iterators: what they hold, and GetShardIterator, which gives the first. */
import {
  BadSequenceNumberError,
  formatSequenceNumber,
  type Offset,
  parseSequenceNumber,
  type SequenceParts,
  type ShardDescription,
  ShardNotFoundError,
  StreamNotFoundError,
} from "../../streams/streams.ts";
import { AwsError, invalidArgument } from "../aws-error.ts";
import { namedStreamField, shardIdField, shardIdOf, streamArnField } from "./account.ts";
import { dryRunField, endDryRun } from "./dry-run.ts";
import { type KinesisContext, nowMs, type Operation } from "./operation.ts";
import { TOKEN_LIFE_MS } from "./sealed-token.ts";
import { checkShape, type Input, type Shape } from "./shape.ts";

/** Gateways before one cluster hear of one another's records within a second. */
const HEARD_WITHIN_MS = 1_500;
/** Also where their clocks differ. */
const YOUNG_MS = 10_000;

/** A position in a shard, and the stream that it was given for. */
export interface IteratorPlace {
  readonly stream: string;
  /** Tells a stream from a later one of the same name. */
  readonly streamId: string;
  readonly shardIndex: number;
  readonly offset: Offset;
}

export function sealIterator(context: KinesisContext, place: IteratorPlace): string {
  const content = [place.stream, place.streamId, place.shardIndex, place.offset];
  return context.iterators.seal(content, nowMs(context.clock));
}

/** @throws AwsError InvalidArgumentException, ExpiredIteratorException */
export function openIterator(context: KinesisContext, iterator: string): IteratorPlace {
  const token = context.iterators.open(iterator);
  if (token === undefined) throw invalidArgument("Invalid ShardIterator.");
  const now = nowMs(context.clock);
  if (now - token.issuedMs > TOKEN_LIFE_MS) {
    throw new AwsError(
      "ExpiredIteratorException",
      `Iterator expired. The iterator was created at time ${amzUtc(token.issuedMs)} while right now it is ${amzUtc(now)} which is further in the future than the tolerated delay of ${TOKEN_LIFE_MS} milliseconds.`,
    );
  }
  // What opened was sealed by us, so its form needs no check.
  const [stream, streamId, shardIndex, offset] = token.content as [string, string, number, number];
  return { stream, streamId, shardIndex, offset };
}

const shape = {
  DryRun: dryRunField,
  ShardId: { ...shardIdField, required: true },
  ShardIteratorType: {
    type: "string",
    required: true,
    oneOf: ["AFTER_SEQUENCE_NUMBER", "LATEST", "AT_TIMESTAMP", "AT_SEQUENCE_NUMBER", "TRIM_HORIZON"],
  },
  StartingSequenceNumber: { type: "string", pattern: "0|([1-9]\\d{0,128})" },
  StreamARN: streamArnField,
  StreamName: namedStreamField,
  Timestamp: { type: "timestamp" },
} as const satisfies Shape;

export const getShardIterator: Operation = async (context, body) => {
  const input = checkShape(body, shape);
  const stream = context.account.streamNameOf(input);
  const shardIndex = context.account.shardIndexOf(stream, input.ShardId);
  try {
    const { streamId, limits } = context.streams.settings(stream);
    const shard = context.streams.shard(stream, shardIndex);
    const offset = await startOf(context, stream, shard, input);
    endDryRun(input.DryRun);
    if (limits === "aws" && !context.rates.admitIterator(streamId, shardIndex)) {
      throw new AwsError(
        "ProvisionedThroughputExceededException",
        `Rate exceeded for shard ${shard.shardId} in stream ${stream} under account ${context.account.accountId}.`,
      );
    }
    return { ShardIterator: sealIterator(context, { stream, streamId, shardIndex, offset }) };
  } catch (error) {
    // It may also have been deleted since it was found.
    if (error instanceof StreamNotFoundError || error instanceof ShardNotFoundError) {
      throw context.account.shardNotFound(stream, shardIdOf(shardIndex));
    }
    throw error;
  }
};

/** Where to begin, as GetShardIterator and SubscribeToShard are told it. */
export type StartInput = Pick<
  Input<typeof shape>,
  "ShardIteratorType" | "StartingSequenceNumber" | "Timestamp"
>;

/** @throws AwsError InvalidArgumentException; StreamNotFoundError, ShardNotFoundError */
export function startOf(
  context: KinesisContext,
  stream: string,
  shard: ShardDescription,
  input: StartInput,
): Promise<Offset> {
  const { ShardIteratorType: type, StartingSequenceNumber: number, Timestamp: seconds } = input;
  const bySequence = type === "AT_SEQUENCE_NUMBER" || type === "AFTER_SEQUENCE_NUMBER";
  if (bySequence !== (number !== undefined)) {
    throw invalidArgument(
      `Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified ${type} and ${number === undefined ? "no" : "also a"} StartingSequenceNumber.`,
    );
  }
  if ((type === "AT_TIMESTAMP") !== (seconds !== undefined)) {
    throw invalidArgument(
      type === "AT_TIMESTAMP"
        ? "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp parameter."
        : `Timestamp can be specified only with AT_TIMESTAMP, not with ${type}.`,
    );
  }
  const shardId = shard.shardId;
  if (number !== undefined) return offsetOf(context, stream, shard, number, type === "AFTER_SEQUENCE_NUMBER");
  if (seconds !== undefined) {
    const arrivalMs = Math.ceil(seconds * 1000);
    // A client may go on from the time of the last record that it had, also after the clock was set back.
    if (arrivalMs > nowMs(context.clock) && arrivalMs > context.streams.lastArrivalMs(stream)) {
      throw invalidArgument(
        `The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: ${arrivalMs}, currentTimestampInMillis: ${nowMs(context.clock)}`,
      );
    }
    return context.streams.position(stream, shardId, { at: "time", arrivalMs: Math.max(0, arrivalMs) });
  }
  return context.streams.position(stream, shardId, {
    at: type === "TRIM_HORIZON" ? "trim-horizon" : "latest",
  });
}

/** The number of a shard's own beginning: smaller than that of any record in it. */
export function startingSequenceNumber(shard: ShardDescription): string {
  return formatSequenceNumber({
    shardCreatedMs: shard.createdMs,
    shardIndex: shard.index,
    offset: 0,
    arrivalMs: 0,
  });
}

async function offsetOf(
  context: KinesisContext,
  stream: string,
  shard: ShardDescription,
  number: string,
  after: boolean,
): Promise<Offset> {
  const used = `StartingSequenceNumber ${number} used in GetShardIterator on shard ${shard.shardId} in stream ${stream} under account ${context.account.accountId} is invalid`;
  let parts: ReturnType<typeof parseSequenceNumber>;
  try {
    parts = parseSequenceNumber(number);
  } catch (error) {
    throw error instanceof BadSequenceNumberError ? invalidArgument(`${used}.`) : error;
  }
  if (parts.shardIndex !== shard.index) {
    throw invalidArgument(
      `Invalid StartingSequenceNumber. It encodes ${shardIdOf(parts.shardIndex)}, while it was used in a call to a shard with ${shard.shardId}`,
    );
  }
  const created = Math.floor(shard.createdMs / 1000) * 1000;
  const isStart = parts.offset === 0 && parts.arrivalMs === 0;
  const known =
    isStart || parts.shardCreatedMs !== created ? shard : await heardOf(context, stream, shard, parts);
  // A closed shard's EndingSequenceNumber stands where the next record would.
  const isEnd = known.closedMs !== undefined && parts.offset === passedBy(known);
  if (parts.shardCreatedMs !== created || (!isStart && !isEnd && parts.offset >= passedBy(known))) {
    throw invalidArgument(`${used} because it did not come from this stream.`);
  }
  // The shard's beginning stands before its first record, so "after" it is that record.
  const offset = after && !isStart && !isEnd ? parts.offset + 1 : parts.offset;
  return context.streams.position(stream, shard.shardId, { at: "offset", offset });
}

/**
 * The shard as it is when its record at `offset` is known here. Another gateway before the same cluster
 * may have given its number out, and a client that changes to this one may be quicker than the record;
 * but nobody waits for one that arrived long ago, or for long.
 */
async function heardOf(
  context: KinesisContext,
  stream: string,
  shard: ShardDescription,
  { offset, arrivalMs }: SequenceParts,
): Promise<ShardDescription> {
  if (offset < passedBy(shard) || shard.closedMs !== undefined) return shard;
  if (arrivalMs < nowMs(context.clock) - YOUNG_MS) return shard;
  await context.streams.appended(stream, shard.shardId, offset, AbortSignal.timeout(HEARD_WITHIN_MS));
  return context.streams.shard(stream, shard.index);
}

/** Numbers before it were given out, by this gateway or another: to a record, or to say how far a reader had come. */
function passedBy({ latest, passed = latest }: ShardDescription): Offset {
  return passed;
}

/** Thu Jan 22 01:22:02 UTC 2015 */
function amzUtc(ms: number): string {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return `${ms} ms`;
  const [day, dayOfMonth, month, year, time] = date.toUTCString().replace(",", "").split(" ");
  return `${day} ${month} ${dayOfMonth} ${time} UTC ${year}`;
}
