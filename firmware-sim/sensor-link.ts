/**
 * One sensor's connection to a broker: QoS 1, one message in flight, its own bounded queue of what
 * could not be sent yet. A message counts as delivered only when its PUBACK came.
 *
 *   offer → queue (bounded) → in flight (1) → acknowledged
 *
 * After a reconnect mqtt.js sends the unacknowledged message again from its outgoing store, with the
 * same packet id and payload; only when that is acknowledged does the queue go on, so order holds.
 */
import mqtt, { type MqttClient } from "mqtt";

/** Messages that wait while the broker is away; the oldest gives way, as in a device with little memory. */
const MAX_QUEUED = 1_000;
const CONNECT_TIMEOUT_MS = 5_000;
const KEEPALIVE_S = 15;
/** Bounds of the wait before a reconnect. The jitter keeps a thousand sensors from coming back at once. */
const RECONNECT_MIN_MS = 100;
const RECONNECT_MAX_MS = 1_000;

export interface SensorLinkOptions<M> {
  readonly url: string;
  readonly clientId: string;
  /** For the reconnect jitter only. */
  readonly random?: () => number;
  readonly onAcknowledged: (message: M) => void;
  readonly onDropped: (message: M) => void;
  readonly onTrouble: (error: Error) => void;
}

export interface Sendable {
  readonly topic: string;
  readonly payload: string;
}

export class SensorLink<M extends Sendable> {
  readonly #options: SensorLinkOptions<M>;
  readonly #random: () => number;
  readonly #queue: M[] = [];
  #inFlight: M | undefined;
  #client: MqttClient | undefined;
  #reconnects = 0;

  constructor(options: SensorLinkOptions<M>) {
    this.#options = options;
    this.#random = options.random ?? Math.random;
  }

  get connected(): boolean {
    return this.#client?.connected ?? false;
  }

  get reconnects(): number {
    return this.#reconnects;
  }

  get queued(): number {
    return this.#queue.length;
  }

  /** Nothing waits and nothing is unacknowledged. */
  get isIdle(): boolean {
    return this.#inFlight === undefined && this.#queue.length === 0;
  }

  start(): void {
    const client = mqtt.connect(this.#options.url, {
      clientId: this.#options.clientId,
      clean: true,
      protocolVersion: 4,
      keepalive: KEEPALIVE_S,
      connectTimeout: CONNECT_TIMEOUT_MS,
      reconnectPeriod: this.#reconnectMs(),
      resubscribe: false,
    });
    this.#client = client;
    client.on("error", (error) => this.#options.onTrouble(error));
    client.on("reconnect", () => this.#reconnects++);
    client.on("connect", () => {
      // mqtt.js reads the period anew for every wait.
      client.options.reconnectPeriod = this.#reconnectMs();
      this.#pump();
    });
  }

  offer(message: M): void {
    if (this.#queue.length >= MAX_QUEUED) this.#options.onDropped(this.#queue.shift()!);
    this.#queue.push(message);
    this.#pump();
  }

  /** Disconnects; what is not acknowledged stays so. Safe to call twice. */
  async close(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    if (client !== undefined) await client.endAsync(true);
  }

  #pump(): void {
    const client = this.#client;
    if (this.#inFlight !== undefined || !client?.connected) return;
    const message = this.#queue.shift();
    if (message === undefined) return;
    this.#inFlight = message;
    client.publish(message.topic, message.payload, { qos: 1 }, (error) => {
      // An error means that the client was ended: the message stays unacknowledged.
      if (error) return;
      this.#inFlight = undefined;
      this.#options.onAcknowledged(message);
      this.#pump();
    });
  }

  #reconnectMs(): number {
    return Math.round(RECONNECT_MIN_MS + this.#random() * (RECONNECT_MAX_MS - RECONNECT_MIN_MS));
  }
}
