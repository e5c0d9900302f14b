/** Where delivered objects go. One adapter file a kind of destination, all behind this port. */
import { HeadwaterError } from "../../../runtime/errors.ts";

export interface Destination {
  /** For people: what and where it is. */
  readonly description: string;
  /**
   * Brings one object there, whole and durable, or not at all. An object of this name that is there
   * already is kept as it is: names are never used twice, so it is the same one, from before a crash.
   * @throws DestinationError (retryable)
   */
  put(name: string, bytes: Uint8Array): Promise<void>;
  /**
   * True when the object is there; then it is durable, too.
   * @throws DestinationError (retryable)
   */
  has(name: string): Promise<boolean>;
}

/** Nothing is lost: the delivery tries again, and the records stay in the stream meanwhile. */
export class DestinationError extends HeadwaterError {
  constructor(where: string, cause: unknown) {
    super("DESTINATION_FAILED", {
      retryable: true,
      message: `cannot write ${where}: ${cause instanceof Error ? cause.message : String(cause)}`,
      hint: "make room, or let the gateway's user write there; delivery then goes on by itself",
      cause,
    });
  }
}
