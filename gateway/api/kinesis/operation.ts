/** What the operations of the Kinesis API have in common: what they stand on, and what they give back. */
import type { Clock } from "../../../runtime/clock.ts";
import type { Streams } from "../../streams/streams.ts";
import type { Account } from "./account.ts";
import type { TokenSealer } from "./sealed-token.ts";

export interface KinesisContext {
  readonly streams: Streams;
  readonly account: Account;
  readonly clock: Clock;
  readonly iterators: TokenSealer;
  readonly nextTokens: TokenSealer;
}

/**
 * The answer's body: an object that becomes JSON, JSON that is ready, or nothing.
 * @throws AwsError, or an error of the streams
 */
export type Operation = (
  context: KinesisContext,
  body: unknown,
) => Promise<object | string | Buffer | undefined>;

export function nowMs(clock: Clock): number {
  return Math.floor(clock.nowUs() / 1000);
}
