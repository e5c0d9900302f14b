/** CreateStream, DeleteStream, and the operations that describe streams and their shards. */
import {
  type ShardDescription,
  type StreamDescription,
  StreamExistsError,
  StreamNotFoundError,
} from "../../streams/streams.ts";
import { AwsError, invalidArgument } from "../aws-error.ts";
import { shardIdField, streamArnField, streamNameField } from "./account.ts";
import { type KinesisContext, nowMs, type Operation } from "./operation.ts";
import { TOKEN_LIFE_MS } from "./sealed-token.ts";
import { checkShape, type Shape } from "./shape.ts";
import { startingSequenceNumber } from "./shard-iterator.ts";

/** What gateway.yaml admits as well. */
const MAX_SHARDS = 4_096;
/** Kinesis keeps records for a day unless told otherwise. */
const DEFAULT_RETENTION_HOURS = 24;

const modeDetails = {
  type: "structure",
  members: { StreamMode: { type: "string", required: true, oneOf: ["PROVISIONED", "ON_DEMAND"] } },
} as const;

const createShape = {
  ShardCount: { type: "integer", min: 1 },
  StreamModeDetails: modeDetails,
  StreamName: { ...streamNameField, required: true },
} as const satisfies Shape;

/** The stream is ACTIVE by the time that this is answered. */
export const createStream: Operation = async (context, body) => {
  const { StreamName: name, ShardCount: shards, StreamModeDetails: mode } = checkShape(body, createShape);
  if (mode?.StreamMode === "ON_DEMAND") {
    throw new AwsError(
      "ValidationException",
      "StreamMode ON_DEMAND is not offered by this gateway: give a ShardCount.",
    );
  }
  if (shards === undefined) {
    throw new AwsError(
      "ValidationException",
      "1 validation error detected: Value null at 'shardCount' failed to satisfy constraint: Member must not be null",
    );
  }
  if (shards > MAX_SHARDS) {
    throw new AwsError(
      "LimitExceededException",
      `This request would exceed the shard limit of ${MAX_SHARDS} of a stream; it asked for ${shards}.`,
    );
  }
  try {
    await context.streams.createStream({ name, shards, retentionHours: DEFAULT_RETENTION_HOURS });
  } catch (error) {
    if (!(error instanceof StreamExistsError)) throw error;
    throw new AwsError(
      "ResourceInUseException",
      `Stream ${name} under account ${context.account.accountId} already exists.`,
    );
  }
  return undefined;
};

const deleteShape = {
  EnforceConsumerDeletion: { type: "boolean" },
  StreamARN: streamArnField,
  StreamName: streamNameField,
} as const satisfies Shape;

/** Its data is gone by the time that this is answered. */
export const deleteStream: Operation = async (context, body) => {
  const name = context.account.streamNameOf(checkShape(body, deleteShape));
  try {
    await context.streams.deleteStream(name);
  } catch (error) {
    throw error instanceof StreamNotFoundError ? context.account.streamNotFound(name) : error;
  }
  return undefined;
};

const describeShape = {
  ExclusiveStartShardId: shardIdField,
  Limit: { type: "integer", min: 1, max: 10_000 },
  StreamARN: streamArnField,
  StreamName: streamNameField,
} as const satisfies Shape;

export const describeStream: Operation = async (context, body) => {
  const input = checkShape(body, describeShape);
  const stream = context.account.describe(context.account.streamNameOf(input));
  const after = shardsAfter(stream.shardList, input.ExclusiveStartShardId);
  const page = after.slice(0, input.Limit ?? 100);
  return {
    StreamDescription: {
      ...commonDescription(context, stream),
      HasMoreShards: page.length < after.length,
      Shards: page.map(shardOf),
    },
  };
};

const summaryShape = {
  StreamARN: streamArnField,
  StreamName: streamNameField,
} as const satisfies Shape;

export const describeStreamSummary: Operation = async (context, body) => {
  const input = checkShape(body, summaryShape);
  const stream = context.account.describe(context.account.streamNameOf(input));
  return {
    StreamDescriptionSummary: {
      ...commonDescription(context, stream),
      // Counts the registered consumers of enhanced fan-out, which there are none of yet.
      ConsumerCount: 0,
      OpenShardCount: stream.shardList.length,
    },
  };
};

function commonDescription(context: KinesisContext, stream: StreamDescription): object {
  return {
    EncryptionType: "NONE",
    EnhancedMonitoring: [{ ShardLevelMetrics: [] }],
    RetentionPeriodHours: stream.retentionHours,
    StreamARN: context.account.arnOf(stream.name),
    StreamCreationTimestamp: stream.createdMs / 1000,
    StreamModeDetails: { StreamMode: "PROVISIONED" },
    StreamName: stream.name,
    StreamStatus: "ACTIVE",
  };
}

