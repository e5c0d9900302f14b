/**
 * Brings what waits in the record buffer to the gateway: oldest first, or new records of live-first
 * streams beside the old ones; QoS 1, a bounded window, and nothing forgotten before its PUBACK. A
 * broken connection is tried again for ever, with full-jitter back-off.
 */
import type { ConnectionOptions } from "node:tls";
import type { StatusMessage } from "../../protocol/topics.ts";
import { Backoff, pause } from "../../runtime/backoff.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { RecordBuffer } from "../buffer/record-buffer.ts";
import type { UplinkProgress } from "./lanes.ts";
import type { UplinkRules } from "./link-rules.ts";
import { type Compression, PublishPacker } from "./publish-packer.ts";
import { ReconnectWaits } from "./reconnect.ts";
import type { TimeListener } from "./time-exchange.ts";
import { type UplinkMeters, uplinkMeters } from "./uplink-meters.ts";
import { type SessionEnd, type SilenceLimits, UplinkSession } from "./uplink-session.ts";
import { UplinkWatch, type UplinkWork } from "./uplink-watch.ts";

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
  /** Streams whose new records do not wait behind old ones; none unless given. */
  readonly liveFirst?: readonly string[];
  /** What may go now, and how fast; everything unless given. */
  readonly rules?: UplinkRules | undefined;
  /** Whether publishes are compressed; "auto" unless given. */
  readonly compression?: Compression;
  readonly publishBytes: number;
  readonly windowBytes: number;
  readonly statusSeconds: number;
  readonly status: () => StatusMessage;
  /** Wants to hear what time it is at the gateway. */
  readonly time?: TimeListener | undefined;
  /** Between connections; up to 1 s at first, up to 30 s later, unless given. */
  readonly backoff?: Backoff;
  readonly connectTimeoutMs?: number;
  /** A gateway that takes publishes and acknowledges none for so long is left. */
  readonly ackTimeoutMs?: number;
  /** How a connection that is open on this side alone is found; within 30 s unless told. */
  readonly silence?: SilenceLimits;
  /** Of this device's boot until now; undefined when that is not known. */
  readonly sinceBootMs?: number | undefined;
  readonly random?: () => number;
}

/** A farm whose gateway is started again comes back over a second, and not within a quarter of one. */
const FIRST_CEILING_MS = 1_000;
/** Behind the gateway's word. */
const CONTESTED_MS = 120_000;
const TELL_CONTESTED_MS = 3_600_000;
/** What held for so long was well: how it ends is told, also where it ends as the last one did. */
const STEADY_MS = 60_000;

export class MqttUplink {
  readonly #options: MqttUplinkOptions;
  readonly #waits: ReconnectWaits;
  readonly #meters: UplinkMeters;
  readonly #progress: UplinkProgress = { liveTo: undefined };
  readonly #packer: PublishPacker;
  readonly #watch: UplinkWatch;
  readonly #stop = new AbortController();
  #sent = { frameBytes: 0, wireBytes: 0 };
  #contestedMs = Number.NEGATIVE_INFINITY;
  #contestedToldMs = Number.NEGATIVE_INFINITY;
  /** The log's last word of it is that it is connected. */
  #isTold = false;
  #session: UplinkSession | undefined;
  #loop: Promise<void> | undefined;
  #statusTimer: NodeJS.Timeout | undefined;
  /** As it was told last: once is enough to know. */
  #statusFault: string | undefined;
  #rulesChange: (() => void) | undefined;

