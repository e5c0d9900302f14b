/** What was asked of the cluster in vain: nobody answers where no majority runs, nor what the gateway's NATS user may not ask. */
import { PermissionViolationError } from "@nats-io/transport-node";
import { describeError } from "../../../../../runtime/errors.ts";
import { LogWriteError } from "../../../streams.ts";

export const RIGHTS_HINT = "give the gateway's NATS user the rights that docs/guide/jetstream.md names";

/** Whether the node refused what was asked, or to hear the answer, for want of rights. */
export function isForbidden(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return error instanceof PermissionViolationError || isForbidden(error.cause);
}

/** @param what a stream, or what was done to one @param failure of the last try */
export function unanswered(what: string, failure: unknown): LogWriteError {
  const why = isForbidden(failure) ? "does not allow that" : "gives no answer";
  const told = new Error(`the NATS cluster ${why} (${describeError(failure)})`, { cause: failure });
  const hint = "see whether a majority of the NATS nodes runs, and what they log";
  return new LogWriteError(what, told, isForbidden(failure) ? RIGHTS_HINT : hint);
}
