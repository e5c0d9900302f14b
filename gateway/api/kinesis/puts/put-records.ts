/**
 * PutRecords, and what PutRecord does alike. An answer means that the records are on disk.
 *
 *   body ─scanner, or decode → checkShape→ columns → which may go → append → answer
 */
import {
  type PlacedColumns,
  type PutColumns,
  ShardNotFoundError,
  StreamNotFoundError,
  type StreamSettings,
} from "../../../streams/streams.ts";
import { AwsError, invalidArgument } from "../../aws-error.ts";
import { namedStreamField, shardIdOf, streamArnField } from "../account.ts";
import { endDryRun } from "../dry-run.ts";
import type { KinesisContext, RawOperation } from "../operation.ts";
import { checkShape, type Shape } from "../shape.ts";
import type { Codec } from "../wire/codec.ts";
import { scanCborPutRecords } from "./cbor-put-scanner.ts";
import { putAnswer, type RefusedPuts } from "./put-answer.ts";
import { MAX_KEY_CHARACTERS, MAX_REQUEST_BYTES, type PutRequest, requestOf } from "./put-columns.ts";
import { admitPuts } from "./put-limits.ts";
import { scanPutRecords } from "./put-scanner.ts";

/** UTF-8 has at most three bytes for each of JavaScript's characters. */
const MAX_KEY_BYTES = 3 * MAX_KEY_CHARACTERS;

const nameShape = { StreamARN: streamArnField, StreamName: namedStreamField } as const satisfies Shape;

/** All or none are stored, but for what `limits: aws` refuses record by record. */
export const putRecords: RawOperation = {
  raw: async (context, body, codec) => {
    const { columns, stream, dryRun } = understand(context, body, codec);
    checkSizes(columns, stream, (i) => `records.${i + 1}.member.data`);
    endDryRun(dryRun);
    let admitted = columns;
    let refused: RefusedPuts | undefined;
    if (stream.limits === "aws") {
      const verdict = admitPuts(context.rates, context.streams, stream, columns);
      admitted = verdict.columns;
      if (verdict.refused > 0) {
        context.reads.throttled(stream.name, verdict.refused);
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
): { columns: PutColumns; stream: StreamSettings; dryRun: boolean | undefined } {
  const scanned = codec.name === "json" ? scanPutRecords(body) : scanCborPutRecords(body);
  const request: PutRequest = scanned ?? requestOf(codec.decode(body));
  const { streamName, streamArn, columns, dryRun } = request;
  const names = checkShape({ StreamName: streamName, StreamARN: streamArn }, nameShape);
  return { columns, dryRun, stream: context.account.settings(context.account.streamNameOf(names)) };
}

/** @throws AwsError in the words of the checks that need no stream */
export function checkSizes(columns: PutColumns, stream: StreamSettings, pathOf: (i: number) => string): void {
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
  checkKeyedSizes(columns, maxRecordBytes);
  let bytes = data.length;
  // A character has at most three bytes of UTF-8, so most requests need no closer look.
  for (const key of keys) bytes += key.length * 3;
  if (bytes <= MAX_REQUEST_BYTES) return;
  bytes = data.length;
  for (const key of keys) bytes += Buffer.byteLength(key);
  if (bytes > MAX_REQUEST_BYTES) throw invalidArgument("Records size exceeds 10 MB limit");
}

/** AWS counts a record's key as part of it. @throws AwsError */
function checkKeyedSizes({ ends, keys, count, data }: PutColumns, maxRecordBytes: number): void {
  if (data.length + MAX_KEY_BYTES <= maxRecordBytes) return;
  for (let i = 0, from = 0; i < count; from = ends[i++]!) {
    const dataBytes = ends[i]! - from;
    // Few records come so near to the limit that their keys need a closer look.
    if (dataBytes + MAX_KEY_BYTES <= maxRecordBytes) continue;
    const bytes = dataBytes + Buffer.byteLength(keys[i]!);
    if (bytes <= maxRecordBytes) continue;
    throw invalidArgument(
      `Record ${i + 1} has ${bytes} bytes of data and partition key, which is more than the ${maxRecordBytes} that the stream takes.`,
    );
  }
}

export async function append(
  context: KinesisContext,
  name: string,
  columns: PutColumns,
): Promise<PlacedColumns> {
  try {
    return await context.streams.appendColumns(name, columns);
  } catch (error) {
    // It may have been deleted since it was looked up.
    throw error instanceof StreamNotFoundError ? context.account.streamNotFound(name) : error;
  }
}

/** The records are stored whatever has become of their shard or stream since. */
export function createdOf(context: KinesisContext, stream: StreamSettings, shard: number): number {
  try {
    return context.streams.shard(stream.name, shard).createdMs;
  } catch (error) {
    if (error instanceof StreamNotFoundError || error instanceof ShardNotFoundError) return stream.createdMs;
    throw error;
  }
}

export function refusalOf(context: KinesisContext, stream: StreamSettings, shard: number): string {
  return `Rate exceeded for shard ${shardIdOf(shard)} in stream ${stream.name} under account ${context.account.accountId}.`;
}
