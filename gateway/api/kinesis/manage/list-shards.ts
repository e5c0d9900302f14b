/** ListShards, and how shards, open and closed, are described. */
import {
  formatSequenceNumber,
  type ShardDescription,
  type StreamDescription,
} from "../../../streams/streams.ts";
import { invalidArgument } from "../../aws-error.ts";
import { type Account, shardIdField, shardIdOf, streamArnField, streamNameField } from "../account.ts";
import { nowMs, type Operation } from "../operation.ts";
import { checkShape, type Input, type Shape } from "../shape.ts";
import { startingSequenceNumber } from "../shard-iterator.ts";
import { nextTokenField, openNextToken, sealNextToken } from "./next-token.ts";

const PAGE = 1_000;
const HOUR_MS = 3_600_000;

export function shardOf(shard: ShardDescription): object {
  const [parent, adjacentParent] = shard.parents;
  return {
    ...(adjacentParent !== undefined && { AdjacentParentShardId: adjacentParent }),
    HashKeyRange: { EndingHashKey: shard.hashTo.toString(), StartingHashKey: shard.hashFrom.toString() },
    ...(parent !== undefined && { ParentShardId: parent }),
    SequenceNumberRange: {
      ...(shard.closedMs !== undefined && { EndingSequenceNumber: endingSequenceNumber(shard) }),
      StartingSequenceNumber: startingSequenceNumber(shard),
    },
    ShardId: shard.shardId,
  };
}

/** Greater than the number of any record in it. */
function endingSequenceNumber(shard: ShardDescription): string {
  return formatSequenceNumber({
    shardCreatedMs: shard.createdMs,
    shardIndex: shard.index,
    offset: shard.latest,
    arrivalMs: shard.closedMs ?? 0,
  });
}

/** @throws AwsError ResourceNotFoundException when `shardId` is none of any stream; it may be gone from this one */
export function shardsAfter(
  account: Account,
  stream: StreamDescription,
  shardId: string | undefined,
): ShardDescription[] {
  if (shardId === undefined) return [...stream.shardList];
  const index = account.shardIndexOf(stream.name, shardId);
  return stream.shardList.filter((shard) => shard.index > index);
}

const shape = {
  ExclusiveStartShardId: shardIdField,
  MaxResults: { type: "integer", min: 1, max: 10_000 },
  NextToken: nextTokenField,
  ShardFilter: {
    type: "structure",
    members: {
      ShardId: shardIdField,
      Timestamp: { type: "timestamp" },
      Type: {
        type: "string",
        required: true,
        oneOf: [
          "AFTER_SHARD_ID",
          "AT_TRIM_HORIZON",
          "FROM_TRIM_HORIZON",
          "AT_LATEST",
          "AT_TIMESTAMP",
          "FROM_TIMESTAMP",
        ],
      },
    },
  },
  StreamARN: streamArnField,
  StreamCreationTimestamp: { type: "timestamp" },
  StreamName: streamNameField,
} as const satisfies Shape;

type FilterType =
  | "AFTER_SHARD_ID"
  | "AT_TRIM_HORIZON"
  | "FROM_TRIM_HORIZON"
  | "AT_LATEST"
  | "AT_TIMESTAMP"
  | "FROM_TIMESTAMP";

/** What a list asks for; it goes on with its next tokens. */
interface ListPlace {
  readonly stream: string;
  readonly streamId: string | undefined;
  readonly after: string | undefined;
  readonly filter: FilterType | undefined;
  /** Of a filter by time. */
  readonly atMs: number;
}

export const listShards: Operation = async (context, body) => {
  const input = checkShape(body, shape);
  let place: ListPlace;
  if (input.NextToken !== undefined) {
    checkAlone(input);
    const [stream, after, streamId, filter, atMs] = openNextToken<
      [string, string, string, FilterType | null, number]
    >(context, "shards", input.NextToken);
    place = { stream, after, streamId, filter: filter ?? undefined, atMs };
  } else {
    if (input.StreamName === undefined && input.StreamARN === undefined) {
      throw invalidArgument("Either NextToken or StreamName should be provided.");
    }
    place = placeOf(context.account, input);
  }
  const stream = context.account.describe(place.stream, input.StreamCreationTimestamp);
  if (place.streamId !== undefined && place.streamId !== stream.streamId) {
    throw context.account.streamNotFound(place.stream);
  }
  const admits = filterOf(stream, place, nowMs(context.clock));
  const after = shardsAfter(context.account, stream, place.after).filter(admits);
  const page = after.slice(0, Math.min(input.MaxResults ?? PAGE, PAGE));
  const { filter, atMs } = place;
  return {
    Shards: page.map(shardOf),
    ...(page.length < after.length && {
      NextToken: sealNextToken(context, "shards", [
        place.stream,
        page.at(-1)!.shardId,
        stream.streamId,
        filter ?? null,
        atMs,
      ]),
    }),
  };
};

