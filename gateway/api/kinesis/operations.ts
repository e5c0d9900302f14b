/**
 * The handler table of Kinesis Data Streams: what answers each operation and a line on it for the
 * reference; and those that are refused by name, with the reason, so that nobody looks for a typing
 * error. docs/reference/kinesis-api.md is made of it.
 */
import { AwsError } from "../aws-error.ts";
import { describeAccountSettings, describeLimits, updateAccountSettings } from "./manage/account-settings.ts";
import { listShards } from "./manage/list-shards.ts";
import {
  createStream,
  deleteStream,
  describeStream,
  describeStreamSummary,
  listStreams,
} from "./manage/manage-streams.ts";
import { mergeShards, splitShard, updateShardCount } from "./manage/reshard.ts";
import {
  deregisterStreamConsumer,
  describeStreamConsumer,
  listStreamConsumers,
  registerStreamConsumer,
} from "./manage/stream-consumers.ts";
import {
  decreaseStreamRetentionPeriod,
  increaseStreamRetentionPeriod,
  updateMaxRecordSize,
  updateStreamMode,
} from "./manage/stream-settings.ts";
import {
  addTagsToStream,
  listTagsForResource,
  listTagsForStream,
  removeTagsFromStream,
  tagResource,
  untagResource,
} from "./manage/tags.ts";
import type { AnyOperation } from "./operation.ts";
import { getRecords } from "./pages/get-records.ts";
import { subscribeToShard } from "./push/subscribe-to-shard.ts";
import { putRecord } from "./puts/put-record.ts";
import { putRecords } from "./puts/put-records.ts";
import { getShardIterator } from "./shard-iterator.ts";

interface OfferedOperation {
  readonly run: AnyOperation;
  /** What somebody who knows AWS's Kinesis should know of ours. */
  readonly note: string;
}

export const OFFERED: Readonly<Record<string, OfferedOperation>> = {
  AddTagsToStream: {
    run: addTagsToStream,
    note: "At most 50 tags a stream.",
  },
  CreateStream: {
    run: createStream,
    note: "`ShardCount` 1 to 4,096, or `ON_DEMAND`, which begins with 4 shards; a call with neither makes an on-demand stream. The stream is ACTIVE, with 24 hours of retention, when the call returns. `WarmThroughputMiBps` and the distribution strategy `AUTO` are refused.",
  },
  DecreaseStreamRetentionPeriod: {
    run: decreaseStreamRetentionPeriod,
    note: "24 to 8,760 hours.",
  },
  DeleteStream: {
    run: deleteStream,
    note: "The stream and its data are gone when the call returns. With registered consumers it needs `EnforceConsumerDeletion`. `headwater-gaps`, in which agents report what is missing, is refused with ResourceInUseException.",
  },
  DeregisterStreamConsumer: {
    run: deregisterStreamConsumer,
    note: "By `ConsumerARN`, or by `StreamARN` and `ConsumerName`.",
  },
  DescribeAccountSettings: {
    run: describeAccountSettings,
    note: "Always `DISABLED`: nothing is billed here.",
  },
  DescribeLimits: {
    run: describeLimits,
    note: "Counts are true; the limits are 1,000,000, the most that can be said, because none is set by account.",
  },
  DescribeStream: {
    run: describeStream,
    note: "Pages of at most 100 shards, open and closed ones.",
  },
  DescribeStreamConsumer: {
    run: describeStreamConsumer,
    note: "By `ConsumerARN`, or by `StreamARN` and `ConsumerName`.",
  },
  DescribeStreamSummary: {
    run: describeStreamSummary,
    note: "`StreamStatus` is always ACTIVE: changes are done when their calls return.",
  },
  GetRecords: {
    run: getRecords,
    note: "At most `Limit` (10,000) records and 10 MiB of data. The end of a closed shard is an answer without records, with `ChildShards` and no `NextShardIterator`.",
  },
  GetShardIterator: {
    run: getShardIterator,
    note: "All five types, on open and closed shards. With `limits: aws` 5 a second of each shard.",
  },
  IncreaseStreamRetentionPeriod: {
    run: increaseStreamRetentionPeriod,
    note: "24 to 8,760 hours.",
  },
  ListShards: {
    run: listShards,
    note: "Pages of at most 1,000 shards, open and closed ones; all filters. A `NextToken` stands alone, but for `MaxResults`. `StreamCreationTimestamp` is compared to the second.",
  },
  ListStreamConsumers: {
    run: listStreamConsumers,
    note: "Sorted by name, in pages of at most 100.",
  },
  ListStreams: {
    run: listStreams,
    note: "Sorted by name, in pages of at most 100; `NextToken` or `ExclusiveStartStreamName`.",
  },
  ListTagsForResource: {
    run: listTagsForResource,
    note: "Of a stream or of a registered consumer.",
  },
  ListTagsForStream: {
    run: listTagsForStream,
    note: "Sorted by key.",
  },
  MergeShards: {
    run: mergeShards,
    note: "Done when the call returns. Not of an on-demand stream.",
  },
  PutRecord: {
    run: putRecord,
    note: "`SequenceNumberForOrdering` must be a sequence number of Kinesis'; records of a key are stored in the order of their requests in any case.",
  },
  PutRecords: {
    run: putRecords,
    note: "Without rate limits all records are stored or none; with `limits: aws` those beyond a shard's rate fail one by one, as in AWS.",
  },
  RegisterStreamConsumer: {
    run: registerStreamConsumer,
    note: "At most 20 a stream. The consumer is ACTIVE when the call returns.",
  },
  RemoveTagsFromStream: {
    run: removeTagsFromStream,
    note: "Keys that are not there change nothing.",
  },
  SplitShard: {
    run: splitShard,
    note: "Done when the call returns. Not of an on-demand stream.",
  },
  SubscribeToShard: {
    run: subscribeToShard,
    note: "Over HTTP/2 and HTTP/1.1, in JSON and CBOR, for five minutes. With nothing new an event comes every 5 seconds, with the `ContinuationSequenceNumber`. A second call takes over, but not within 5 seconds of the first.",
  },
  TagResource: {
    run: tagResource,
    note: "A stream or a registered consumer, by its ARN; at most 50 tags.",
  },
  UntagResource: {
    run: untagResource,
    note: "A stream or a registered consumer, by its ARN.",
  },
  UpdateAccountSettings: {
    run: updateAccountSettings,
    note: "`DISABLED` is so already; `ENABLED` is refused, as nothing is billed here.",
  },
  UpdateMaxRecordSize: {
    run: updateMaxRecordSize,
    note: "1,024 to 10,240 KiB, of what comes from then on.",
  },
  UpdateShardCount: {
    run: updateShardCount,
    note: "At most double and at least half of the open shards. Done when the call returns, as one change: when it was interrupted, all of it or nothing.",
  },
  UpdateStreamMode: {
    run: updateStreamMode,
    note: "As often as wanted. The shards stay; on demand the gateway splits and merges them from then on.",
  },
};

