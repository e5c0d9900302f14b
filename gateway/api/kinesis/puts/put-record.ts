/**
 * PutRecord. An answer means that the record is on disk.
 *
 *   body ─ordinary, or checkShape→ columns → may it go? → append → answer
 */
import {
  BadSequenceNumberError,
  DEFAULT_MAX_RECORD_BYTES,
  type PlacedColumns,
  type PutColumns,
  parseSequenceNumber,
  SEQUENCE_NUMBER_DIGITS,
  SequenceDigits,
  ShardNotFoundError,
  StreamNotFoundError,
  type StreamSettings,
} from "../../../streams/streams.ts";
import { AwsError, invalidArgument } from "../../aws-error.ts";
import { namedStreamField, shardIdOf, streamArnField } from "../account.ts";
import { dryRunField, endDryRun } from "../dry-run.ts";
import { type KinesisContext, nowMs, type RawOperation } from "../operation.ts";
import { checkShape, type Shape } from "../shape.ts";
import type { Codec } from "../wire/codec.ts";
import { strictBase64 } from "../wire/strict-base64.ts";
import { isOrderingNumber } from "./ordering-number.ts";
import { columnsOf, MAX_KEY_CHARACTERS, putRecordFields } from "./put-columns.ts";
import { admitPuts } from "./put-limits.ts";
import { checkSizes, createdOf, refusalOf } from "./put-records.ts";

const shape = {
  DryRun: dryRunField,
  SequenceNumberForOrdering: { type: "string", pattern: "0|([1-9]\\d{0,128})" },
  ...putRecordFields,
  StreamARN: streamArnField,
  StreamName: namedStreamField,
} as const satisfies Shape;

/** What a PutRecord asks for. */
export interface PutRecordRequest {
  readonly columns: PutColumns;
  readonly StreamName?: string;
  readonly StreamARN?: string;
  readonly dryRun?: boolean;
  /** Its SequenceNumberForOrdering. */
  readonly after?: string;
}

/**
 * SequenceNumberForOrdering is checked and needs no work: records of one partition key are stored
 * in the order in which their requests came, so a later one never gets the smaller number.
 */
export const putRecord: RawOperation = {
  raw(context, body, codec) {
    const decoded = codec.decode(body);
    const request = ordinaryPut(decoded) ?? plainPut(decoded);
    const stream = context.account.settings(context.account.streamNameOf(request));
    const { columns, after } = request;
    if (
      after !== undefined &&
      !isOrderingNumber(after, nowMs(context.clock)) &&
      !wasGivenOut(context, stream, after)
    ) {
      throw invalidArgument(
        `ExclusiveMinimumSequenceNumber ${after} used in PutRecord on stream ${stream.name} under account ${context.account.accountId} is invalid.`,
      );
    }
    checkSizes(columns, stream, () => "data");
    endDryRun(request.dryRun);
    if (stream.limits === "aws") checkRate(context, stream, columns);
    return context.streams.appendColumns(stream.name, columns).then(
      (placed) => answerOf(placed, createdOf(context, stream, placed.shards[0]!), codec),
      (error: unknown) => {
        // It may have been deleted since it was looked up.
        throw error instanceof StreamNotFoundError ? context.account.streamNotFound(stream.name) : error;
      },
    );
  },
};

/** What `plainPut` would give, for the members that almost all calls have; undefined for the unusual and the wrong. */
export function ordinaryPut(body: object): PutRecordRequest | undefined {
  const { StreamName, Data, PartitionKey } = body as Record<string, unknown>;
  if (Object.keys(body).length !== 3) return undefined;
  if (typeof StreamName !== "string" || typeof Data !== "string" || typeof PartitionKey !== "string") {
    return undefined;
  }
  if (!/^[a-zA-Z0-9_.-]{1,128}$/.test(StreamName)) return undefined;
  if (PartitionKey.length > MAX_KEY_CHARACTERS || !/^[ -~]+$/.test(PartitionKey)) return undefined;
  const data = strictBase64(Data);
  if (data === undefined || data.length > DEFAULT_MAX_RECORD_BYTES) return undefined;
  const columns = {
    count: 1,
    keys: [PartitionKey],
    hashes: undefined,
    data,
    ends: Uint32Array.of(data.length),
  };
  return { columns, StreamName };
}

/** @throws AwsError */
export function plainPut(body: object): PutRecordRequest {
  const {
    DryRun: dryRun,
    StreamName,
    StreamARN,
    SequenceNumberForOrdering: after,
    ...record
  } = checkShape(body, shape);
  return {
    columns: columnsOf([record]),
    ...(StreamName !== undefined && { StreamName }),
    ...(StreamARN !== undefined && { StreamARN }),
    ...(dryRun !== undefined && { dryRun }),
    ...(after !== undefined && { after }),
  };
}

/**
 * Whether it stands for a place in this stream. Arrival times never fall, so that where the clock was set back the
 * stream's own numbers are of the future for a while.
 */
function wasGivenOut(context: KinesisContext, stream: StreamSettings, number: string): boolean {
  try {
    const { shardIndex, shardCreatedMs, offset } = parseSequenceNumber(number);
    const { createdMs, latest, passed = latest } = context.streams.shard(stream.name, shardIndex);
    return offset < passed && Math.floor(createdMs / 1000) * 1000 === shardCreatedMs;
  } catch (error) {
    if (error instanceof BadSequenceNumberError || error instanceof ShardNotFoundError) return false;
    throw error;
  }
}

function checkRate(context: KinesisContext, stream: StreamSettings, columns: PutColumns): void {
  const { refused, refusedBy } = admitPuts(context.rates, context.streams, stream, columns);
  if (refused === 0) return;
  context.reads.throttled(stream.name, 1);
  const why = refusalOf(context, stream, refusedBy[0]!);
  throw new AwsError("ProvisionedThroughputExceededException", why);
}

/** Numbers of a shard that follow one another cost a tenth of one alone. */
interface Numbering {
  readonly shardCreatedMs: number;
  readonly shard: number;
  readonly shardId: string;
  readonly digits: SequenceDigits;
}

const MAX_NUMBERINGS = 256;
/** By the shard's number; whichever was used last of those that share a place. */
const numberings: Array<Numbering | undefined> = new Array(MAX_NUMBERINGS).fill(undefined);
const written = Buffer.alloc(SEQUENCE_NUMBER_DIGITS);

function numberingOf(shardCreatedMs: number, shard: number): Numbering {
  const place = shard % MAX_NUMBERINGS;
  const known = numberings[place];
  if (known !== undefined && known.shard === shard && known.shardCreatedMs === shardCreatedMs) return known;
  const digits = new SequenceDigits(shardCreatedMs, shard);
  const numbering = { shardCreatedMs, shard, shardId: shardIdOf(shard), digits };
  numberings[place] = numbering;
  return numbering;
}

function answerOf(
  { shards, offsets, arrivalMs }: PlacedColumns,
  shardCreatedMs: number,
  codec: Codec,
): string | Buffer {
  const { shardId, digits } = numberingOf(shardCreatedMs, shards[0]!);
  digits.write(written, 0, offsets[0]!, arrivalMs);
  const number = written.toString("latin1");
  if (codec.name === "json") return `{"ShardId":"${shardId}","SequenceNumber":"${number}"}`;
  return codec.encode({ ShardId: shardId, SequenceNumber: number });
}