/** A next token holds all that its list was asked for. @throws AwsError InvalidArgumentException */
function checkAlone(input: Input<typeof shape>): void {
  const { StreamName, StreamARN, StreamCreationTimestamp, ShardFilter, ExclusiveStartShardId } = input;
  const others = { StreamName, StreamARN, StreamCreationTimestamp, ShardFilter, ExclusiveStartShardId };
  for (const [name, value] of Object.entries(others)) {
    if (value !== undefined) throw invalidArgument(`NextToken and ${name} cannot be provided together.`);
  }
}

function placeOf(account: Account, input: Input<typeof shape>): ListPlace {
  const stream = account.streamNameOf(input);
  const filter = input.ShardFilter;
  let after = input.ExclusiveStartShardId;
  if (filter?.Type === "AFTER_SHARD_ID") {
    if (filter.ShardId === undefined)
      throw invalidArgument("ShardId must be given when the filter's Type is AFTER_SHARD_ID.");
    const index = account.shardIndexOf(stream, filter.ShardId);
    if (after === undefined || index > account.shardIndexOf(stream, after)) after = shardIdOf(index);
  }
  if (filter?.Type.endsWith("_TIMESTAMP") && filter.Timestamp === undefined) {
    throw invalidArgument(`Timestamp must be given when the filter's Type is ${filter.Type}.`);
  }
  return {
    stream,
    streamId: undefined,
    after,
    filter: filter?.Type as FilterType | undefined,
    atMs: (filter?.Timestamp ?? 0) * 1000,
  };
}

/**
 * From when to when each shard takes what comes, Infinity while it is open; those whose parents are forgotten, and the first of a stream,
 * are as old as time itself. A shard takes over when its parents are closed, though by its sequence numbers it may be seconds younger; two
 * that were merged were closed at one moment, and none before it took over, whatever the clock or their last records say: so at
 * any moment each hash is one shard's.
 * @param shards parents before their children
 */
function timesOf(shards: readonly ShardDescription[]): Map<string, { fromMs: number; toMs: number }> {
  const times = new Map<string, { fromMs: number; toMs: number }>();
  for (const { shardId, parents, closedMs = Infinity } of shards) {
    const before = parents.flatMap((parent) => times.get(parent) ?? []);
    const fromMs = Math.max(...before.map(({ toMs }) => toMs));
    for (const parent of before) parent.toMs = fromMs;
    times.set(shardId, { fromMs, toMs: Math.max(fromMs, closedMs) });
  }
  return times;
}

/** Which shards a filter admits. A time before the trim horizon stands for the trim horizon. */
function filterOf(
  stream: StreamDescription,
  place: ListPlace,
  now: number,
): (shard: ShardDescription) => boolean {
  const horizonMs = now - stream.retentionHours * HOUR_MS;
  const atMs = place.filter?.endsWith("_TIMESTAMP") ? Math.max(place.atMs, horizonMs) : horizonMs;
  const times = timesOf(stream.shardList);
  const isOpenAfter = ({ shardId }: ShardDescription): boolean => times.get(shardId)!.toMs >= atMs;
  // At the very millisecond of a change it is still the parents, so that no hash is listed twice: KCL takes such a list
  // for an incomplete one.
  const isThere = ({ shardId }: ShardDescription): boolean => times.get(shardId)!.fromMs < atMs;
  switch (place.filter) {
    case "AT_LATEST":
      return (shard) => shard.closedMs === undefined;
    case "AT_TRIM_HORIZON":
    case "AT_TIMESTAMP":
      return (shard) => isThere(shard) && isOpenAfter(shard);
    case "FROM_TIMESTAMP":
      return isOpenAfter;
    default:
      return () => true;
  }
}
