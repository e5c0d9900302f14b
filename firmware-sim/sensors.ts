/** All simulated MQTT sensors: makes their messages when they are due and hands them to their links. */
import type { Clock } from "../runtime/clock.ts";
import type { Log } from "../runtime/log.ts";
import { AnomalyPlan } from "./anomalies.ts";
import type { AnomalyRecord } from "./anomaly-record.ts";
import type { MessageNumbers } from "./message-numbers.ts";
import { Pace } from "./pace.ts";
import { fraction } from "./random.ts";
import { type Sendable, SensorLink } from "./sensor-link.ts";
import { makeSensor, type SensorMessage, type SimulatedSensor, sensorName } from "./sensor-styles.ts";
import type { TruthFile } from "./truth-file.ts";

const GROUP = "sensors";

export interface SensorsOptions {
  readonly url: string;
  readonly count: number;
  readonly hz: number;
  readonly seed: number;
  readonly anomalySeconds: number;
  readonly truth: TruthFile;
  readonly anomalies: AnomalyRecord;
  readonly numbers: MessageNumbers;
  readonly clock: Clock;
  readonly log: Log;
}

export interface SensorsStatus {
  readonly count: number;
  readonly connected: number;
  readonly reconnects: number;
  readonly made: number;
  readonly acknowledged: number;
  readonly queued: number;
  /** Messages that had to give way while the broker was away too long. */
  readonly dropped: number;
  readonly idle: boolean;
}

interface OutgoingMessage extends Sendable {
  readonly identity: SensorMessage["identity"];
}

interface Running {
  readonly sensor: SimulatedSensor;
  readonly link: SensorLink<OutgoingMessage>;
  readonly pace: Pace;
  next: number;
  silentUntilUs: number;
}

export class Sensors {
  readonly #options: SensorsOptions;
  readonly #plan: AnomalyPlan;
  #running: Running[] = [];
  #timer: NodeJS.Timeout | undefined;
  #made = 0;
  #acknowledged = 0;
  #dropped = 0;
  #lastTrouble: string | undefined;

  constructor(options: SensorsOptions) {
    this.#options = options;
    this.#plan = new AnomalyPlan({
      seed: options.seed,
      group: GROUP,
      members: Array.from({ length: options.count }, (_, i) => sensorName(i)),
      everySeconds: options.anomalySeconds,
      hz: options.hz,
    });
  }

  start(): void {
    const { count, hz, seed, clock, numbers } = this.#options;
    const first = numbers.first(GROUP);
    this.#running = Array.from({ length: count }, (_, i) => {
      const sensor = makeSensor(i, seed, hz, this.#plan);
      const pace = new Pace(hz, clock, fraction(seed, sensor.name, 1));
      return { sensor, link: this.#makeLink(sensor), pace, next: first, silentUntilUs: 0 };
    });
    for (const { link } of this.#running) link.start();
    this.#timer = setInterval(() => {
      for (const running of this.#running) {
        for (let due = running.pace.due(); due > 0; due--) this.#beat(running);
      }
    }, Pace.intervalMs(hz));
  }

  get names(): string[] {
    return this.#running.map(({ sensor }) => sensor.name);
  }

  /** Takes a sensor off the air for a while. @returns false when there is none of that name. */
  silence(name: string, seconds: number): boolean {
    const running = this.#running.find(({ sensor }) => sensor.name === name);
    if (running === undefined) return false;
    running.silentUntilUs = this.#options.clock.nowUs() + seconds * 1_000_000;
    return true;
  }

  /** No new messages; what is not acknowledged goes on being delivered. */
  stopSending(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  status(): SensorsStatus {
    const links = this.#running.map(({ link }) => link);
    return {
      count: links.length,
      connected: links.filter((link) => link.connected).length,
      reconnects: links.reduce((sum, link) => sum + link.reconnects, 0),
      made: this.#made,
      acknowledged: this.#acknowledged,
      queued: links.reduce((sum, link) => sum + link.queued, 0),
      dropped: this.#dropped,
      idle: links.every((link) => link.isIdle),
    };
  }

  /** Safe to call twice. */
  async close(): Promise<void> {
    this.stopSending();
    const running = this.#running;
    if (running.length === 0) return;
    this.#running = [];
    await Promise.all(running.map(({ link }) => link.close()));
    this.#options.numbers.release(GROUP, Math.max(...running.map(({ next }) => next)));
  }

  #makeLink(sensor: SimulatedSensor): SensorLink<OutgoingMessage> {
    const { url, clock, truth, log } = this.#options;
    return new SensorLink<OutgoingMessage>({
      url,
      clientId: `sim-${sensor.name}`,
      onAcknowledged: ({ topic, payload, identity }) => {
        this.#acknowledged++;
        truth.append({ topic, ...identity, payload, ackedUs: clock.nowUs() });
      },
      onDropped: () => {
        this.#dropped++;
      },
      onTrouble: (error) => {
        // Every sensor meets the same trouble, again and again: said once until it changes.
        if (error.message === this.#lastTrouble) return;
        this.#lastTrouble = error.message;
        log.warn({ sensor: sensor.name, error: error.message }, "a sensor cannot reach its broker");
      },
    });
  }

  #beat(running: Running): void {
    const { clock, numbers, anomalies } = this.#options;
    const { sensor, link } = running;
    const n = running.next++;
    numbers.use(GROUP, n);
    const atUs = clock.nowUs();
    if (atUs < running.silentUntilUs) {
      anomalies.note(sensor.name, { kind: "silenced" }, atUs);
      return;
    }
    anomalies.note(sensor.name, this.#plan.at(sensor.name, n), atUs);
    const message = sensor.message(n, atUs);
    if (message === undefined) return;
    this.#made++;
    link.offer({ topic: sensor.topic, ...message });
  }
}
