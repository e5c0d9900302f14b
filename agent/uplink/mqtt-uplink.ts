/**
 * Brings what waits in the record buffer to the gateway: strictly oldest first, QoS 1, a bounded
 * window, and nothing forgotten before its PUBACK. A broken connection is tried again for ever,
 * with full-jitter back-off.
 */
import type { ConnectionOptions } from "node:tls";
import type { StatusMessage } from "../../protocol/topics.ts";
import { Backoff, pause } from "../../runtime/backoff.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { RecordBuffer } from "../buffer/record-buffer.ts";
import type { TimeListener } from "./time-exchange.ts";
import { type UplinkMeters, uplinkMeters } from "./uplink-meters.ts";
import { type SessionEnd, UplinkSession } from "./uplink-session.ts";

export interface MqttUplinkOptions {
  /** `mqtt://host:port` of the gateway, or mqtts://. */
  readonly url: string;
  readonly device: string;
  readonly password?: string | undefined;
  /** For mqtts://; asked before each connection, as certificates are renewed meanwhile. */
  readonly tls?: (() => ConnectionOptions) | undefined;
  readonly buffer: RecordBuffer;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly publishBytes: number;
  readonly windowBytes: number;
  readonly statusSeconds: number;
  readonly status: () => StatusMessage;
  /** Wants to hear what time it is at the gateway. */
  readonly time?: TimeListener | undefined;
  /** Between connections; 250 ms to 30 s unless given. */
  readonly backoff?: Backoff;
  readonly connectTimeoutMs?: number;
  /** A gateway that takes publishes and acknowledges none for so long is left. */
  readonly ackTimeoutMs?: number;
  readonly random?: () => number;
}

export class MqttUplink {
  readonly #options: MqttUplinkOptions;
  readonly #backoff: Backoff;
  readonly #meters: UplinkMeters;
  readonly #stop = new AbortController();
  #session: UplinkSession | undefined;
  #loop: Promise<void> | undefined;
  #statusTimer: NodeJS.Timeout | undefined;

  constructor(options: MqttUplinkOptions) {
    this.#options = options;
    this.#backoff = options.backoff ?? new Backoff();
    this.#meters = uplinkMeters(options.metrics, () => this.connected);
  }

  get connected(): boolean {
    return this.#session?.connected ?? false;
  }

  /** Resolves at once: the gateway may be reached much later. */
  async start(): Promise<void> {
    this.#loop ??= this.#run();
    const { statusSeconds, status } = this.#options;
    this.#statusTimer ??= setInterval(() => this.#session?.publishStatus(status()), statusSeconds * 1_000);
  }

  async close(): Promise<void> {
    clearInterval(this.#statusTimer);
    this.#stop.abort();
    this.#session?.end({ reason: "the agent ends" });
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { log } = this.#options;
    let lastReason: string | undefined;
    while (!this.#stop.signal.aborted) {
      const end = await this.#connect();
      if (this.#stop.signal.aborted) return;
      const waitMs = this.#waitMs(end);
      // The same reason over and over is one line, not a thousand.
      if (end.reason !== lastReason) log.warn({ reason: end.reason, waitMs }, "uplink ended, trying again");
      lastReason = end.reason;
      await pause(waitMs, this.#stop.signal);
    }
  }

  #waitMs(end: SessionEnd): number {
    if (end.retryAfterMs === undefined) return this.#backoff.nextMs();
    // At least half of what was asked; the rest at random, so that agents do not come back together.
    return end.retryAfterMs * (0.5 + (this.#options.random ?? Math.random)());
  }

  async #connect(): Promise<SessionEnd> {
    const { url, device, password, buffer, clock, publishBytes, windowBytes } = this.#options;
    this.#meters.connecting();
    this.#session = new UplinkSession({
      url,
      device,
      password,
      tls: this.#options.tls?.(),
      buffer,
      clock,
      meters: this.#meters,
      time: this.#options.time,
      publishBytes,
      windowBytes,
      connectTimeoutMs: this.#options.connectTimeoutMs ?? 10_000,
      ackTimeoutMs: this.#options.ackTimeoutMs ?? 60_000,
      onProgress: () => this.#backoff.reset(),
    });
    try {
      return await this.#session.run();
    } catch (error) {
      return { reason: describeError(error) };
    } finally {
      this.#session = undefined;
    }
  }
}
