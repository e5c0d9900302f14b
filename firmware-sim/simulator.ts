/**
 * The stand-in farm: a board on a serial line, MQTT sensors and a camera, with their truth written
 * beside them and a door for faults.
 *
 *   dataDir/  board.ndjson  sensors.ndjson  camera.ndjson  anomalies.ndjson  next-messages.json
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { isLoopback } from "../config/fields.ts";
import type { SimConfig } from "../config/sim-config.ts";
import { pause } from "../runtime/backoff.ts";
import type { Clock } from "../runtime/clock.ts";
import { HeadwaterError } from "../runtime/errors.ts";
import type { Log } from "../runtime/log.ts";
import { AnomalyRecord } from "./anomaly-record.ts";
import { Board } from "./board.ts";
import type { SimCamera } from "./camera.ts";
import { type Controlled, ControlServer, type Fault, UnknownPartError } from "./control.ts";
import { MessageNumbers } from "./message-numbers.ts";
import { Sensors } from "./sensors.ts";
import { TruthFile } from "./truth-file.ts";

const IDLE_POLL_MS = 20;
/** What socat took may still be on its way through the PTY for so long. */
const PTY_SETTLE_MS = 50;

export interface SimulatorOptions {
  /** `dataDir` and `board.path` are absolute. */
  readonly config: SimConfig;
  readonly clock: Clock;
  readonly log: Log;
}

/** The control door has no sign-in. */
export class ControlHostError extends HeadwaterError {
  constructor(host: string) {
    super("SIM_CONTROL_EXPOSED", {
      message: `control.host ${host} can be reached from other machines`,
      hint: "use 127.0.0.1",
    });
  }
}

export class Simulator implements Controlled {
  readonly #config: SimConfig;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #numbers: MessageNumbers;
  readonly #truth: Record<"board" | "sensors" | "anomalies", TruthFile>;
  readonly #anomalies: AnomalyRecord;
  #board: Board | undefined;
  #sensors: Sensors | undefined;
  #camera: SimCamera | undefined;
  #control: ControlServer | undefined;
  #closed: Promise<void> | undefined;

  constructor({ config, clock, log }: SimulatorOptions) {
    this.#config = config;
    this.#clock = clock;
    this.#log = log;
    const truth = (name: string) => new TruthFile(join(config.dataDir, `${name}.ndjson`));
    this.#numbers = new MessageNumbers(join(config.dataDir, "next-messages.json"));
    this.#truth = { board: truth("board"), sensors: truth("sensors"), anomalies: truth("anomalies") };
    this.#anomalies = new AnomalyRecord(this.#truth.anomalies);
  }

  /** Rejects when a port is taken; what had started is closed then. */
  async start(): Promise<void> {
    try {
      await this.#start();
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  get controlPort(): number {
    return this.#control?.port ?? 0;
  }

  get cameraUrl(): string | undefined {
    return this.#camera?.url;
  }

  get sensorNames(): string[] {
    return this.#sensors?.names ?? [];
  }

  status(): object {
    return {
      seed: this.#config.seed,
      ...(this.#board && { board: this.#board.status() }),
      ...(this.#sensors && { sensors: this.#sensors.status() }),
      ...(this.#camera && { camera: cameraStatus(this.#camera) }),
    };
  }

  async fault(fault: Fault): Promise<void> {
    this.#log.info({ ...fault }, "fault on request");
    switch (fault.fault) {
      case "unplug-board":
        return this.#need("board", this.#board).unplug();
      case "plug-board":
        return this.#need("board", this.#board).plug();
      case "garbage-board":
        this.#need("board", this.#board).garbage(fault.bytes);
        return;
      case "silence-sensor":
        if (!this.#need("sensors", this.#sensors).silence(fault.sensor, fault.seconds)) {
          throw new UnknownPartError(`sensor ${fault.sensor}`, `there are ${this.sensorNames.join(", ")}`);
        }
        return;
      case "stall-camera":
        return this.#need("camera", this.#camera).stall();
      case "resume-camera":
        return this.#need("camera", this.#camera).resume();
    }
  }

  stopSending(): void {
    this.#board?.stopSending();
    this.#sensors?.stopSending();
  }

  async idle(signal: AbortSignal): Promise<boolean> {
    while (!signal.aborted) {
      if (this.#isIdle()) {
        await pause(PTY_SETTLE_MS, signal);
        for (const file of Object.values(this.#truth)) file.flush();
        return this.#isIdle();
      }
      await pause(IDLE_POLL_MS, signal);
    }
    return false;
  }

  /** Leaves no process, port or PTY behind. Safe to call twice. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #start(): Promise<void> {
    const { board, sensors, camera, control, seed, anomalies, dataDir } = this.#config;
    if (!isLoopback(control.host)) throw new ControlHostError(control.host);
    mkdirSync(dataDir, { recursive: true });
    for (const file of Object.values(this.#truth)) file.open();
    this.#numbers.open();
    this.#control = new ControlServer({ ...control, controlled: this });
    await this.#control.start();
    const shared = {
      seed,
      anomalySeconds: anomalies.everySeconds,
      anomalies: this.#anomalies,
      numbers: this.#numbers,
      clock: this.#clock,
    };
    if (camera !== undefined) {
      // Loaded only when there is one to run.
      const { SimCamera } = await import("./camera.ts");
      const truthFile = join(dataDir, "camera.ndjson");
      const log = this.#log.child({ part: "camera" });
      this.#camera = new SimCamera({ ...camera, truthFile, seed, log, clock: this.#clock });
      await this.#camera.start();
    }
    if (board !== undefined) {
      const log = this.#log.child({ part: "board" });
      this.#board = new Board({ ...shared, ...board, truth: this.#truth.board, log });
      this.#board.start();
    }
    if (sensors !== undefined) {
      const log = this.#log.child({ part: "sensors" });
      this.#sensors = new Sensors({ ...shared, ...sensors, truth: this.#truth.sensors, log });
      this.#sensors.start();
    }
  }

  #isIdle(): boolean {
    return (this.#board?.status().waitingBytes ?? 0) === 0 && (this.#sensors?.status().idle ?? true);
  }

  #need<T>(name: string, part: T | undefined): T {
    if (part === undefined) throw new UnknownPartError(name, `add ${name}: to sim.yaml`);
    return part;
  }

  async #close(): Promise<void> {
    this.stopSending();
    await Promise.all([
      this.#board?.close(),
      this.#sensors?.close(),
      this.#camera?.close(),
      this.#control?.close(),
    ]);
    this.#anomalies.close();
    for (const file of Object.values(this.#truth)) file.close();
  }
}

function cameraStatus({ url, port, pictures, readers, stalled }: SimCamera): object {
  return { url, port, pictures, readers, stalled };
}
