/**
 * PutRecord and PutRecords. An answer means that the records are on disk.
 *
 *   body ─scanner, or decode → checkShape→ columns → which may go → append → answer
 */
import {
  formatSequenceNumber,
  type PlacedColumns,
  type PutColumns,
  ShardNotFoundError,
  StreamNotFoundError,
  type StreamSettings,
} from "../../streams/streams.ts";
import { AwsError, invalidArgument } from "../aws-error.ts";
import { shardIdOf, streamArnField, streamNameField } from "./account.ts";
import type { Codec } from "./codec.ts";
import type { KinesisContext, Operation, RawOperation } from "./operation.ts";
import { putAnswer, type RefusedPuts } from "./put-answer.ts";
import { columnsOf, MAX_REQUEST_BYTES, type PutRequest, putRecordFields, requestOf } from "./put-columns.ts";
import { admitPuts } from "./put-limits.ts";
import { scanPutRecords } from "./put-scanner.ts";
import { checkShape, type Shape } from "./shape.ts";

const putRecordShape = {
  ...putRecordFields,
  SequenceNumberForOrdering: { type: "string", pattern: "0|([1-9]\\d{0,128})" },
  StreamARN: streamArnField,
  StreamName: streamNameField,
} as const satisfies Shape;

const nameShape = { StreamARN: streamArnField, StreamName: streamNameField } as const satisfies Shape;

/**
 * SequenceNumberForOrdering is accepted and needs no work: records of one partition key are stored
 * in the order in which their requests came, so a later one never gets the smaller number.
 */
export const putRecord: Operation = async (context, body) => {
  const input = checkShape(body, putRecordShape);
  const stream = settingsOf(context, context.account.streamNameOf(input));
  const columns = columnsOf([input]);
  checkSizes(columns, stream, () => "data");
  if (stream.limits === "aws") {
    const { refused, refusedBy } = admitPuts(context.rates, context.account.describe(stream.name), columns);
    if (refused > 0) {
      const why = refusalOf(context, stream, refusedBy[0]!);
      throw new AwsError("ProvisionedThroughputExceededException", why);
    }
  }
  const placed = await append(context, stream.name, columns);
  const shardIndex = placed.shards[0]!;
  const SequenceNumber = formatSequenceNumber({
    shardCreatedMs: createdOf(context, stream, shardIndex),
    shardIndex,
    offset: placed.offsets[0]!,
    arrivalMs: placed.arrivalMs,
  });
  return { ShardId: shardIdOf(shardIndex), SequenceNumber };
};

/** All or none are stored, but for what `limits: aws` refuses record by record. */
export const putRecords: RawOperation = {
  raw: async (context, body, codec) => {
    const { columns, stream } = understand(context, body, codec);
    checkSizes(columns, stream, (i) => `records.${i + 1}.member.data`);
    let admitted = columns;
    let refused: RefusedPuts | undefined;
    if (stream.limits === "aws") {
      const verdict = admitPuts(context.rates, context.account.describe(stream.name), columns);
      admitted = verdict.columns;
      if (verdict.refused > 0) {
        const message = (shard: number): string => refusalOf(context, stream, shard);
        refused = { by: verdict.refusedBy, count: verdict.refused, message };
      }
    }
    const placed = await append(context, stream.name, admitted);
    return putAnswer(placed, (shard) => createdOf(context, stream, shard), refused, codec);
  },
};

/** What the scanner leaves, and everything that is wrong, goes the plain way. */
function understand(
  context: KinesisContext,
  body: Buffer,
  codec: Codec,
): { columns: PutColumns; stream: StreamSettings } {
  const scanned = codec.name === "json" ? scanPutRecords(body) : undefined;
  const request: PutRequest = scanned ?? requestOf(codec.decode(body));
  const { streamName, streamArn, columns } = request;
  const names = checkShape({ StreamName: streamName, StreamARN: streamArn }, nameShape);
  return { columns, stream: settingsOf(context, context.account.streamNameOf(names)) };
}

function settingsOf(context: KinesisContext, name: string): StreamSettings {
  try {
    return context.streams.settings(name);
  } catch (error) {
    throw error instanceof StreamNotFoundError ? context.account.streamNotFound(name) : error;
  }
}

/** @throws AwsError in the words of the checks that need no stream */
function checkSizes(columns: PutColumns, stream: StreamSettings, pathOf: (i: number) => string): void {
  const { ends, keys, count, data } = columns;
  const { maxRecordBytes } = stream;
  if (data.length > maxRecordBytes) {
    const problems: string[] = [];
    for (let i = 0, from = 0; i < count && problems.length < 10; from = ends[i++]!) {
      const bytes = ends[i]! - from;
      if (bytes <= maxRecordBytes) continue;
      problems.push(
        `Value 'java.nio.HeapByteBuffer[pos=0 lim=${bytes} cap=${bytes}]' at '${pathOf(i)}' failed to satisfy constraint: Member must have length less than or equal to ${maxRecordBytes}`,
      );
    }
    if (problems.length > 0) {
      const errors = `${problems.length} validation error${problems.length > 1 ? "s" : ""}`;
      throw new AwsError("ValidationException", `${errors} detected: ${problems.join("; ")}`);
    }
  }
  let bytes = data.length;
  // A character has at most three bytes of UTF-8, so most requests need no closer look.
  for (const key of keys) bytes += key.length * 3;
  if (bytes <= MAX_REQUEST_BYTES) return;
  bytes = data.length;
  for (const key of keys) bytes += Buffer.byteLength(key);
  if (bytes > MAX_REQUEST_BYTES) throw invalidArgument("Records size exceeds 10 MB limit");
}

async function append(context: KinesisContext, name: string, columns: PutColumns): Promise<PlacedColumns> {
  try {
    return await context.streams.appendColumns(name, columns);
  } catch (error) {
    // It may have been deleted since it was looked up.
    throw error instanceof StreamNotFoundError ? context.account.streamNotFound(name) : error;
  }
}

/** The records are stored whatever has become of their shard or stream since. */
function createdOf(context: KinesisContext, stream: StreamSettings, shard: number): number {
  try {
    return context.streams.shard(stream.name, shard).createdMs;
  } catch (error) {
    if (error instanceof StreamNotFoundError || error instanceof ShardNotFoundError) return stream.createdMs;
    throw error;
  }
}

function refusalOf(context: KinesisContext, stream: StreamSettings, shard: number): string {
  return `Rate exceeded for shard ${shardIdOf(shard)} in stream ${stream.name} under account ${context.account.accountId}.`;
}
