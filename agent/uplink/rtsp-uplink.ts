/**
 * Brings footage from the buffer to the gateway: one RTSP session for each camera that has units
 * waiting, also for cameras that are no longer configured. A camera that is stuck stops no other.
 *
 *   footage buffer ─read→ lane per camera ─RECORD /<device>/<camera>→ gateway ─persisted→ ack
 */
import type { ConnectionOptions } from "node:tls";
import type { Clock } from "../../runtime/clock.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { FootageBuffer } from "../buffer/footage-buffer.ts";
import { FootageLane } from "./footage-lane.ts";
import type { LinkRules } from "./link-rules.ts";

export interface RtspUplinkOptions {
  readonly config: {
    /** rtsp://host:port of the gateway, or rtsps://; a path before the device's is kept. */
    readonly url: string;
    readonly device: string;
    /** The device is the user's name. Absent: the gateway asks for none. */
    readonly password?: string | undefined;
    /** For rtsps://; asked before each connection, as certificates are renewed meanwhile. */
    readonly tls?: (() => ConnectionOptions) | undefined;
  };
  readonly buffer: FootageBuffer;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** For the back-off; Math.random unless told. */
  readonly random?: () => number;
  /** How long the gateway may take to store a unit that it has, before it is sent again; 30 s unless told. */
  readonly persistTimeoutMs?: number;
  /** When footage may go, and how much a second; shared with the records. */
  readonly rules?: LinkRules | undefined;
  /** How a connection that is open on this side alone is found; within 30 s unless told. */
  readonly silence?: { readonly quietMs: number; readonly answerMs: number } | undefined;
}

export class RtspUplink {
  readonly #options: RtspUplinkOptions;
  readonly #closing = new AbortController();
  readonly #lanes = new Map<string, Promise<void>>();
  #running: Promise<void> | undefined;

  constructor(options: RtspUplinkOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    this.#running ??= this.#run();
  }

  /** What was sent and is not known to be persisted is sent again by the next start. Safe to call twice. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
    await Promise.all(this.#lanes.values());
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    const known = new Set<string>();
    while (!signal.aborted) {
      for (const camera of await this.#options.buffer.cameras()) {
        if (known.has(camera)) continue;
        known.add(camera);
        this.#lanes.set(camera, this.#laneOf(camera).run(signal));
      }
      await this.#options.buffer.waitingOther(known, signal);
    }
  }

  #laneOf(camera: string): FootageLane {
    const { config, buffer, clock, log, metrics, random, persistTimeoutMs, rules, silence } = this.#options;
    const { password, device, tls } = config;
    return new FootageLane({
      camera,
      url: `${config.url.replace(/\/+$/, "")}/${encodeURIComponent(device)}/${encodeURIComponent(camera)}`,
      credentials: password === undefined ? undefined : { username: device, password },
      tls,
      buffer,
      clock,
      log,
      metrics,
      random,
      persistTimeoutMs: persistTimeoutMs ?? 30_000,
      rules,
      silence,
    });
  }
}
