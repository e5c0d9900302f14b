/** The plain way from the decoded body of a put to columns; the scanner's oracle, and the one that finds faults. */
import { MAX_HASH, MAX_RECORD_BYTES, type PutColumns } from "../../../streams/streams.ts";
import { invalidArgument } from "../../aws-error.ts";
import { namedStreamField, streamArnField } from "../account.ts";
import { dryRunField } from "../dry-run.ts";
import { checkShape, type Shape } from "../shape.ts";

export const MAX_RECORDS = 500;
export const MAX_KEY_CHARACTERS = 256;
/** Data and partition keys of one PutRecords together. */
export const MAX_REQUEST_BYTES = 10 * 1_048_576;

/** What a PutRecords asks for, its records as columns. */
export interface PutRequest {
  readonly columns: PutColumns;
  readonly streamName: string | undefined;
  readonly streamArn: string | undefined;
  /** Only of a request that says something of it, which none of a scanner does. */
  readonly dryRun?: boolean;
}

/** The members of a record, in the order in which AWS tells what is wrong with them. */
export const putRecordFields = {
  PartitionKey: { type: "string", required: true, minLength: 1, maxLength: MAX_KEY_CHARACTERS },
  ExplicitHashKey: { type: "string", pattern: "0|([1-9]\\d{0,38})" },
  Data: { type: "blob", required: true, maxLength: MAX_RECORD_BYTES },
} as const satisfies Shape;

const putRecordsShape = {
  DryRun: dryRunField,
  Records: {
    type: "list",
    required: true,
    minLength: 1,
    maxLength: MAX_RECORDS,
    of: { type: "structure", members: putRecordFields },
  },
  StreamARN: streamArnField,
  StreamName: namedStreamField,
} as const satisfies Shape;

interface GivenRecord {
  readonly Data: Buffer;
  readonly PartitionKey: string;
  readonly ExplicitHashKey?: string;
}

/** @throws AwsError */
export function requestOf(body: unknown): PutRequest {
  const input = checkShape(body, putRecordsShape);
  const { DryRun: dryRun, StreamName: streamName, StreamARN: streamArn } = input;
  return {
    columns: columnsOf(input.Records),
    streamName,
    streamArn,
    ...(dryRun !== undefined && { dryRun }),
  };
}

/** @throws AwsError InvalidArgumentException */
export function columnsOf(records: readonly GivenRecord[]): PutColumns {
  const keys: string[] = [];
  const ends = new Uint32Array(records.length);
  let hashes: Array<bigint | undefined> | undefined;
  let end = 0;
  for (const [i, { Data, PartitionKey, ExplicitHashKey }] of records.entries()) {
    // A lone surrogate has no UTF-8: as bytes it would be another key than the one that was hashed.
    if (/\p{Surrogate}/u.test(PartitionKey)) throw invalidArgument("PartitionKey is not valid Unicode.");
    keys.push(PartitionKey);
    if (ExplicitHashKey !== undefined) hashes ??= records.slice(0, i).map(() => undefined);
    hashes?.push(ExplicitHashKey === undefined ? undefined : hashOf(ExplicitHashKey));
    end += Data.length;
    ends[i] = end;
  }
  const data =
    records.length === 1
      ? records[0]!.Data
      : Buffer.concat(
          records.map(({ Data }) => Data),
          end,
        );
  return { count: records.length, keys, hashes, data, ends };
}

function hashOf(explicitHashKey: string): bigint {
  const hash = BigInt(explicitHashKey);
  if (hash <= MAX_HASH) return hash;
  throw invalidArgument(
    `Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was ${explicitHashKey}`,
  );
}