const CHANNELS = "channels deliver to AWS's own services; use `delivery:` in gateway.yaml";
const ENCRYPTION = "there is no key management here; encrypt the disk under the data folder";
const MONITORING = "the metrics of /metrics are always on";
const POLICIES = "who may do what is said by the keys' `allow` lists in gateway.yaml";

/** What Kinesis has and this gateway has not, with the reason. */
export const REFUSED: Readonly<Record<string, string>> = {
  CreateChannel: CHANNELS,
  DeleteChannel: CHANNELS,
  DeleteResourcePolicy: POLICIES,
  DescribeChannel: CHANNELS,
  DisableEnhancedMonitoring: MONITORING,
  EnableEnhancedMonitoring: MONITORING,
  GetResourcePolicy: POLICIES,
  ListChannels: CHANNELS,
  PutResourcePolicy: POLICIES,
  StartStreamEncryption: ENCRYPTION,
  StopStreamEncryption: ENCRYPTION,
  UpdateChannel: CHANNELS,
  UpdateStreamRecordDistributionStrategy: "the shard of a record follows from its partition key, always",
  UpdateStreamWarmThroughput: "a shard takes what the disk takes, so there is nothing to warm up",
};

/** Found by text that was cut out of a header: of an object, such names would have to be made its own first. */
const offered = new Map(Object.entries(OFFERED).map(([name, { run }]) => [name, run]));

export function isKnown(name: string): boolean {
  return offered.has(name) || Object.hasOwn(REFUSED, name);
}

/** Whether it answers by itself, piece by piece. */
export function isStreaming(name: string): boolean {
  const run = offered.get(name);
  return run !== undefined && "stream" in run;
}

/** @throws AwsError UnknownOperationException for one that is refused, with the reason */
export function operationOf(name: string): AnyOperation {
  const run = offered.get(name);
  if (run !== undefined) return run;
  throw new AwsError(
    "UnknownOperationException",
    `${name} is not offered by this gateway: ${REFUSED[name] ?? "it is not known"}.`,
  );
}
