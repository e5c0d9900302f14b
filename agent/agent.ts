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
import type { SourceConfig } from "../config/source-config.ts";
import type { StatusMessage } from "../protocol/topics.ts";
import type { Clock } from "../runtime/clock.ts";
import { foreignFolder, makeDataFolder } from "../runtime/data-folder.ts";
import { DiskReserve } from "../runtime/disk-reserve.ts";
import { describeError } from "../runtime/errors.ts";
import type { Log } from "../runtime/log.ts";
import type { Metrics } from "../runtime/metrics.ts";
import { residentBytes } from "../runtime/resident-memory.ts";
import { VERSION } from "../runtime/version.ts";
import type { FootageBuffer } from "./buffer/footage-buffer.ts";
import type { RecordBuffer } from "./buffer/record-buffer.ts";
import { openLevelRecordBuffer } from "./buffer/records/level-record-buffer.ts";
import type { FootageGaps } from "./footage-gaps.ts";
import { HealthServer } from "./health.ts";
import { Credentials, OtherDeviceError } from "./identity/credentials.ts";
import { parseAddress } from "./identity/gateway-address.ts";
import type { Source } from "./sources/source.ts";
import { ActivityWatch } from "./status/activity-watch.ts";
import { type AgentStatus, judge } from "./status/agent-status.ts";
import { RecentErrors } from "./status/recent-errors.ts";
import { statusGauges } from "./status/status-gauges.ts";
import { AgentClock } from "./time/agent-clock.ts";
import type { DeviceTime } from "./time/device-time.ts";
import { TimeKeeper } from "./time/time-keeper.ts";
import { TimedRecords } from "./time/timed-records.ts";
import { LinkRules } from "./uplink/link-rules.ts";
import { MqttUplink } from "./uplink/mqtt-uplink.ts";