function shardOf(shard: ShardDescription): object {
  return {
    HashKeyRange: { EndingHashKey: shard.hashTo.toString(), StartingHashKey: shard.hashFrom.toString() },
    SequenceNumberRange: { StartingSequenceNumber: startingSequenceNumber(shard) },
    ShardId: shard.shardId,
  };
}

function shardsAfter(shards: readonly ShardDescription[], shardId: string | undefined): ShardDescription[] {
  return shards.filter((shard) => shardId === undefined || shard.shardId > shardId);
}

const listStreamsShape = {
  ExclusiveStartStreamName: streamNameField,
  Limit: { type: "integer", min: 1, max: 10_000 },
  NextToken: { type: "string", minLength: 1, maxLength: 1_048_576 },
} as const satisfies Shape;

export const listStreams: Operation = async (context, body) => {
  const input = checkShape(body, listStreamsShape);
  const start =
    input.NextToken === undefined
      ? input.ExclusiveStartStreamName
      : openNextToken<[string]>(context, "streams", input.NextToken)[0];
  const after = context.streams.listStreams().filter((name) => start === undefined || name > start);
  const page = after.slice(0, input.Limit ?? 100);
  const more = page.length < after.length;
  return {
    HasMoreStreams: more,
    StreamNames: page,
    StreamSummaries: page.map((name) => ({
      StreamARN: context.account.arnOf(name),
      StreamCreationTimestamp: context.account.describe(name).createdMs / 1000,
      StreamModeDetails: { StreamMode: "PROVISIONED" },
      StreamName: name,
      StreamStatus: "ACTIVE",
    })),
    ...(more && { NextToken: sealNextToken(context, "streams", [page.at(-1)!]) }),
  };
};

const listShardsShape = {
  ExclusiveStartShardId: shardIdField,
  MaxResults: { type: "integer", min: 1, max: 10_000 },
  NextToken: { type: "string", minLength: 1, maxLength: 1_048_576 },
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

export const listShards: Operation = async (context, body) => {
  const input = checkShape(body, listShardsShape);
  let name: string;
  let start = input.ExclusiveStartShardId;
  let streamId: string | undefined;
  if (input.NextToken !== undefined) {
    if (input.StreamName !== undefined || input.StreamARN !== undefined) {
      throw invalidArgument("NextToken and StreamName cannot be provided together.");
    }
    [name, start, streamId] = openNextToken<[string, string, string]>(context, "shards", input.NextToken);
  } else {
    if (input.StreamName === undefined && input.StreamARN === undefined) {
      throw invalidArgument("Either NextToken or StreamName should be provided.");
    }
    name = context.account.streamNameOf(input);
  }
  const stream = context.account.describe(name);
  if (streamId !== undefined && streamId !== stream.streamId) throw context.account.streamNotFound(name);
  const filter = input.ShardFilter;
  if (filter?.Type === "AFTER_SHARD_ID") {
    if (filter.ShardId === undefined)
      throw invalidArgument("ShardId must be given when the filter's Type is AFTER_SHARD_ID.");
    if (start === undefined || filter.ShardId > start) start = filter.ShardId;
  }
  if (filter?.Type.endsWith("_TIMESTAMP") && filter.Timestamp === undefined) {
    throw invalidArgument(`Timestamp must be given when the filter's Type is ${filter.Type}.`);
  }
  // No shard is ever closed, so every other filter admits all of them.
  const after = shardsAfter(stream.shardList, start);
  const page = after.slice(0, input.MaxResults ?? 1_000);
  const more = page.length < after.length;
  return {
    Shards: page.map(shardOf),
    ...(more && {
      NextToken: sealNextToken(context, "shards", [name, page.at(-1)!.shardId, stream.streamId]),
    }),
  };
};

type ListKind = "streams" | "shards";

function sealNextToken(context: KinesisContext, kind: ListKind, content: readonly string[]): string {
  return context.nextTokens.seal([kind, ...content], nowMs(context.clock));
}

function openNextToken<T extends string[]>(context: KinesisContext, kind: ListKind, text: string): T {
  const token = context.nextTokens.open(text);
  const [sealedKind, ...content] = (token?.content ?? []) as string[];
  if (token === undefined || sealedKind !== kind) throw invalidArgument("NextToken is invalid.");
  if (nowMs(context.clock) - token.issuedMs > TOKEN_LIFE_MS) {
    throw new AwsError("ExpiredNextTokenException", "NextToken has expired: it lives for 300 seconds.");
  }
  return content as T;
}
