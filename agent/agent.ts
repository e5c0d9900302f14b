/**
 * The program on the device: builds the parts and joins them.
 *
 *   sources ─→ record buffer ─→ MQTT uplink ─→ gateway
 *   cameras ─→ footage buffer ─→ RTSP uplink ─→ gateway
 *
 * What only some configs need is loaded only for them: a Pi Zero has little memory.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { AgentConfig } from "../config/agent-config.ts";
import type { StatusMessage } from "../protocol/topics.ts";
import type { Clock } from "../runtime/clock.ts";
import { describeError } from "../runtime/errors.ts";
import type { Log } from "../runtime/log.ts";
import type { Metrics } from "../runtime/metrics.ts";
import { VERSION } from "../runtime/version.ts";
import type { FootageBuffer, FootageGap } from "./buffer/footage-buffer.ts";
import { openLevelRecordBuffer } from "./buffer/level-record-buffer.ts";
import type { RecordBuffer } from "./buffer/record-buffer.ts";
import { type AgentStatus, HealthServer } from "./health.ts";
import { gapRecord } from "./sources/reading-record.ts";
import type { Source } from "./sources/source.ts";
import { MqttUplink } from "./uplink/mqtt-uplink.ts";

export interface AgentOptions {
  readonly config: AgentConfig;
  /** Absolute; belongs to this agent alone. */
  readonly dataDir: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Called once when the agent cannot go on, such as after a failed write. It should be started again. */
  readonly onFailure: (error: Error) => void;
}

interface Part {
  start(): Promise<void>;
  close(): Promise<void>;
}