  constructor(options: MqttUplinkOptions) {
    this.#options = options;
    const backoff = options.backoff ?? new Backoff(FIRST_CEILING_MS, 30_000, options.random);
    this.#waits = new ReconnectWaits(backoff, options.random);
    this.#packer = new PublishPacker(options.compression ?? "auto", options.metrics);
    const split = (): boolean => this.#session?.lanes?.split ?? false;
    this.#watch = new UplinkWatch({ clock: options.clock, waiting: () => options.buffer.usage(), split });
    const meters = uplinkMeters(options.metrics, () => ({
      connected: this.connected,
      inFlightBytes: this.#session?.lanes?.bytes ?? 0,
      split: split(),
    }));
    this.#meters = {
      ...meters,
      sent: (frames, frameBytes, wireBytes) => {
        meters.sent(frames, frameBytes, wireBytes);
        const sent = this.#sent;
        this.#sent = { frameBytes: sent.frameBytes + frameBytes, wireBytes: sent.wireBytes + wireBytes };
      },
      acknowledged: (lane, frames, latencyUs) => {
        meters.acknowledged(lane, frames, latencyUs);
        if (lane === "live") this.#watch.liveAcknowledged(latencyUs / 1_000);
      },
    };
  }

  get connected(): boolean {
    return this.#session?.connected ?? false;
  }

  /** How far it is with what waits. */
  work(): UplinkWork {
    const isContested = this.#options.clock.monotonicMs() - this.#contestedMs < CONTESTED_MS;
    return { ...this.#watch.work(), sent: this.#sent, ...(isContested && { contested: true }) };
  }

  #contested(): void {
    const { clock, log } = this.#options;
    const nowMs = clock.monotonicMs();
    this.#contestedMs = nowMs;
    if (nowMs - this.#contestedToldMs < TELL_CONTESTED_MS) return;
    this.#contestedToldMs = nowMs;
    log.warn(
      {},
      "connections with this device's identity end one another: another device has a copy of it, or the link breaks again and again unseen",
    );
  }

  /** Resolves at once: the gateway may be reached much later. */
  async start(): Promise<void> {
    this.#watch.start();
    this.#loop ??= this.#run();
    this.#rulesChange ??= this.#options.rules?.onChange(() => this.#tellStatusLater());
    this.#tellStatusLater();
  }

  /** And again and again; how often depends on the link's mode. */
  #tellStatusLater(): void {
    const { rules, statusSeconds } = this.#options;
    clearTimeout(this.#statusTimer);
    const seconds = rules?.statusSeconds ?? statusSeconds;
    this.#statusTimer = setTimeout(() => {
      this.#tellStatus();
      this.#tellStatusLater();
    }, seconds * 1_000);
  }

  /** A status that cannot be had now is asked for again the next time: records go without one, too. */
  #tellStatus(): void {
    const { status, log } = this.#options;
    try {
      this.#session?.publishStatus(status());
    } catch (error) {
      const reason = describeError(error);
      if (reason !== this.#statusFault) log.warn({ reason }, "the gateway does not hear how this agent is");
      this.#statusFault = reason;
    }
  }

  async close(): Promise<void> {
    clearTimeout(this.#statusTimer);
    this.#watch.close();
    this.#rulesChange?.();
    this.#stop.abort();
    this.#session?.end({ reason: "the agent ends" });
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { log } = this.#options;
    let lastReason: string | undefined;
    await pause(this.#waits.firstMs(this.#options.sinceBootMs), this.#stop.signal);
    while (!this.#stop.signal.aborted) {
      const end = await this.#connect();
      if (this.#stop.signal.aborted) return;
      const heldMs = end.heldMs ?? 0;
      const waitMs = Math.round(this.#waits.nextMs(heldMs, end.retryAfterMs));
      // The same reason over and over is one line, not a thousand; but "connected" is not the last word of a link that is away.
      if (end.reason !== lastReason || heldMs >= STEADY_MS || (this.#isTold && heldMs === 0)) {
        log.warn({ reason: end.reason, waitMs }, "uplink ended, trying again");
        this.#isTold = false;
      }
      lastReason = end.reason;
      await pause(waitMs, this.#stop.signal);
    }
  }

  #connected(): void {
    if (this.#isTold) return;
    this.#isTold = true;
    this.#options.log.info({ url: this.#options.url }, "uplink connected");
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
      progress: this.#progress,
      liveFirst: new Set(this.#options.liveFirst),
      rules: this.#options.rules,
      packer: this.#packer,
      publishBytes,
      windowBytes,
      connectTimeoutMs: this.#options.connectTimeoutMs ?? 10_000,
      ackTimeoutMs: this.#options.ackTimeoutMs ?? 60_000,
      silence: this.#options.silence,
      probing: this.#waits.beginsWithLittle,
      onConnected: () => this.#connected(),
      onProgress: () => this.#waits.progress(),
      onContested: () => this.#contested(),
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
