/**
 * SplitShard, MergeShards and UpdateShardCount. The shards are changed by the time that this is
 * answered, so a stream never shows itself as UPDATING.
 */
import {
  BadReshardError,
  MAX_SHARDS,
  type ShardDescription,
  ShardNotFoundError,
  type Streams,
} from "../../../streams/streams.ts";
import { AwsError, invalidArgument, notFound } from "../../aws-error.ts";
import { namedStreamField, shardIdField, streamArnField } from "../account.ts";
import type { KinesisContext, Operation } from "../operation.ts";
import { checkShape, type Shape } from "../shape.ts";
import { stepsToUniform } from "./uniform-shards.ts";

const splitShape = {
  NewStartingHashKey: { type: "string", required: true, pattern: "0|([1-9]\\d{0,38})" },
  StreamARN: streamArnField,
  StreamName: namedStreamField,
  ShardToSplit: { ...shardIdField, required: true },
} as const satisfies Shape;

export const splitShard: Operation = async (context, body) => {
  const input = checkShape(body, splitShape);
  const stream = context.account.streamNameOf(input);
  await inTurn(context, stream, async () => {
    const shard = openShardOf(context, stream, input.ShardToSplit);
    const at = BigInt(input.NewStartingHashKey);
    if (at <= shard.hashFrom + 1n || at >= shard.hashTo) {
      throw invalidArgument(
        `NewStartingHashKey ${input.NewStartingHashKey} used in SplitShard() on shard ${shard.shardId} in stream ${stream} under account ${context.account.accountId} is not both greater than one plus the shard's StartingHashKey ${shard.hashFrom} and less than the shard's EndingHashKey ${shard.hashTo}.`,
      );
    }
    const open = context.account.settings(stream).shards;
    if (open >= MAX_SHARDS) {
      throw new AwsError(
        "LimitExceededException",
        `This request would exceed the shard limit of ${MAX_SHARDS} of stream ${stream}. Current shard count: ${open}. Number of additional shards that would have resulted from this request: 1.`,
      );
    }
    await change(context, stream, (streams) => streams.splitShard(stream, shard.shardId, at));
  });
  return undefined;
};

const mergeShape = {
  ShardToMerge: { ...shardIdField, required: true },
  AdjacentShardToMerge: { ...shardIdField, required: true },
  StreamARN: streamArnField,
  StreamName: namedStreamField,
} as const satisfies Shape;

/** As in AWS, ShardToMerge is the one with the smaller hashes. */
export const mergeShards: Operation = async (context, body) => {
  const input = checkShape(body, mergeShape);
  const stream = context.account.streamNameOf(input);
  await inTurn(context, stream, async () => {
    const shard = openShardOf(context, stream, input.ShardToMerge);
    const adjacent = openShardOf(context, stream, input.AdjacentShardToMerge);
    if (shard.hashTo + 1n !== adjacent.hashFrom) {
      throw invalidArgument(
        `Shards ${shard.shardId} and ${adjacent.shardId} in stream ${stream} under account ${context.account.accountId} are not an adjacent pair of shards eligible for merging`,
      );
    }
    await change(context, stream, (streams) => streams.mergeShards(stream, shard.shardId, adjacent.shardId));
  });
  return undefined;
};

const countShape = {
  ScalingType: { type: "string", required: true, oneOf: ["UNIFORM_SCALING"] },
  StreamARN: streamArnField,
  StreamName: namedStreamField,
  TargetShardCount: { type: "integer", required: true, min: 1 },
} as const satisfies Shape;

export const updateShardCount: Operation = async (context, body) => {
  const input = checkShape(body, countShape);
  const stream = context.account.streamNameOf(input);
  const target = input.TargetShardCount;
  const before = await inTurn(context, stream, async () => {
    const count = context.account.settings(stream).shards;
    const counts = `Current open shard count: ${count}, Target shard count: ${target}`;
    const refuse = (why: string): never => {
      throw new AwsError("LimitExceededException", `${why} ${counts}`);
    };
    if (target > MAX_SHARDS) {
      refuse(`Target shard count or number of open shards cannot be greater than ${MAX_SHARDS}.`);
    }
    if (target > count * 2) {
      refuse("UpdateShardCount cannot scale up over double your current open shard count.");
    }
    if (target < count / 2) {
      refuse("UpdateShardCount cannot scale down below half your current open shard count.");
    }
    for (;;) {
      const steps = stepsToUniform(borders(context, stream), target);
      if (steps.length === 0) return count;
      // At once: thousands of changes, each with all shards in it or looked at, take minutes. The next look finds them done.
      await change(context, stream, (streams) => streams.reshard(stream, steps));
    }
  });
  return {
    CurrentShardCount: before,
    StreamARN: context.account.arnOf(stream),
    StreamName: stream,
    TargetShardCount: target,
  };
};

/** One change of a stream's shards at a time; those of an on-demand stream are not for the caller to change. */
function inTurn<T>(context: KinesisContext, stream: string, work: () => Promise<T>): Promise<T> {
  // No stream is called so: other operations on it need not wait.
  return context.turns.run(`shards of ${stream}`, async () => {
    if (context.account.settings(stream).mode === "on-demand") {
      throw new AwsError(
        "ValidationException",
        `Stream ${stream} under account ${context.account.accountId} is in ON_DEMAND mode: its shards are split and merged by the service. Change it to PROVISIONED by UpdateStreamMode first.`,
      );
    }
    return await work();
  });
}

/** Where the open shards begin, rising. */
function borders(context: KinesisContext, stream: string): bigint[] {
  const { shardList } = context.account.describe(stream);
  const open = shardList.filter(({ closedMs }) => closedMs === undefined);
  return open.map(({ hashFrom }) => hashFrom).sort((a, b) => (a < b ? -1 : 1));
}

/** @throws AwsError ResourceNotFoundException, or InvalidArgumentException for a closed one */
function openShardOf(context: KinesisContext, stream: string, shardName: string): ShardDescription {
  const { account } = context;
  const index = account.shardIndexOf(stream, shardName);
  const shard = account.describe(stream).shardList.find((candidate) => candidate.index === index);
  if (shard === undefined) throw account.shardNotInStream(stream, index);
  if (shard.closedMs !== undefined) {
    throw invalidArgument(
      `Shard ${shard.shardId} in stream ${stream} under account ${account.accountId} has already been merged or split, and thus is not eligible for merging or splitting.`,
    );
  }
  return shard;
}

async function change(
  { account, streams }: KinesisContext,
  stream: string,
  work: (streams: Streams) => Promise<void>,
): Promise<void> {
  try {
    await account.found(stream, work(streams));
  } catch (error) {
    // Somebody else, such as the configuration, changed the shards meanwhile.
    if (error instanceof BadReshardError) throw new AwsError("ResourceInUseException", error.message);
    if (error instanceof ShardNotFoundError) throw notFound(`${error.message}.`);
    throw error;
  }
}
