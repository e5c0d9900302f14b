/** What of a stream may be changed while it runs: retention, record size, capacity mode. */
import { AwsError, invalidArgument } from "../../aws-error.ts";
import { namedStreamField, streamArnField } from "../account.ts";
import type { KinesisContext, Operation } from "../operation.ts";
import { checkShape, type Shape } from "../shape.ts";

const MIN_RETENTION_HOURS = 24;
/** A year. */
const MAX_RETENTION_HOURS = 8_760;

export const streamModeField = {
  type: "structure",
  members: { StreamMode: { type: "string", required: true, oneOf: ["PROVISIONED", "ON_DEMAND"] } },
} as const;

export const maxRecordSizeField = { type: "integer", min: 1_024, max: 10_240 } as const;

const retentionShape = {
  RetentionPeriodHours: { type: "integer", required: true, min: 1 },
  StreamARN: streamArnField,
  StreamName: namedStreamField,
} as const satisfies Shape;

/** A period that is the stream's already is taken by both operations, and changes nothing. */
export const increaseStreamRetentionPeriod: Operation = (context, body) =>
  changeRetention(context, body, (hours, now, stream) => {
    if (hours < now) {
      throw invalidArgument(
        `Requested retention period (${hours} hours) for stream ${stream} can not be shorter than existing retention period (${now} hours). Use DecreaseRetentionPeriod API.`,
      );
    }
  });

/** Records that are older than the new period go away soon after. */
export const decreaseStreamRetentionPeriod: Operation = (context, body) =>
  changeRetention(context, body, (hours, now, stream) => {
    if (hours > now) {
      throw invalidArgument(
        `Requested retention period (${hours} hours) for stream ${stream} can not be longer than existing retention period (${now} hours). Use IncreaseRetentionPeriod API.`,
      );
    }
  });

async function changeRetention(
  context: KinesisContext,
  body: unknown,
  check: (hours: number, nowHours: number, stream: string) => void,
): Promise<undefined> {
  const input = checkShape(body, retentionShape);
  const stream = context.account.streamNameOf(input);
  const hours = input.RetentionPeriodHours;
  await context.turns.run(stream, async () => {
    context.account.settings(stream);
    if (hours < MIN_RETENTION_HOURS) {
      throw invalidArgument(
        `Minimum allowed retention period is ${MIN_RETENTION_HOURS} hours. Requested retention period (${hours} hours) is too short.`,
      );
    }
    if (hours > MAX_RETENTION_HOURS) {
      throw invalidArgument(
        `Maximum allowed retention period is ${MAX_RETENTION_HOURS} hours. Requested retention period (${hours} hours) is too long.`,
      );
    }
    const retentionHours = (nowHours: number): number => {
      check(hours, nowHours, stream);
      return hours;
    };
    await context.account.found(stream, context.streams.updateStream(stream, { retentionHours }));
  });
  return undefined;
}

const recordSizeShape = {
  MaxRecordSizeInKiB: { ...maxRecordSizeField, required: true },
  // The only way to name the stream here.
  StreamARN: { ...streamArnField, required: true },
} as const satisfies Shape;

/** Records that are there already stay, whatever their size. */
export const updateMaxRecordSize: Operation = async (context, body) => {
  const input = checkShape(body, recordSizeShape);
  const stream = context.account.streamNameOf(input);
  context.account.settings(stream);
  await context.account.found(
    stream,
    context.streams.updateStream(stream, { maxRecordBytes: input.MaxRecordSizeInKiB * 1024 }),
  );
  return undefined;
};

const modeShape = {
  StreamARN: { ...streamArnField, required: true },
  StreamModeDetails: { ...streamModeField, required: true },
  WarmThroughputMiBps: { type: "integer", min: 0 },
} as const satisfies Shape;

/** The shards stay as they are; on demand the gateway splits and merges them from then on. */
export const updateStreamMode: Operation = async (context, body) => {
  const input = checkShape(body, modeShape);
  refuseWarmThroughput(input.WarmThroughputMiBps);
  const stream = context.account.streamNameOf(input);
  context.account.settings(stream);
  const mode = input.StreamModeDetails.StreamMode === "ON_DEMAND" ? "on-demand" : "provisioned";
  await context.account.found(stream, context.streams.updateStream(stream, { mode }));
  return undefined;
};

/** @throws AwsError ValidationException */
export function refuseWarmThroughput(given: number | undefined): void {
  if (given === undefined) return;
  throw new AwsError(
    "ValidationException",
    "WarmThroughputMiBps is not offered by this gateway: a shard takes what the disk takes, so there is nothing to warm up.",
  );
}