export class Agent {
  readonly #options: AgentOptions;
  readonly #sources: Source[] = [];
  readonly #health: HealthServer;
  readonly #faults: string[] = [];
  readonly #started: Part[] = [];
  #records: RecordBuffer | undefined;
  #footage: FootageBuffer | undefined;
  #uplink: MqttUplink | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: AgentOptions) {
    this.#options = options;
    const { host, port } = options.config.http;
    this.#health = new HealthServer({ host, port, metrics: options.metrics, status: () => this.status() });
  }

  /** The port of the status page. */
  get httpPort(): number {
    return this.#health.port;
  }

  /** @throws HeadwaterError for a port that is taken or a folder that cannot be used; nothing is left running. */
  async start(): Promise<void> {
    try {
      await this.#start(this.#health);
      await this.#openBuffers();
      for (const source of await this.#makeSources()) {
        this.#sources.push(source);
        await this.#start(source);
      }
      for (const uplink of await this.#makeUplinks()) await this.#start(uplink);
    } catch (error) {
      await this.close();
      throw error;
    }
    this.#options.log.info({ device: this.#options.config.device, httpPort: this.httpPort }, "agent runs");
  }

  async #start(part: Part): Promise<void> {
    this.#started.push(part);
    await part.start();
  }

  async #openBuffers(): Promise<void> {
    const { config, dataDir, clock, log, metrics } = this.#options;
    this.#records = await openLevelRecordBuffer({
      dir: join(dataDir, "records"),
      device: config.device,
      clock,
      log: log.child({ part: "record buffer" }),
      metrics,
      ...config.buffer,
      onFailure: (error) => this.#fail(error),
    });
    // Footage that an earlier config left is still sent.
    const folder = join(dataDir, "footage");
    if (!config.sources.some(({ type }) => type === "camera") && !existsSync(folder)) return;
    const { openLevelFootageBuffer } = await import("./buffer/level-footage-buffer.ts");
    this.#footage = await openLevelFootageBuffer({
      dir: folder,
      clock,
      log: log.child({ part: "footage buffer" }),
      metrics,
      maxBytes: config.video.maxBytes,
      onGap: (gap) => this.#recordFootageGap(gap),
    });
  }

  #fail(error: Error): void {
    this.#faults.push(describeError(error));
    this.#options.onFailure(error);
  }

  /** Lost footage is told where all gaps are told. Its stream is the camera. */
  #recordFootageGap({ camera, fromUs, toUs, reason }: FootageGap): void {
    const { device } = this.#options.config;
    const gap = gapRecord(device, { sensor: camera, stream: `video.${camera}`, reason, fromUs, toUs });
    this.#records?.append([gap]).catch((error: unknown) => {
      this.#options.log.error(
        { camera, error: describeError(error) },
        "a gap in the footage is not recorded",
      );
    });
  }

  async #makeSources(): Promise<Source[]> {
    const { config, clock, log, metrics } = this.#options;
    const shared = { device: config.device, clock, metrics };
    const sources: Source[] = [];
    for (const source of config.sources) {
      const options = { ...shared, log: log.child({ source: source.name }) };
      if (source.type === "serial") {
        const { SerialSource } = await import("./sources/serial.ts");
        sources.push(new SerialSource({ ...options, config: source, buffer: this.#records! }));
      } else if (source.type === "mqtt") {
        const { MqttSource } = await import("./sources/mqtt.ts");
        sources.push(new MqttSource({ ...options, config: source, buffer: this.#records! }));
      } else {
        const { CameraSource } = await import("./sources/camera.ts");
        sources.push(new CameraSource({ ...options, config: source, buffer: this.#footage! }));
      }
    }
    return sources;
  }

  async #makeUplinks(): Promise<Part[]> {
    const { config, clock, log, metrics } = this.#options;
    const { device, gateway, uplink } = config;
    this.#uplink = new MqttUplink({
      url: gateway.mqtt,
      device,
      password: gateway.password,
      buffer: this.#records!,
      clock,
      log: log.child({ part: "mqtt uplink" }),
      metrics,
      ...uplink,
      status: () => this.#statusMessage(),
    });
    if (this.#footage === undefined) return [this.#uplink];
    const { RtspUplink } = await import("./uplink/rtsp-uplink.ts");
    const video = new RtspUplink({
      config: { url: gateway.rtsp, device, password: gateway.password },
      buffer: this.#footage,
      clock,
      log: log.child({ part: "rtsp uplink" }),
      metrics,
    });
    return [this.#uplink, video];
  }

  status(): AgentStatus {
    return {
      device: this.#options.config.device,
      uplinkConnected: this.#uplink?.connected ?? false,
      faults: this.#faults,
      ...this.#statusMessage(),
    };
  }

  #statusMessage(): StatusMessage {
    const { clock, config } = this.#options;
    const ageMs = (oldestUs: number | undefined): number =>
      oldestUs === undefined ? 0 : Math.max(0, Math.round((clock.nowUs() - oldestUs) / 1_000));
    const records = this.#records?.usage();
    const footage = this.#footage?.usage();
    return {
      version: VERSION,
      buffer: {
        waitingRecords: records?.waitingRecords ?? 0,
        waitingBytes: records?.waitingBytes ?? 0,
        maxBytes: config.buffer.maxBytes,
        oldestAgeMs: ageMs(records?.oldestUs),
        droppedRecords: records?.droppedRecords ?? 0,
      },
      ...(footage !== undefined && {
        footage: {
          waitingRecords: footage.waitingUnits,
          waitingBytes: footage.waitingBytes,
          maxBytes: footage.maxBytes,
          oldestAgeMs: ageMs(footage.oldestUs),
          droppedRecords: footage.droppedUnits,
        },
      }),
      sources: this.#sources.map((source) => source.status()),
      residentBytes: process.memoryUsage.rss(),
    };
  }

  /** Uplinks first, so that nothing is half sent; then sources; what they stored is committed; then the rest. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const faults: unknown[] = [];
    const quietly = (work: Promise<void> | undefined): Promise<void> =>
      (work ?? Promise.resolve()).catch((error: unknown) => {
        faults.push(error);
      });
    const [health, ...others] = this.#started;
    await Promise.all(others.map((part) => quietly(part.close())));
    await quietly(this.#footage?.close());
    await quietly(this.#records?.close());
    await quietly(health?.close());
    if (faults.length > 0) throw faults[0];
  }
}
