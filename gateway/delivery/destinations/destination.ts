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
  put(name: string, bytes: Uint8Array, attempt: Attempt): Promise<void>;
  /**
   * True when the object is there; then it is durable, too.
   * @throws DestinationError (retryable)
   */
  has(name: string): Promise<boolean>;
  /**
   * An attempt of somebody else, who may be in the middle of it, brings nothing from here on, unless it has brought
   * its object already. It must not be able to confirm any more.
   * @param attempt undefined: of earlier versions, which named none
   * @throws DestinationError (retryable)
   */
  revoke(name: string, attempt: string | undefined): Promise<void>;
}

/** One try to bring an object. */
export interface Attempt {
  readonly id: string;
  /** Called when all bytes are there, right before they get their name; when it throws they do not get it. */
  confirm(): Promise<void>;
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
