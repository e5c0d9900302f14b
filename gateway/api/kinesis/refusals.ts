/** What went wrong, in AWS's words: every error that an operation, or the reading of its body, may end with. */
import type { Clock } from "../../../runtime/clock.ts";
import { describeError, HeadwaterError } from "../../../runtime/errors.ts";
import type { Log } from "../../../runtime/log.ts";
import { SparingLog } from "../../../runtime/sparing-log.ts";
import { DatabaseWriteError } from "../../../runtime/synced-level.ts";
import { LogBusyError, LogFullError, LogWriteError, StreamsClosedError } from "../../streams/streams.ts";
import { AwsError } from "../aws-error.ts";
import { BusyError, UnprovenBusyError } from "../bodies/body-budget.ts";
import { AskerGoneError, BodyCutOffError, BodyTooLargeError } from "../exchange.ts";

export class Refusals {
  readonly #log: Log;
  readonly #sparing: SparingLog;
  readonly #clock: Clock;

  constructor(log: Log, clock: Clock) {
    this.#log = log;
    this.#sparing = new SparingLog(log);
    this.#clock = clock;
  }

  /** Undefined when there is nobody left to tell. What nobody foresaw is logged. */
  of(error: unknown, operation: string, requestId: string): AwsError | undefined {
    if (error instanceof BodyCutOffError || error instanceof AskerGoneError) return undefined;
    const foreseen = foreseenRefusal(error);
    // While the disk fails, each put does: the stream log has told of it, and here a few lines a minute are enough.
    if (error instanceof LogWriteError) {
      const fields = { operation, requestId, error: describeError(error) };
      this.#sparing.warn(
        this.#clock.nowUs(),
        fields,
        "a Kinesis call failed: its records could not be written",
      );
    }
    if (foreseen !== undefined) return foreseen;
    // What went wrong is for the operator; the caller gets the id under which it was logged.
    const stack = error instanceof Error && !(error instanceof HeadwaterError) ? error.stack : undefined;
    this.#log.error({ operation, requestId, error: describeError(error), stack }, "a Kinesis call failed");
    const why = `Internal failure; the gateway's log has ${requestId}.`;
    return new AwsError("InternalFailure", why, 500, error);
  }
}

function foreseenRefusal(error: unknown): AwsError | undefined {
  if (error instanceof AwsError) return error;
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
  if (error instanceof LogWriteError) {
    return new AwsError("InternalFailure", "The gateway cannot write to its disk; try again.", 500, error);
  }
  if (error instanceof StreamsClosedError) {
    return new AwsError("ServiceUnavailable", "The gateway is closing.", 503, error);
  }
  return undefined;
}
