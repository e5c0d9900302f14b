/**
 * One MQTT connection to the gateway, from CONNECT to its end. Whatever is not acknowledged when it
 * ends is read from the buffer again by the next one: mqtt.js' own store is never used for resending.
 */
import type { ConnectionOptions } from "node:tls";
import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import { epochName } from "../../protocol/frame.ts";
import { type ControlMessage, topicOf } from "../../protocol/topics.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { RecordBuffer } from "../buffer/record-buffer.ts";
import { FrameWindow } from "./frame-window.ts";
import { TimeExchange, type TimeListener } from "./time-exchange.ts";
import type { UplinkMeters } from "./uplink-meters.ts";

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
  readonly publishBytes: number;
  readonly windowBytes: number;
  readonly connectTimeoutMs: number;
  readonly ackTimeoutMs: number;
  /** Called when the gateway acknowledged something: the connection is worth something. */
  readonly onProgress: () => void;
}

/** How a session ended. */
export interface SessionEnd {
  readonly reason: string;
  /** Asked for by the gateway. */
  readonly retryAfterMs?: number;
}

export class UplinkSession {
  readonly #options: SessionOptions;
  readonly #window: FrameWindow;
  readonly #end = new AbortController();
  readonly #time: TimeExchange | undefined;
  #client: MqttClient | undefined;
  #ended: SessionEnd | undefined;
  /** Acknowledgements reach the buffer one behind another. */
  #acks: Promise<void> = Promise.resolve();
  #announced = new Set<bigint>();
  #roomWanted = (): void => {};

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#window = new FrameWindow(options.windowBytes);
    const { device, clock, time } = options;
    if (time !== undefined) this.#time = new TimeExchange(device, clock, time);
  }

  get connected(): boolean {
    return this.#client?.connected === true;
  }

  /** Runs until the connection ends or `end` is called. Never rejects for what the network does. */
  async run(): Promise<SessionEnd> {
    const client = mqtt.connect(this.#options.url, this.#clientOptions());
    this.#client = client;
    client.on("error", (error) => this.end({ reason: error.message }));
    client.on("close", () => this.end({ reason: "the connection broke" }));
    client.on("message", (topic, payload) => this.#message(client, topic, payload));
    try {
      await this.#whenConnected(client);
      if (this.#end.signal.aborted) throw new Error("ended");
      await client.subscribeAsync(topicOf(this.#options.device, "control"), { qos: 0 });
      this.#time?.ask(client);
      await this.#send(client);
    } catch (error) {
      if (!this.#end.signal.aborted)
        this.end({ reason: error instanceof Error ? error.message : String(error) });
    }
    await this.#acks.catch(() => {});
    await this.#leave(client);
    return this.#ended ?? { reason: "ended" };
  }

  end(how: SessionEnd): void {
    this.#ended ??= how;
    this.#end.abort();
    this.#roomWanted();
  }

  /** QoS 0, and only where it goes out at once: a status that comes late is worth nothing. */
  publishStatus(status: unknown): void {
    if (this.#client?.connected !== true) return;
    this.#client.publish(topicOf(this.#options.device, "status"), JSON.stringify(status), { qos: 0 });
  }

  #clientOptions(): IClientOptions {
    const { device, password, tls, connectTimeoutMs } = this.#options;
    return {
      ...(tls as IClientOptions | undefined),
      clientId: `headwater-${device}`,
      protocolVersion: 4,
      clean: true,
      keepalive: 15,
      reconnectPeriod: 0,
      connectTimeout: connectTimeoutMs,
      queueQoSZero: false,
      resubscribe: false,
      username: device,
      ...(password !== undefined && { password }),
    };
  }

  /** Resolves when the gateway has let us in, or when the session ends before. */
  #whenConnected(client: MqttClient): Promise<void> {
    return new Promise((resolve) => {
      client.once("connect", () => resolve());
      this.#end.signal.addEventListener("abort", () => resolve(), { once: true });
    });
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
    if (message?.type !== "busy") return;
    const asked = Number(message.retryAfterMs);
    const retryAfterMs = Number.isFinite(asked) ? Math.min(60_000, Math.max(100, asked)) : 1_000;
    this.#options.meters.busy();
    this.end({ reason: `the gateway is busy: ${String(message.reason).slice(0, 200)}`, retryAfterMs });
  }

  async #send(client: MqttClient): Promise<void> {
    const { buffer, publishBytes } = this.#options;
    await this.#announceDrained(client);
    while (!this.#end.signal.aborted) {
      const { room } = this.#window;
      if (room === 0) {
        await this.#whenRoom();
        continue;
      }
      const frames = await buffer.read(this.#window.last, Math.min(publishBytes, room));
      if (this.#end.signal.aborted) return;
      if (frames.length === 0) {
        await buffer.waiting(this.#window.last, this.#end.signal);
        continue;
      }
      const payload =
        frames.length === 1 ? frames[0]!.bytes : Buffer.concat(frames.map((frame) => frame.bytes));
      const handle = this.#window.add(frames, payload.length, this.#options.clock.monotonicMs());
      this.#options.meters.sent(frames.length, payload.length, this.#window.bytes);
      client.publish(topicOf(this.#options.device, "frames"), payload, { qos: 1 }, (error) => {
        if (error) this.end({ reason: error.message });
        else this.#acknowledged(client, handle, frames.length);
      });
    }
  }

  /** Waits for an acknowledgement, and gives the connection up when none comes for too long. */
  async #whenRoom(): Promise<void> {
    const { clock, ackTimeoutMs } = this.#options;
    const waitedMs = clock.monotonicMs() - (this.#window.oldestSentMs ?? clock.monotonicMs());
    await new Promise<void>((resolve) => {
      const timer = setTimeout(
        () => {
          this.end({ reason: `no acknowledgement for ${ackTimeoutMs} ms` });
        },
        Math.max(0, ackTimeoutMs - waitedMs),
      );
      this.#roomWanted = () => {
        clearTimeout(timer);
        this.#roomWanted = () => {};
        resolve();
      };
      if (this.#end.signal.aborted) this.#roomWanted();
    });
  }

  #acknowledged(client: MqttClient, handle: object, frames: number): void {
    const done = this.#window.acknowledge(handle);
    this.#options.meters.acknowledged(frames, this.#window.bytes);
    this.#options.onProgress();
    this.#roomWanted();
    if (done.length === 0) return;
    this.#acks = this.#acks.then(async () => {
      for (const { epoch, sequence } of done) await this.#options.buffer.ack(epoch, sequence);
      await this.#announceDrained(client);
    });
    this.#acks.catch((error: unknown) => {
      this.end({ reason: error instanceof Error ? error.message : String(error) });
    });
  }

  /** Tells the gateway of epochs that are wholly acknowledged; they are forgotten after its PUBACK. */
  async #announceDrained(client: MqttClient): Promise<void> {
    const { buffer, device } = this.#options;
    const fresh = (await buffer.drainedEpochs()).filter((epoch) => !this.#announced.has(epoch));
    if (fresh.length === 0) return;
    for (const epoch of fresh) this.#announced.add(epoch);
    const message = JSON.stringify({ epochs: fresh.map(epochName) });
    client.publish(topicOf(device, "drained"), message, { qos: 1 }, (error) => {
      if (error) return this.end({ reason: error.message });
      this.#acks = this.#acks.then(async () => {
        for (const epoch of fresh) await buffer.forgetEpoch(epoch);
      });
      this.#acks.catch((failure: unknown) => this.end({ reason: String(failure) }));
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
