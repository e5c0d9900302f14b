/**
 * Asks the gateway what time it is. Cristian's algorithm: of a few round trips the shortest counts, and
 * the time in the answer is that of its middle, give or take half of the round trip.
 */
import type { MqttClient } from "mqtt";
import { topicOf } from "../../protocol/topics.ts";
import type { Clock } from "../../runtime/clock.ts";

const ROUNDS = 4;
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

export class TimeExchange {
  readonly #device: string;
  readonly #clock: Clock;
  readonly #listener: TimeListener;
  #asked = { id: 0, atMs: 0 };
  #best: HeardTime | undefined;

  constructor(device: string, clock: Clock, listener: TimeListener) {
    this.#device = device;
    this.#clock = clock;
    this.#listener = listener;
  }

  /** At QoS 0: an answer that comes late is worth nothing. */
  ask(client: MqttClient): void {
    if (!this.#listener.needed() || this.#asked.id >= ROUNDS) return;
    this.#asked = { id: this.#asked.id + 1, atMs: this.#clock.monotonicMs() };
    client.publish(topicOf(this.#device, "time"), JSON.stringify({ id: this.#asked.id }), { qos: 0 });
  }

  /** @param message a control message of type `time`, unchecked */
  answered(client: MqttClient, message: { readonly id?: unknown; readonly utcUs?: unknown }): void {
    const nowMs = this.#clock.monotonicMs();
    const { id, utcUs } = message;
    if (id !== this.#asked.id || this.#asked.id === 0) return;
    if (typeof utcUs !== "number" || !(utcUs > 0 && utcUs <= MAX_UTC_US)) return;
    const halfUs = ((nowMs - this.#asked.atMs) * 1_000) / 2;
    if (this.#best === undefined || halfUs < this.#best.boundUs) {
      this.#best = { utcUs: utcUs + halfUs, atMs: nowMs, boundUs: halfUs };
    }
    if (this.#asked.id >= ROUNDS) this.#listener.heard(this.#best);
    else this.ask(client);
  }
}
