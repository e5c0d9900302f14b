/** CreateStream, DeleteStream, and the operations that describe and list streams. */
import { GAPS_STREAM } from "../../../../protocol/topics.ts";
import {
  MAX_SHARDS,
  type ReadersCheck,
  StreamExistsError,
  StreamLimitError,
  type StreamSettings,
} from "../../../streams/streams.ts";
import { AwsError } from "../../aws-error.ts";
import { namedStreamField, shardIdField, streamArnField, streamNameField } from "../account.ts";
import type { KinesisContext, Operation } from "../operation.ts";
import { checkShape, type Shape } from "../shape.ts";
import { Timestamp } from "../wire/codec.ts";
import { shardOf, shardsAfter } from "./list-shards.ts";
import { nextTokenField, openNextToken, sealNextToken } from "./next-token.ts";
import { maxRecordSizeField, refuseWarmThroughput, streamModeField } from "./stream-settings.ts";
import { newTags, tagsField } from "./tags.ts";

/** Kinesis keeps records for a day unless told otherwise. */
const DEFAULT_RETENTION_HOURS = 24;

/** Of shards in DescribeStream, of names in ListStreams. */
const PAGE = 100;
/** As AWS gives an on-demand stream that nothing is known of yet. */
const ON_DEMAND_SHARDS = 4;

const createShape = {
  MaxRecordSizeInKiB: maxRecordSizeField,
  RecordDistributionStrategy: { type: "string", oneOf: ["AUTO", "USER_PARTITION_KEY"] },
  ShardCount: { type: "integer", min: 1 },
  StreamModeDetails: streamModeField,
  StreamName: { ...streamNameField, required: true },
  Tags: tagsField,
  WarmThroughputMiBps: { type: "integer", min: 0 },
} as const satisfies Shape;

/** The stream is ACTIVE by the time that this is answered. */
export const createStream: Operation = async (context, body) => {
  const input = checkShape(body, createShape);
  const { StreamName: name, MaxRecordSizeInKiB: maxKiB } = input;
  refuseWarmThroughput(input.WarmThroughputMiBps);
  if (input.RecordDistributionStrategy === "AUTO") {
    throw invalid("RecordDistributionStrategy AUTO is not offered by this gateway: a key has one shard.");
  }
  // Who asks for no number of shards, and for no mode, gets AWS's own choice.
  const ownChoice = input.ShardCount === undefined ? "ON_DEMAND" : "PROVISIONED";
  const onDemand = (input.StreamModeDetails?.StreamMode ?? ownChoice) === "ON_DEMAND";
  const shards = shardCountOf(input.ShardCount, onDemand);
  const tags = newTags(input.Tags, `stream ${name} under account ${context.account.accountId}`);
  try {
    await context.streams.createStream({
      name,
      shards,
      retentionHours: DEFAULT_RETENTION_HOURS,
      mode: onDemand ? "on-demand" : "provisioned",
      tags,
      ...(maxKiB !== undefined && { maxRecordBytes: maxKiB * 1024 }),
    });
  } catch (error) {
    if (error instanceof StreamLimitError) {
      throw new AwsError("LimitExceededException", `${error.message}.`, 400, error);
    }
    if (!(error instanceof StreamExistsError)) throw error;
    throw new AwsError(
      "ResourceInUseException",
      `Stream ${name} under account ${context.account.accountId} already exists.`,
    );
  }
  return undefined;
};

function shardCountOf(given: number | undefined, onDemand: boolean): number {
  if (onDemand) {
    if (given !== undefined) throw invalid("ShardCount is not expected when StreamMode=ON_DEMAND");
    return ON_DEMAND_SHARDS;
  }
  if (given === undefined) {
    throw invalid(
      "1 validation error detected: Value null at 'shardCount' failed to satisfy constraint: Member must not be null",
    );
  }
  if (given > MAX_SHARDS) {
    throw new AwsError(
      "LimitExceededException",
      `This request would exceed the shard limit of ${MAX_SHARDS} of a stream; it asked for ${given}.`,
    );
  }
  return given;
}

function invalid(message: string): AwsError {
  return new AwsError("ValidationException", message);
}

const deleteShape = {
  EnforceConsumerDeletion: { type: "boolean" },
  StreamARN: streamArnField,
  StreamName: namedStreamField,
} as const satisfies Shape;

