/** PutRecord and PutRecords. An answer means that the records are on disk. */
import {
  formatSequenceNumber,
  MAX_HASH,
  type Placed,
  type PutEntry,
  type StreamDescription,
  StreamNotFoundError,
} from "../../streams/streams.ts";
import { invalidArgument } from "../aws-error.ts";
import { streamArnField, streamNameField } from "./account.ts";
import type { KinesisContext, Operation } from "./operation.ts";
import { checkShape, type Shape } from "./shape.ts";

const MAX_RECORD_BYTES = 1_048_576;
const MAX_RECORDS = 500;
/** Data and partition keys of one PutRecords together. */
const MAX_REQUEST_BYTES = 5 * 1_048_576;

const data = { type: "blob", required: true, maxLength: MAX_RECORD_BYTES } as const;
const explicitHashKey = { type: "string", pattern: "0|([1-9]\\d{0,38})" } as const;
const partitionKey = { type: "string", required: true, minLength: 1, maxLength: 256 } as const;

const putRecordShape = {
  Data: data,
  ExplicitHashKey: explicitHashKey,
  PartitionKey: partitionKey,
  SequenceNumberForOrdering: { type: "string", pattern: "0|([1-9]\\d{0,128})" },
  StreamARN: streamArnField,
  StreamName: streamNameField,
} as const satisfies Shape;

const putRecordsShape = {
  Records: {
    type: "list",
    required: true,
    minLength: 1,
    maxLength: MAX_RECORDS,
    of: {
      type: "structure",
      members: { Data: data, ExplicitHashKey: explicitHashKey, PartitionKey: partitionKey },
    },
  },
  StreamARN: streamArnField,
  StreamName: streamNameField,
} as const satisfies Shape;

interface GivenRecord {
  readonly Data: Buffer;
  readonly PartitionKey: string;
  readonly ExplicitHashKey?: string;
}

/**
 * SequenceNumberForOrdering is accepted and needs no work: records of one partition key are stored
 * in the order in which their requests came, so a later one never gets the smaller number.
 */
export const putRecord: Operation = async (context, body) => {
  const input = checkShape(body, putRecordShape);
  const name = context.account.streamNameOf(input);
  const stream = context.account.describe(name);
  const [placed] = await append(context, name, [entryOf(input)]);
  return { ShardId: placed!.shardId, SequenceNumber: sequenceNumberOf(stream, placed!) };
};

/** All or none are stored, so FailedRecordCount is always 0. */
export const putRecords: Operation = async (context, body) => {
  const input = checkShape(body, putRecordsShape);
  const name = context.account.streamNameOf(input);
  let bytes = 0;
  const entries: PutEntry[] = [];
  for (const record of input.Records) {
    bytes += record.Data.length + Buffer.byteLength(record.PartitionKey);
    entries.push(entryOf(record));
  }
  if (bytes > MAX_REQUEST_BYTES) throw invalidArgument("Records size exceeds 5 MB limit");
  const stream = context.account.describe(name);
  const placed = await append(context, name, entries);
  return {
    FailedRecordCount: 0,
    Records: placed.map((place) => ({
      SequenceNumber: sequenceNumberOf(stream, place),
      ShardId: place.shardId,
    })),
  };
};

async function append(
  context: KinesisContext,
  name: string,
  entries: readonly PutEntry[],
): Promise<readonly Placed[]> {
  try {
    return await context.streams.append(name, entries);
  } catch (error) {
    // It may have been deleted since it was described.
    throw error instanceof StreamNotFoundError ? context.account.streamNotFound(name) : error;
  }
}

function entryOf(record: GivenRecord): PutEntry {
  // A lone surrogate has no UTF-8: as bytes it would be another key than the one that was hashed.
  if (/\p{Surrogate}/u.test(record.PartitionKey)) throw invalidArgument("PartitionKey is not valid Unicode.");
  const entry = { partitionKey: record.PartitionKey, data: record.Data };
  if (record.ExplicitHashKey === undefined) return entry;
  const explicitHash = BigInt(record.ExplicitHashKey);
  if (explicitHash > MAX_HASH) {
    throw invalidArgument(
      `Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was ${record.ExplicitHashKey}`,
    );
  }
  return { ...entry, explicitHash };
}

function sequenceNumberOf(stream: StreamDescription, placed: Placed): string {
  // A shard's index is the number in its id; the list stands in that order while no shard is closed.
  const index = Number(placed.shardId.slice("shardId-".length));
  const listed = stream.shardList[index];
  const shard =
    listed?.index === index ? listed : stream.shardList.find((candidate) => candidate.index === index);
  return formatSequenceNumber({
    shardCreatedMs: shard?.createdMs ?? stream.createdMs,
    shardIndex: index,
    offset: placed.offset,
    arrivalMs: placed.arrivalMs,
  });
}
