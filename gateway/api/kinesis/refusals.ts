/** What went wrong, in AWS's words: every error that an operation, or the reading of its body, may end with. */
import { describeError, HeadwaterError } from "../../../runtime/errors.ts";
import type { Log } from "../../../runtime/log.ts";
import { DatabaseWriteError } from "../../../runtime/synced-level.ts";
import { LogBusyError, LogFullError, StreamsClosedError } from "../../streams/streams.ts";
import { AwsError } from "../aws-error.ts";
import { BusyError, UnprovenBusyError } from "../body-budget.ts";
import { BodyCutOffError, BodyTooLargeError } from "../exchange.ts";

/** Undefined when there is nobody left to tell. What nobody foresaw is logged. */
export function refusalOf(
  error: unknown,
  operation: string,
  requestId: string,
  log: Log,
): AwsError | undefined {
  if (error instanceof AwsError) return error;
  if (error instanceof BodyCutOffError) return undefined;
  if (error instanceof BodyTooLargeError) {
    return new AwsError("RequestEntityTooLargeException", `The request is too large: ${error.message}.`, 413);
  }
  if (error instanceof BusyError) {
    return new AwsError("ServiceUnavailable", "The gateway is busy; try again.", 503);
  }
  if (error instanceof UnprovenBusyError) {
    const why = "too many bodies whose signatures could not be checked yet are being read";
    return new AwsError("ThrottlingException", `Rate exceeded: ${why}; try again.`, 400, error);
  }
  // SDKs try these again by themselves, with back-off; nothing was stored.
  if (error instanceof LogFullError || error instanceof LogBusyError) {
    const why = error instanceof LogFullError ? "its disk is full" : "its disk is busy";
    return new AwsError(
      "ProvisionedThroughputExceededException",
      `The gateway cannot store records at the moment: ${why}.`,
      400,
      error,
    );
  }
  // Of streams, consumers and checkpoints: the same, but no throughput of a shard.
  if (error instanceof DatabaseWriteError) {
    return new AwsError("ServiceUnavailable", "The gateway cannot write to its disk.", 503, error);
  }
  if (error instanceof StreamsClosedError) {
    return new AwsError("ServiceUnavailable", "The gateway is closing.", 503, error);
  }
  // What went wrong is for the operator; the caller gets the id under which it was logged.
  log.error(
    {
      operation,
      requestId,
      error: describeError(error),
      stack: error instanceof HeadwaterError ? undefined : error instanceof Error ? error.stack : undefined,
    },
    "a Kinesis call failed",
  );
  return new AwsError("InternalFailure", `Internal failure; the gateway's log has ${requestId}.`, 500, error);
}
