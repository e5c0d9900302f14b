/**
 * Asks the gateway what time it is. Cristian's algorithm: of a few round trips the shortest counts, and
 * the time in the answer is that of its middle, give or take half of the round trip.
 *
 *   ask → answer → ask → … four times; more while no round trip was short enough, for some seconds
 *
 * A question or an answer may be lost, at QoS 0: it is asked again, ever more seldom.
 */
import type { MqttClient } from "mqtt";
import { topicOf } from "../../protocol/topics.ts";
import type { Clock } from "../../runtime/clock.ts";

const ROUNDS = 4;
/** The best of the rounds is good enough when its time is known as well as this. */
const GOOD_BOUND_US = 200_000;
/** A gateway or a line that is so busy that none is good enough gives what it can after so long. */
const SETTLE_MS = 6_000;
/** Looked at again so often whether it is needed once more. */
const AGAIN_MS = 60_000;
const FIRST_WAIT_MS = 5_000;
const MAX_WAIT_MS = 60_000;
/** 2255: above it microseconds are no safe integers. */
const MAX_UTC_US = Number.MAX_SAFE_INTEGER;

export interface HeardTime {
  readonly utcUs: number;
  /** When that was, by `clock.monotonicMs()`. */
  readonly atMs: number;
  readonly boundUs: number;
}

export interface TimeListener {
  /** False once the time is known otherwise. */
  readonly needed: () => boolean;
  readonly heard: (time: HeardTime) => void;
}

/** For one connection; what it waits for ends with it. */
export class TimeExchange {
  readonly #device: string;
  readonly #clock: Clock;
  readonly #listener: TimeListener;
  #asked = { id: 0, atMs: 0 };
  #answers = 0;
  #firstMs: number | undefined;
  #best: HeardTime | undefined;
  #waitMs = FIRST_WAIT_MS;
  #timer: NodeJS.Timeout | undefined;

  constructor(device: string, clock: Clock, listener: TimeListener) {
    this.#device = device;
    this.#clock = clock;
    this.#listener = listener;
  }

  /** Begins, once it is connected, and goes on for as long as the connection lasts. */
  start(client: MqttClient): void {
    client.once("close", () => clearTimeout(this.#timer));
    this.#ask(client);
  }

  /** At QoS 0: an answer that comes late is worth nothing. */
  #ask(client: MqttClient): void {
    if (!client.connected) return;
    if (!this.#listener.needed()) {
      this.#later(client, AGAIN_MS);
      return;
    }
    this.#asked = { id: this.#asked.id + 1, atMs: this.#clock.monotonicMs() };
    this.#firstMs ??= this.#asked.atMs;
    client.publish(topicOf(this.#device, "time"), JSON.stringify({ id: this.#asked.id }), { qos: 0 });
    this.#later(client, this.#waitMs);
    this.#waitMs = Math.min(MAX_WAIT_MS, this.#waitMs * 2);
  }

  #later(client: MqttClient, waitMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(client), waitMs);
    this.#timer.unref();
  }

  /** @param message a control message of type `time`, unchecked */
  answered(client: MqttClient, message: { readonly id?: unknown; readonly utcUs?: unknown }): void {
    const nowMs = this.#clock.monotonicMs();
    const { id, utcUs } = message;
    if (id !== this.#asked.id || this.#asked.id === 0) return;
    if (typeof utcUs !== "number" || !(utcUs > 0 && utcUs <= MAX_UTC_US)) return;
    this.#answers++;
    this.#waitMs = FIRST_WAIT_MS;
    const halfUs = ((nowMs - this.#asked.atMs) * 1_000) / 2;
    if (this.#best === undefined || halfUs < this.#best.boundUs) {
      this.#best = { utcUs: utcUs + halfUs, atMs: nowMs, boundUs: halfUs };
    }
    const settled = this.#best.boundUs <= GOOD_BOUND_US || nowMs - this.#firstMs! >= SETTLE_MS;
    if (this.#answers < ROUNDS || !settled) {
      this.#ask(client);
      return;
    }
    const heard = this.#best;
    [this.#answers, this.#firstMs, this.#best] = [0, undefined, undefined];
    this.#listener.heard(heard);
    this.#later(client, AGAIN_MS);
  }
}