export interface AgentOptions {
  readonly config: AgentConfig;
  /** Absolute; belongs to this agent alone. */
  readonly dataDir: string;
  readonly clock: Clock;
  /** For a device whose clock may be wrong until somebody sets it; without it `clock` is believed. */
  readonly time?: DeviceTime;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Of which programs that are sources get what they need to run, such as PATH. */
  readonly environment?: Readonly<NodeJS.ProcessEnv>;
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
  readonly #errors: RecentErrors;
  readonly #activity: ActivityWatch;
  readonly #bornMs: number;
  readonly #deviceClock: AgentClock | undefined;
  #keeper: TimeKeeper | undefined;
  readonly #faults: string[] = [];
  readonly #started: Part[] = [];
  #records: RecordBuffer | undefined;
  #footage: FootageBuffer | undefined;
  #gaps: FootageGaps | undefined;
  #uplink: MqttUplink | undefined;
  #rules: LinkRules | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: AgentOptions) {
    this.#deviceClock = options.time && new AgentClock(options.time);
    const clock = this.#deviceClock ?? options.clock;
    this.#errors = new RecentErrors(clock);
    this.#options = { ...options, clock, log: this.#errors.watch(options.log) };
    this.#bornMs = clock.monotonicMs();
    this.#activity = new ActivityWatch({
      clock,
      counts: () => new Map(this.#sources.map((source) => [source.name, source.status().records])),
      connected: () => this.#uplink?.connected ?? false,
    });
    const { host, port } = options.config.http;
    const status = (): AgentStatus => this.status();
    this.#health = new HealthServer({ host, port, metrics: options.metrics, status });
    statusGauges(options.metrics, status);
  }

  /** The port of the status page. */
  get httpPort(): number {
    return this.#health.port;
  }

  /** @throws HeadwaterError for a port that is taken or a folder that cannot be used; nothing is left running. */
  async start(): Promise<void> {
    try {
      await this.#start(this.#health);
      await makeDataFolder(this.#options.dataDir);
      const reserve = new DiskReserve(this.#options.dataDir, this.#options.log);
      await reserve.during(() => this.#openBuffers());
      for (const source of await this.#makeSources()) {
        this.#sources.push(source);
        await this.#start(source);
      }
      for (const uplink of await this.#makeUplinks()) await this.#start(uplink);
      await this.#start(this.#activity);
    } catch (error) {
      await this.close();
      throw foreignFolder(error, this.#options.dataDir) ?? error;
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
      timeSource: () => this.#deviceClock?.boot?.by ?? "system",
    });
    // Footage that an earlier config left is still sent.
    const folder = join(dataDir, "footage");
    if (config.sources.some(({ type }) => type === "camera") || existsSync(folder)) {
      await this.#openFootage(folder, this.#records);
    }
    await this.#learnTime(this.#records, this.#footage);
  }

  async #openFootage(folder: string, records: RecordBuffer): Promise<void> {
    const { config, clock, log, metrics } = this.#options;
    const { openLevelFootageBuffer } = await import("./buffer/footage/level-footage-buffer.ts");
    const { FootageGaps } = await import("./footage-gaps.ts");
    const gaps = new FootageGaps({ device: config.device, buffer: records, log });
    this.#gaps = gaps;
    this.#footage = await openLevelFootageBuffer({
      dir: folder,
      clock,
      log: log.child({ part: "footage buffer" }),
      metrics,
      maxBytes: config.video.maxBytes,
      minFreeBytes: config.buffer.minFreeBytes,
      onGap: (gap) => gaps.tell(gap),
    });
  }

  /** From here on nothing leaves the buffers whose time is not known. */
  async #learnTime(buffer: RecordBuffer, footage: FootageBuffer | undefined): Promise<void> {
    const { time, config, log } = this.#options;
    if (time === undefined || this.#deviceClock === undefined) return;
    this.#keeper = new TimeKeeper({
      device: config.device,
      time,
      clock: this.#deviceClock,
      buffer,
      waits: () => buffer.usage().waitingRecords > 0 || (footage?.usage().waitingUnits ?? 0) > 0,
      log: log.child({ part: "time" }),
      linkUpMs: () => {
        const { connected, sinceMs } = this.#activity.link();
        return connected ? sinceMs : undefined;
      },
    });
    await this.#start(this.#keeper);
    this.#records = new TimedRecords(buffer, this.#keeper);
    if (footage === undefined) return;
    const { TimedFootage } = await import("./time/timed-footage.ts");
    this.#footage = new TimedFootage(footage, this.#keeper);
  }

  #fail(error: Error): void {
    this.#faults.push(describeError(error));
    this.#options.onFailure(error);
  }

  async #makeSources(): Promise<Source[]> {
    const sources: Source[] = [];
    for (const source of this.#options.config.sources) sources.push(await this.#makeSource(source));
    return sources;
  }

  async #makeSource(config: SourceConfig): Promise<Source> {
    const { clock, log, metrics, environment = {} } = this.#options;
    const { device, buffer } = this.#options.config;
    const shared = { device, clock, metrics, log: log.child({ source: config.name }) };
    const parts = { ...shared, buffer: this.#records! };
    switch (config.type) {
      case "serial": {
        const { SerialSource } = await import("./sources/serial.ts");
        return new SerialSource({ ...parts, config });
      }
      case "modbus": {
        const { ModbusSource } = await import("./sources/modbus.ts");
        return new ModbusSource({ ...parts, config });
      }
      case "mqtt": {
        const { MqttSource } = await import("./sources/mqtt.ts");
        return new MqttSource({ ...parts, config });
      }
      case "file": {
        const { FileTail } = await import("./sources/file-tail.ts");
        return new FileTail({ ...parts, config });
      }
      case "http": {
        const { HttpSource } = await import("./sources/http.ts");
        return new HttpSource({ ...parts, config, whenFull: buffer.whenFull });
      }
      case "command": {
        const { CommandSource } = await import("./sources/command.ts");
        return new CommandSource({ ...parts, config, environment });
      }
      case "host": {
        const { HostSource } = await import("./sources/host.ts");
        return new HostSource({ ...parts, config });
      }
      case "camera": {
        const { CameraSource } = await import("./sources/camera.ts");
        return new CameraSource({ ...shared, config, buffer: this.#footage! });
      }
    }
  }

  /** What a join left here, where the gateway is reached by TLS. */
  async #credentials(): Promise<Credentials | undefined> {
    const { config, dataDir } = this.#options;
    const { mqtt, rtsp } = config.gateway;
    if (![mqtt, rtsp].some((url) => /^(mqtts|rtsps):/i.test(url))) return undefined;
    const credentials = await Credentials.open(dataDir);
    if (credentials !== undefined && credentials.identity.device !== config.device)
      throw new OtherDeviceError(config.device, credentials.identity.device);
    return credentials;
  }

  async #makeUplinks(): Promise<Part[]> {
    const { config, clock, log, metrics } = this.#options;
    const { device, gateway, uplink } = config;
    const credentials = await this.#credentials();
    const tls = credentials && (() => credentials.tls());
    const { time } = this.#options;
    const rules = new LinkRules({
      config: uplink,
      priorities: config.buffer.priorities,
      statusSeconds: uplink.statusSeconds,
      clock,
      timeKnown: () => this.#deviceClock === undefined || this.#deviceClock.boot !== undefined,
      log: log.child({ part: "link" }),
      metrics,
    });
    this.#rules = rules;
    this.#uplink = new MqttUplink({
      url: gateway.mqtt,
      device,
      password: gateway.password,
      tls,
      buffer: this.#records!,
      clock,
      log: log.child({ part: "mqtt uplink" }),
      metrics,
      ...uplink,
      rules,
      sinceBootMs: time && time.bootUs() / 1_000,
      status: () => this.#statusMessage(),
      time: this.#keeper,
    });
    const parts: Part[] = [rules, this.#uplink];
    if (credentials !== undefined && gateway.https !== undefined) {
      const { Renewal } = await import("./identity/renewal.ts");
      const address = parseAddress(gateway.https);
      parts.push(new Renewal({ address, credentials, log: log.child({ part: "identity" }), metrics }));
    } else if (credentials !== undefined) {
      const message = "gateway.https is missing: this device's certificate is not renewed, and will run out";
      log.warn({ part: "identity" }, message);
    }
    if (this.#footage === undefined) return parts;
    const { RtspUplink } = await import("./uplink/rtsp-uplink.ts");
    const video = new RtspUplink({
      config: { url: gateway.rtsp, device, password: gateway.password, tls },
      buffer: this.#footage,
      clock,
      log: log.child({ part: "rtsp uplink" }),
      metrics,
      rules,
    });
    return [...parts, video];
  }

  /** One write through the record buffer, to the disk: rejects or hangs when records cannot be stored. */
  async probe(): Promise<void> {
    const value = Buffer.allocUnsafe(8);
    value.writeDoubleLE(this.#options.clock.nowUs());
    // A mark needs no room, so that a full buffer, which is no fault, does as well.
    await this.#records?.setMarks([{ source: "watchdog", value }]);
  }

  status(): AgentStatus {
    const { clock, config } = this.#options;
    const link = this.#activity.link();
    const message = this.#statusMessage();
    const status = {
      device: config.device,
      uptimeMs: Math.round(clock.monotonicMs() - this.#bornMs),
      uplinkConnected: link.connected,
      faults: this.#faults,
      uplink: {
        gateway: config.gateway.mqtt.replace(/\/\/[^/@]*@/, "//"),
        ...link,
        ...(this.#rules !== undefined && { link: this.#rules.status() }),
        ...this.#uplink?.work(),
      },
      clock: this.#deviceClock?.status() ?? {
        known: true,
        time: new Date(clock.nowUs() / 1_000).toISOString(),
      },
      ...message,
      sources: message.sources.map((source) => ({ ...source, ...this.#activity.of(source.name) })),
      errors: this.#errors.list(),
    };
    return { ...status, health: judge(status) };
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
      residentBytes: residentBytes(),
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
    await quietly(this.#gaps?.close());
    await quietly(this.#records?.close());
    await quietly(health?.close());
    if (faults.length > 0) throw faults[0];
  }
}
