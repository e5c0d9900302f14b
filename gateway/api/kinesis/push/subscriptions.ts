/**
 * All subscriptions of this gateway: one per consumer and shard. A later call takes over from an
 * earlier one, but not within five seconds of it; each ends after five minutes. Where gateways share the store, calls to the
 * others count as well.
 */
import type { Clock } from "../../../../runtime/clock.ts";
import type { Metrics } from "../../../../runtime/metrics.ts";
import type { RegisteredReader, Streams } from "../../../streams/streams.ts";
import { AwsError, notFound } from "../../aws-error.ts";
import { isGone } from "../../exchange.ts";
import type { ReadMeters } from "../read-meters.ts";
import type { Codec } from "../wire/codec.ts";
import { cborCodec, jsonCodec } from "../wire/codec.ts";
import { SharedReads } from "./shared-reads.ts";
import { Subscription, type SubscriptionParts, type SubscriptionPlace } from "./subscription.ts";
import { MAX_EVENT_BYTES, SubscriptionEvents } from "./subscription-events.ts";

const SUBSCRIPTION_MS = 300_000;
const TAKE_OVER_AFTER_MS = 5_000;
const TICK_MS = 1_000;

export interface SubscriptionRequest {
  readonly place: SubscriptionPlace;
  readonly reader: RegisteredReader;
  readonly codec: Codec;
  readonly reply: SubscriptionParts["reply"];
  readonly headers: SubscriptionParts["headers"];
}

interface Active {
  readonly subscription: Subscription;
  readonly reader: RegisteredReader;
  readonly endsMs: number;
}

export interface SubscriptionsOptions {
  readonly streams: Streams;
  readonly accountId: string;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly reads: ReadMeters;
}

export class Subscriptions {
  readonly #streams: Streams;
  readonly #accountId: string;
  readonly #clock: Clock;
  readonly #active = new Map<string, Active>();
  /** When each began, on whatever gateway, oldest first; of the last five seconds only, whether they still run or not. */
  readonly #begun = new Map<string, number>();
  readonly #shared = new SharedReads();
  readonly #events = {
    json: new SubscriptionEvents(jsonCodec),
    cbor: new SubscriptionEvents(cborCodec),
  };
  readonly #reads: ReadMeters;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: SubscriptionsOptions) {
    this.#streams = options.streams;
    this.#accountId = options.accountId;
    this.#reads = options.reads;
    this.#clock = options.clock;
    this.#streams.onClaim?.("push", (key) => this.#claimed(key));
    const active = this.#active;
    options.metrics.gauge(
      "headwater_kinesis_subscriptions",
      "SubscribeToShard calls that are being served",
      [],
      function () {
        this.set(active.size);
      },
    );
  }

  /**
   * Serves it to its end.
   * @throws AwsError ResourceInUseException when it comes too soon; nothing was sent then
   */
  async run(request: SubscriptionRequest): Promise<void> {
    const { place, reader, codec, reply, headers } = request;
    if (this.#closed) throw new AwsError("ServiceUnavailable", "The gateway is closing.", 503);
    // Of a client that left meanwhile it would never hear, and it must take nobody's place.
    if (isGone(reply)) return;
    const key = JSON.stringify([place.streamId, place.shard.index, reader.name, reader.createdMs]);
    const nowMs = this.#clock.monotonicMs();
    const over = this.#admit(key, nowMs, place, reader);
    const shared = this.#shared.join(place.streamId, place.shard.index, (from) =>
      this.#streams.read(place.stream, place.shard.shardId, from, MAX_EVENT_BYTES),
    );
    const subscription = new Subscription(place, {
      streams: this.#streams,
      events: this.#events[codec.name],
      reply,
      headers,
      nowMs: () => Math.floor(this.#clock.nowUs() / 1000),
      monotonicMs: () => this.#clock.monotonicMs(),
      read: shared.read,
      onPush: (records, behindMs) => this.#reads.pushed(place.stream, records, behindMs),
    });
    const mine: Active = { subscription, reader, endsMs: nowMs + SUBSCRIPTION_MS };
    this.#active.set(key, mine);
    this.#timer ??= setInterval(() => this.#tick(), TICK_MS).unref();
    try {
      await subscription.run();
    } finally {
      shared.leave();
      over?.();
      if (this.#active.get(key) === mine) this.#active.delete(key);
      if (this.#active.size === 0) this.#stopTicking();
    }
  }

  /** Ends them all in peace; their clients subscribe anew. Safe to call twice. */
  close(): void {
    this.#closed = true;
    for (const { subscription } of this.#active.values()) subscription.end("peace");
    this.#stopTicking();
  }

  /** @returns to be called when it is over */
  #admit(
    key: string,
    nowMs: number,
    place: SubscriptionPlace,
    reader: RegisteredReader,
  ): (() => void) | undefined {
    this.#forgetBegun(nowMs);
    if (this.#begun.has(key)) throw this.#inUse(place, reader);
    this.#begun.set(key, nowMs);
    this.#active.get(key)?.subscription.end(this.#inUse(place, reader));
    return this.#streams.claim?.("push", key);
  }

  /** Another gateway serves it now. */
  #claimed(key: string): void {
    const nowMs = this.#clock.monotonicMs();
    this.#forgetBegun(nowMs);
    this.#begun.delete(key);
    this.#begun.set(key, nowMs);
    const mine = this.#active.get(key);
    mine?.subscription.end(this.#inUse(mine.subscription.place, mine.reader));
  }

  #forgetBegun(nowMs: number): void {
    for (const [key, begunMs] of this.#begun) {
      if (nowMs - begunMs < TAKE_OVER_AFTER_MS) break;
      this.#begun.delete(key);
    }
  }

  #inUse(place: SubscriptionPlace, reader: RegisteredReader): AwsError {
    return new AwsError(
      "ResourceInUseException",
      `Another active subscription exists for this consumer: ${this.#accountId}:${place.stream}:${place.shard.shardId}:${reader.name}`,
    );
  }

  #tick(): void {
    const nowMs = this.#clock.monotonicMs();
    const readers = new Map<string, readonly RegisteredReader[]>();
    for (const { subscription, reader, endsMs } of this.#active.values()) {
      const { stream } = subscription.place;
      if (nowMs >= endsMs) subscription.end("peace");
      else if (!this.#isRegistered(stream, reader, readers)) {
        subscription.end(notFound(`Consumer ${reader.name} of stream ${stream} is no longer there.`));
      } else subscription.tick();
    }
  }

  #isRegistered(
    stream: string,
    reader: RegisteredReader,
    asked: Map<string, readonly RegisteredReader[]>,
  ): boolean {
    let readers = asked.get(stream);
    if (readers === undefined) {
      try {
        readers = this.#streams.registeredReaders(stream);
      } catch {
        // The stream is gone, and they with it.
        readers = [];
      }
      asked.set(stream, readers);
    }
    return readers.some(({ name, createdMs }) => name === reader.name && createdMs === reader.createdMs);
  }

  #stopTicking(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
