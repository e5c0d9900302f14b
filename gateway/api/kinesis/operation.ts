/** What the operations of the Kinesis API have in common: what they stand on, and what they give back. */
import type { Clock } from "../../../runtime/clock.ts";
import type { Streams } from "../../streams/streams.ts";
import type { AnswerRoom } from "../answers/unread-answers.ts";
import type { Exchange } from "../exchange.ts";
import type { Account } from "./account.ts";
import type { PageThread } from "./pages/page-thread.ts";
import type { Subscriptions } from "./push/subscriptions.ts";
import type { ShardRates } from "./rate-limits.ts";
import type { ReadMeters } from "./read-meters.ts";
import type { TokenSealer } from "./sealed-token.ts";
import type { Turns } from "./turns.ts";
import type { Codec } from "./wire/codec.ts";

export interface KinesisContext {
  readonly streams: Streams;
  readonly account: Account;
  readonly clock: Clock;
  readonly iterators: TokenSealer;
  readonly nextTokens: TokenSealer;
  /** By the name of a stream. */
  readonly turns: Turns;
  /** Asked for streams with `limits: aws` only. */
  readonly rates: ShardRates;
  readonly subscriptions: Subscriptions;
  readonly reads: ReadMeters;
  readonly pageThread: PageThread;
}

/**
 * Takes a decoded body, and gives the answer's: an object that the codec encodes, or nothing.
 * @throws AwsError, or an error of the streams
 */
export type Operation = (context: KinesisContext, body: unknown) => Promise<object | undefined>;

/**
 * Takes the body as it came and gives the answer as it goes: for the few calls whose speed matters.
 * The bytes of the body are written over once `raw` has returned its promise.
 */
export interface RawOperation {
  readonly raw: (context: KinesisContext, body: Buffer, codec: Codec) => Promise<string | Buffer>;
}

/** As `raw`, where an answer is large and costs much to make: it sets room for it aside first, as soon as it knows how much. */
export interface PageOperation {
  readonly page: (
    context: KinesisContext,
    body: Buffer,
    codec: Codec,
    room: AnswerRoom,
  ) => Promise<string | Buffer>;
}

/**
 * Answers by itself, piece by piece, under the id of the call. What it throws before it has sent a head is
 * answered like any other refusal; afterwards it may only end the reply, and resolves when it has.
 */
export interface StreamingOperation {
  readonly stream: (
    context: KinesisContext,
    body: unknown,
    exchange: Exchange,
    codec: Codec,
    requestId: string,
  ) => Promise<void>;
}

export type AnyOperation = Operation | RawOperation | PageOperation | StreamingOperation;

export function nowMs(clock: Clock): number {
  return Math.floor(clock.nowUs() / 1000);
}
