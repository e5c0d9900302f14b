/**
 * One MQTT connection to the gateway, from CONNECT to its end. Whatever is not acknowledged when it
 * ends is read from the buffer again by the next one: mqtt.js' own store is never used for resending.
 */
import type { Socket } from "node:net";
import type { ConnectionOptions } from "node:tls";
import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import { type Epoch, epochName } from "../../protocol/frame.ts";
import { BROTLI } from "../../protocol/publish-envelope.ts";
import { type ControlMessage, topicOf } from "../../protocol/topics.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { RecordBuffer } from "../buffer/record-buffer.ts";
import { Lanes, type UplinkProgress } from "./lanes.ts";
import type { UplinkRules } from "./link-rules.ts";
import { outgoing } from "./outgoing.ts";
import type { PublishPacker } from "./publish-packer.ts";
import { type SilenceOptions, SilenceWatch } from "./silence.ts";
import { TimeExchange, type TimeListener } from "./time-exchange.ts";
import type { UplinkMeters } from "./uplink-meters.ts";
import { Wait } from "./wait.ts";

export interface SessionOptions {
  readonly url: string;
  readonly device: string;
  readonly password: string | undefined;
  /** For mqtts://: what proves device and gateway to one another. */
  readonly tls?: ConnectionOptions | undefined;
  readonly buffer: RecordBuffer;
  readonly clock: Clock;
  readonly meters: UplinkMeters;
  /** Wants to hear what time it is at the gateway. */
  readonly time?: TimeListener | undefined;
  readonly progress: UplinkProgress;
  /** Streams whose new frames do not wait behind old ones. */
  readonly liveFirst: ReadonlySet<string>;
  readonly rules: UplinkRules | undefined;
  /** Nothing was acknowledged on the last connection: this one begins with little. */
  readonly probing: boolean;
  readonly packer: PublishPacker;
  readonly publishBytes: number;
  readonly windowBytes: number;
  readonly connectTimeoutMs: number;
  readonly ackTimeoutMs: number;
  /** How a connection that is open on this side alone is found; within 30 s unless told. */
  readonly silence: SilenceLimits | undefined;
  /** Called once, when the gateway has let it in. */
  readonly onConnected: () => void;
  /** Called when the gateway acknowledged something: the connection is worth something. */
  readonly onProgress: () => void;
  /** The gateway says that others with this device's identity end its connections. */
  readonly onContested: () => void;
}

export type SilenceLimits = Pick<SilenceOptions, "quietMs" | "answerMs">;

/** How a session ended. */
export interface SessionEnd {
  readonly reason: string;
  /** For how long it was connected; 0 when it never was. */
  readonly heldMs?: number;
  /** Asked for by the gateway. */
  readonly retryAfterMs?: number;
}

/** MQTT 3.1.1 §3.1.2.10: the gateway ends a connection on which nothing came for 1.5 times as long. */
const KEEP_ALIVE_SECONDS = 15;
/** Where each byte costs nobody is asked for a sign of life so often while nothing is under way. */
const METERED_KEEP_ALIVE_SECONDS = 60;
const METERED_QUIET_MS = 50_000;
/** mqtt.js puts its pings off for as long as anything is sent, and so never finds a link that is dead. */
const NO_TIMERS = { set: () => 0, clear: () => {} };
/** Epochs in one message: a gateway takes twice as many. */
const MAX_ANNOUNCED = 500;
/** Of a publish beside its payload, about. */
const PUBLISH_HEAD_BYTES = 64;

