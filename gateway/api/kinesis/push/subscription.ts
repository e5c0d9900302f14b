/**
 * One SubscribeToShard: pushes a shard's records from a position on, as they come, until its time is
 * over, the shard ends, somebody else takes its place, or the client goes.
 *
 * Holds at most one event for a slow client: the log is read on only when the socket has taken all.
 */
import type { Writable } from "node:stream";
import {
  type Offset,
  type ReadResult,
  type ShardDescription,
  ShardNotFoundError,
  StreamNotFoundError,
  type Streams,
  StreamsClosedError,
} from "../../../streams/streams.ts";
import { AwsError, notFound } from "../../aws-error.ts";
import { isGone, type OutgoingReply } from "../../exchange.ts";
import { childShardsOf } from "../child-shards.ts";
import type { SubscriptionEvents } from "./subscription-events.ts";

/** An event also comes when there is nothing new, so that clients can tell idleness from a dead connection. */
export const IDLE_EVENT_EVERY_MS = 5_000;

export interface SubscriptionPlace {
  readonly stream: string;
  /** Tells a stream from a later one of the same name. */
  readonly streamId: string;
  readonly shard: ShardDescription;
  readonly from: Offset;
}

export interface SubscriptionParts {
  readonly streams: Streams;
  readonly events: SubscriptionEvents;
  readonly reply: OutgoingReply;
  readonly headers: Readonly<Record<string, string>>;
  readonly nowMs: () => number;
  readonly monotonicMs: () => number;
  /** A read that others who stand at the same place may share. */
  readonly read: (from: Offset) => Promise<ReadResult>;
  readonly onPush: (records: number, behindMs: number) => void;
}

/** How long a client may take for what is left when its subscription has ended. */
const FINISH_MS = 10_000;

/** In peace, with an exception for the client, or because there is no client any more. */
type Ending = "peace" | "gone" | AwsError;

export class Subscription {
  readonly place: SubscriptionPlace;
  readonly #parts: SubscriptionParts;
  readonly #stop = new AbortController();
  #ending: Ending | undefined;
  #next: Offset;
  #waiting = false;
  #lastEventMs: number | undefined;

  constructor(place: SubscriptionPlace, parts: SubscriptionParts) {
    this.place = place;
    this.#parts = parts;
    this.#next = place.from;
  }

  /** Resolves when all is sent, or there is nobody to send it to. @throws what went wrong in the log, when the client has been told */
  async run(): Promise<void> {
    const { reply, headers, events } = this.#parts;
    reply.on("close", () => this.end("gone"));
    // The subscription has a deadline of its own; one that rests while its client works is no stalled one.
    reply.setTimeout(0);
    let failure: unknown;
    try {
      (reply.writeHead as (status: number, headers: object) => unknown)(200, headers);
      await this.#write(events.initial);
      while (this.#ending === undefined) await this.#pushOn();
    } catch (error) {
      failure = this.#failed(error);
    }
    await this.#finish();
    if (failure !== undefined) throw failure;
  }

  /** Only the first call counts. */
  end(ending: Ending): void {
    if (this.#ending !== undefined) return;
    this.#ending = ending;
    this.#stop.abort();
  }

  /** To be called about every second. */
  tick(): void {
    if (!this.#waiting || this.#ending !== undefined || this.#lastEventMs === undefined) return;
    const { events, nowMs, monotonicMs } = this.#parts;
    const idleMs = monotonicMs() - this.#lastEventMs;
    if (idleMs < IDLE_EVENT_EVERY_MS) return;
    void this.#write(events.idle(this.place.shard, this.#next, nowMs()));
    this.#lastEventMs += idleMs;
  }

  /** One read and its events, then a wait for more; comes back early for a slow client, holding nothing. */
  async #pushOn(): Promise<void> {
    const { stream, shard, streamId } = this.place;
    const { streams } = this.#parts;
    // A stream that was deleted and made anew has nothing to do with this subscription.
    if (streams.settings(stream).streamId !== streamId) throw new StreamNotFoundError(stream);
    const from = this.#next;
    const read = await this.#parts.read(from);
    const drained = this.#pushRead(read);
    read.release?.();
    if (drained !== undefined) return await drained;
    if (this.#next > from || this.#ending !== undefined) return;
    this.#waiting = true;
    try {
      await streams.appended(stream, shard.shardId, from, this.#stop.signal);
    } finally {
      this.#waiting = false;
    }
  }

  /** @returns what to wait for when the socket is full; what was read is then to be dropped */
  #pushRead(read: ReadResult): Promise<void> | undefined {
    const { streams, events, nowMs, monotonicMs, onPush } = this.#parts;
    const { stream, shard } = this.place;
    while (this.#ending === undefined) {
      // The first event comes at once, whatever it holds.
      if (read.next <= this.#next && !read.ended && this.#lastEventMs !== undefined) return undefined;
      const event = events.cut(shard, read, this.#next, nowMs(), () =>
        childShardsOf(streams, stream, shard.shardId),
      );
      const drained = this.#write(event.message, event.left);
      this.#next = event.next;
      this.#lastEventMs = monotonicMs();
      onPush(event.records, event.behindMs);
      if (read.ended && event.next >= read.next) this.end("peace");
      if (drained !== undefined) return drained;
      if (event.next >= read.next) return undefined;
    }
    return undefined;
  }

  /**
   * Undefined when the socket takes more at once; otherwise resolves when it does, or the subscription ends.
   * @param left called when the kernel has the message; never when it was cut, as a part may be under way
   */
  #write(message: Buffer, left?: () => void): Promise<void> | undefined {
    const { reply } = this.#parts;
    if (isGone(reply)) return undefined;
    const onWritten = left && ((error?: Error | null): void => void (error == null && left()));
    if ((reply as Writable).write(message, onWritten)) return undefined;
    return new Promise((resolve) => {
      const { signal } = this.#stop;
      const done = (): void => {
        reply.removeListener("drain", done);
        signal.removeEventListener("abort", done);
        resolve();
      };
      reply.on("drain", done);
      signal.addEventListener("abort", done, { once: true });
    });
  }

  /** @returns what the operator should hear of */
  #failed(error: unknown): unknown {
    const { stream, shard } = this.place;
    if (error instanceof StreamNotFoundError || error instanceof ShardNotFoundError) {
      this.end(notFound(`Shard ${shard.shardId} of stream ${stream} is no longer there.`));
      return undefined;
    }
    if (error instanceof StreamsClosedError) {
      this.end("peace");
      return undefined;
    }
    this.end(
      new AwsError("InternalFailureException", "The subscription failed; the gateway's log says why.", 500),
    );
    return error;
  }

  async #finish(): Promise<void> {
    const { reply, events } = this.#parts;
    if (this.#ending instanceof AwsError) void this.#write(events.exception(this.#ending));
    if (isGone(reply) || reply.writableEnded || this.#ending === "gone") return;
    await new Promise<void>((resolve) => {
      const deadline = setTimeout(() => reply.destroy(), FINISH_MS);
      const done = (): void => {
        clearTimeout(deadline);
        resolve();
      };
      reply.once("finish", done);
      reply.once("close", done);
      reply.end();
    });
  }
}