/** Its data is gone by the time that this is answered. */
export const deleteStream: Operation = async (context, body) => {
  const input = checkShape(body, deleteShape);
  const { account, streams } = context;
  const name = account.streamNameOf(input);
  await context.turns.run(name, async () => {
    account.settings(name);
    if (name === GAPS_STREAM) throw new AwsError("ResourceInUseException", neededHere(name, account));
    const check: ReadersCheck = ({ length }) => {
      if (length === 0 || input.EnforceConsumerDeletion === true) return;
      throw new AwsError(
        "ResourceInUseException",
        `Stream ${name} under account ${account.accountId} has ${length} registered consumers. Deregister them first, or set EnforceConsumerDeletion.`,
      );
    };
    await account.found(name, streams.deleteStream(name, check));
  });
  return undefined;
};

/** Agents report there what is missing; without it their reports would be quarantined until the next start. */
function neededHere(name: string, { accountId }: { readonly accountId: string }): string {
  return `Stream ${name} under account ${accountId} cannot be deleted: agents report in it what is missing. Its records go with its retention period.`;
}

const describeShape = {
  ExclusiveStartShardId: shardIdField,
  Limit: { type: "integer", min: 1, max: 10_000 },
  StreamARN: streamArnField,
  StreamName: namedStreamField,
} as const satisfies Shape;

export const describeStream: Operation = async (context, body) => {
  const input = checkShape(body, describeShape);
  const stream = context.account.describe(context.account.streamNameOf(input));
  const after = shardsAfter(context.account, stream, input.ExclusiveStartShardId);
  const page = after.slice(0, Math.min(input.Limit ?? PAGE, PAGE));
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
  StreamName: namedStreamField,
} as const satisfies Shape;

export const describeStreamSummary: Operation = async (context, body) => {
  const input = checkShape(body, summaryShape);
  const stream = context.account.settings(context.account.streamNameOf(input));
  return {
    StreamDescriptionSummary: {
      ...commonDescription(context, stream),
      ConsumerCount: context.streams.registeredReaders(stream.name).length,
      MaxRecordSizeInKiB: Math.floor(stream.maxRecordBytes / 1024),
      OpenShardCount: stream.shards,
      ...(stream.mode === "on-demand" && { RecordDistributionStrategy: "USER_PARTITION_KEY" }),
    },
  };
};

function commonDescription(context: KinesisContext, stream: StreamSettings): object {
  return {
    EncryptionType: "NONE",
    EnhancedMonitoring: [{ ShardLevelMetrics: [] }],
    RetentionPeriodHours: stream.retentionHours,
    StreamARN: context.account.arnOf(stream.name),
    StreamCreationTimestamp: new Timestamp(stream.createdMs),
    StreamModeDetails: modeOf(stream),
    StreamName: stream.name,
    StreamStatus: "ACTIVE",
  };
}

function modeOf(stream: StreamSettings): object {
  return { StreamMode: stream.mode === "on-demand" ? "ON_DEMAND" : "PROVISIONED" };
}

const listStreamsShape = {
  ExclusiveStartStreamName: streamNameField,
  Limit: { type: "integer", min: 1, max: 10_000 },
  NextToken: nextTokenField,
} as const satisfies Shape;

export const listStreams: Operation = async (context, body) => {
  const input = checkShape(body, listStreamsShape);
  const start =
    input.NextToken === undefined
      ? input.ExclusiveStartStreamName
      : openNextToken<[string]>(context, "streams", input.NextToken)[0];
  const after = context.account.allSettings().filter(({ name }) => start === undefined || name > start);
  const page = after.slice(0, Math.min(input.Limit ?? PAGE, PAGE));
  const more = page.length < after.length;
  return {
    HasMoreStreams: more,
    StreamNames: page.map(({ name }) => name),
    StreamSummaries: page.map((stream) => ({
      StreamARN: context.account.arnOf(stream.name),
      StreamCreationTimestamp: new Timestamp(stream.createdMs),
      StreamModeDetails: modeOf(stream),
      StreamName: stream.name,
      StreamStatus: "ACTIVE",
    })),
    ...(more && { NextToken: sealNextToken(context, "streams", [page.at(-1)!.name]) }),
  };
};