export class UplinkSession {
  readonly #options: SessionOptions;
  readonly #end = new AbortController();
  readonly #time: TimeExchange | undefined;
  #client: MqttClient | undefined;
  #ended: SessionEnd | undefined;
  #lanes: Lanes | undefined;
  #forgotten: Promise<void> = Promise.resolve();
  #announced = new Set<bigint>();
  /** The gateway of this connection takes envelopes; the next one may be another, or older. */
  #accepts = false;
  #connectedMs: number | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
    const { device, clock, time } = options;
    if (time !== undefined) this.#time = new TimeExchange(device, clock, time);
  }

  get connected(): boolean {
    return this.#client?.connected === true;
  }

  /** Undefined before the gateway has let us in. */
  get lanes(): Lanes | undefined {
    return this.#lanes;
  }

  /** Runs until the connection ends or `end` is called. Never rejects for what the network does. */
  async run(): Promise<SessionEnd> {
    const client = mqtt.connect(this.#options.url, this.#clientOptions());
    this.#client = client;
    client.on("error", (error) => this.end({ reason: error.message }));
    client.on("close", () => this.end({ reason: "the connection broke" }));
    client.on("message", (topic, payload) => this.#message(client, topic, payload));
    const silence = this.#watchSilence(client);
    client.on("packetreceive", () => silence.heard());
    try {
      await this.#whenConnected(client);
      if (this.#end.signal.aborted) throw new Error("ended");
      this.#connectedMs = this.#options.clock.monotonicMs();
      this.#options.onConnected();
      silence.start();
      await this.#subscribe(client);
      if (this.#end.signal.aborted) throw new Error("ended");
      this.#time?.start(client);
      await this.#send(client);
    } catch (error) {
      if (!this.#end.signal.aborted) this.#fail(error);
    }
    silence.close();
    await this.#forgotten.catch(() => {});
    await this.#leave(client);
    const { clock } = this.#options;
    const heldMs = this.#connectedMs === undefined ? 0 : clock.monotonicMs() - this.#connectedMs;
    return { ...(this.#ended ?? { reason: "ended" }), heldMs };
  }

  end(how: SessionEnd): void {
    this.#ended ??= how;
    this.#end.abort();
  }

  /** QoS 0, and only where it goes out at once: a status that comes late is worth nothing. */
  publishStatus(status: unknown): void {
    if (this.#client?.connected !== true) return;
    const message = JSON.stringify(status);
    this.#charge(message);
    this.#client.publish(topicOf(this.#options.device, "status"), message, { qos: 0 });
  }

  #clientOptions(): IClientOptions {
    const { device, password, tls, connectTimeoutMs } = this.#options;
    return {
      ...(tls as IClientOptions | undefined),
      clientId: `headwater-${device}`,
      protocolVersion: 4,
      clean: true,
      keepalive: this.#isMetered ? METERED_KEEP_ALIVE_SECONDS : KEEP_ALIVE_SECONDS,
      timerVariant: NO_TIMERS,
      reconnectPeriod: 0,
      connectTimeout: connectTimeoutMs,
      queueQoSZero: false,
      resubscribe: false,
      username: device,
      ...(password !== undefined && { password }),
    };
  }

  get #isMetered(): boolean {
    return (this.#options.rules?.mode ?? "full") !== "full";
  }

  /** It goes in any case. */
  #charge(message: string): void {
    this.#options.rules?.pacer.charge(message.length + PUBLISH_HEAD_BYTES);
  }

  #watchSilence(client: MqttClient): SilenceWatch {
    const { clock, silence } = this.#options;
    const isIdle = (): boolean => this.#lanes?.oldestSentMs === undefined;
    return new SilenceWatch({
      clock,
      ask: () => client.sendPing(),
      silent: (forMs) => this.end({ reason: `nothing came from the gateway for ${Math.round(forMs)} ms` }),
      outgoing: () => outgoing(client.stream as Socket),
      idle: this.#isMetered ? { quietMs: METERED_QUIET_MS, isIdle } : undefined,
      ...silence,
    });
  }

  /** Resolves when the gateway has let us in, or when the session ends before. */
  #whenConnected(client: MqttClient): Promise<void> {
    return new Promise((resolve) => {
      client.once("connect", () => resolve());
      this.#end.signal.addEventListener("abort", () => resolve(), { once: true });
    });
  }

  /**
   * Resolves when we hear the control topic, or when the session ends before. A gateway that answers pings and
   * not this is as good as none: a `busy` would not be heard, and nothing is sent before.
   */
  async #subscribe(client: MqttClient): Promise<void> {
    const { device, connectTimeoutMs } = this.#options;
    const wait = new Wait(this.#end.signal, connectTimeoutMs);
    let isAnswered = false;
    const subscribed = client.subscribeAsync(topicOf(device, "control"), { qos: 0 }).then(() => {
      isAnswered = true;
    });
    subscribed.catch(() => {});
    await Promise.race([subscribed, wait.over]).finally(wait.end);
    if (!isAnswered && !this.#end.signal.aborted)
      throw new Error(`the gateway has not confirmed a subscription for ${connectTimeoutMs} ms`);
  }

  #message(client: MqttClient, topic: string, payload: Buffer): void {
    if (topic !== topicOf(this.#options.device, "control") || payload.length > 65_536) return;
    let message: Partial<ControlMessage>;
    try {
      message = JSON.parse(payload.toString()) as Partial<ControlMessage>;
    } catch {
      return;
    }
    if (message?.type === "time") this.#time?.answered(client, message);
    if (message?.type === "hello" && message.contested === true) this.#options.onContested();
    if (message?.type === "hello" && Array.isArray(message.accepts))
      this.#accepts = message.accepts.includes(BROTLI);
    if (message?.type !== "busy") return;
    const asked = Number(message.retryAfterMs);
    const retryAfterMs = Number.isFinite(asked) ? Math.min(60_000, Math.max(100, asked)) : 1_000;
    this.#options.meters.busy();
    this.end({ reason: `the gateway is busy: ${String(message.reason).slice(0, 200)}`, retryAfterMs });
  }

  async #send(client: MqttClient): Promise<void> {
    const { device } = this.#options;
    await this.#announceDrained(client);
    const topic = topicOf(device, "frames");
    this.#lanes = new Lanes({
      ...this.#options,
      packer: () => this.#options.packer.lane(() => this.#accepts),
      publish: (payload, acknowledged) => {
        client.publish(topic, payload, { qos: 1 }, (error) => {
          if (error) this.end({ reason: error.message });
          else acknowledged();
        });
      },
      onForgotten: () => this.#announceDrained(client),
      onFailure: (error) => this.#fail(error),
    });
    const stopWatching = this.#watchAnswers(client, this.#lanes);
    try {
      await this.#lanes.run(this.#end.signal);
    } finally {
      stopWatching();
    }
  }

  #fail(error: unknown): void {
    this.end({ reason: error instanceof Error ? error.message : String(error) });
  }

  /**
   * Gives the connection up when an acknowledgement does not come for too long, though the gateway lives;
   * not while the kernel still gets rid of what is under way. @returns ends that
   */
  #watchAnswers(client: MqttClient, lanes: Lanes): () => void {
    const { clock, ackTimeoutMs } = this.#options;
    const watch = new SilenceWatch({
      clock,
      ask: () => {},
      silent: () => this.end({ reason: `no acknowledgement for ${ackTimeoutMs} ms` }),
      outgoing: () => outgoing(client.stream as Socket),
      quietMs: ackTimeoutMs / 2,
      answerMs: ackTimeoutMs / 2,
    });
    let sentMs: number | undefined;
    const look = setInterval(
      () => {
        const { oldestSentMs } = lanes;
        // Nothing is under way, or it is not what it was.
        if (oldestSentMs === undefined || oldestSentMs !== sentMs) watch.heard();
        sentMs = oldestSentMs;
      },
      Math.min(1_000, ackTimeoutMs / 8),
    );
    watch.start();
    return () => {
      clearInterval(look);
      watch.close();
    };
  }

  /**
   * Tells the gateway of epochs that are wholly acknowledged; they are forgotten after its PUBACK. Frames
   * that were dropped while they were under way come first: the gateway may have had them before, and
   * would take them for new ones.
   */
  async #announceDrained(client: MqttClient): Promise<void> {
    const drained = await this.#options.buffer.drainedEpochs();
    const fresh = drained.filter(
      (epoch) => !this.#announced.has(epoch) && this.#lanes?.carries(epoch) !== true,
    );
    for (let at = 0; at < fresh.length; at += MAX_ANNOUNCED)
      this.#announce(client, fresh.slice(at, at + MAX_ANNOUNCED));
  }

  #announce(client: MqttClient, epochs: readonly Epoch[]): void {
    const { buffer, device } = this.#options;
    for (const epoch of epochs) this.#announced.add(epoch);
    const message = JSON.stringify({ epochs: epochs.map(epochName) });
    this.#charge(message);
    client.publish(topicOf(device, "drained"), message, { qos: 1 }, (error) => {
      if (error) return this.end({ reason: error.message });
      this.#forgotten = this.#forgotten.then(async () => {
        for (const epoch of epochs) await buffer.forgetEpoch(epoch);
      });
      this.#forgotten.catch((failure: unknown) => this.#fail(failure));
    });
  }

  /** Says DISCONNECT where it can; what mqtt.js still holds goes with it. */
  async #leave(client: MqttClient): Promise<void> {
    client.removeAllListeners("message");
    await new Promise<void>((resolve) => {
      client.end(true, {}, () => resolve());
    });
    client.stream?.destroy();
  }
}
