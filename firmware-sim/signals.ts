/**
 * What a sensor measures: a daily curve, weather that wanders, a little noise, and the anomalies of
 * its plan. A value depends on seed, sensor and message number alone, so a run can be repeated.
 */
import type { Anomaly, AnomalyPlan } from "./anomalies.ts";
import { below, fraction, wander } from "./random.ts";

const DAY_SECONDS = 86_400;

export interface SignalShape {
  readonly mean: number;
  /** Half the difference between day and night. */
  readonly daily: number;
  /** How far it wanders within some minutes. */
  readonly weather: number;
  readonly noise: number;
  /** How far an anomaly leads it astray. */
  readonly astray: number;
  readonly decimals: number;
  readonly min?: number;
  readonly max?: number;
}

export const TEMPERATURE: SignalShape = {
  mean: 17,
  daily: 6,
  weather: 1.5,
  noise: 0.08,
  astray: 14,
  decimals: 2,
};
export const HUMIDITY: SignalShape = {
  mean: 58,
  daily: 14,
  weather: 5,
  noise: 0.4,
  astray: 30,
  decimals: 1,
  min: 0,
  max: 100,
};

/** A quantity that goes up and down. */
export class Signal {
  readonly #seed: number;
  readonly #sensor: string;
  readonly #quantity: string;
  readonly #shape: SignalShape;
  readonly #hz: number;

  constructor(seed: number, sensor: string, quantity: string, shape: SignalShape, hz: number) {
    this.#seed = seed;
    this.#sensor = sensor;
    this.#quantity = `${sensor}/${quantity}`;
    this.#shape = shape;
    this.#hz = hz;
  }

  /** Undefined while an anomaly has it drop out. */
  at(n: number, anomaly?: Anomaly): number | undefined {
    if (anomaly === undefined) return this.#round(this.#healthy(n));
    const { astray } = this.#shape;
    switch (anomaly.kind) {
      case "spike":
        return this.#round(this.#healthy(n) + astray * (0.8 + 0.4 * fraction(this.#seed, this.#quantity, n)));
      case "drift":
        return this.#round(
          this.#healthy(n) + (astray * (n - anomaly.first + 1)) / (anomaly.last - anomaly.first + 1),
        );
      case "stuck":
        return this.#round(this.#healthy(anomaly.first));
      default:
        return undefined;
    }
  }

  #healthy(n: number): number {
    const { mean, daily, weather, noise } = this.#shape;
    const seconds = n / this.#hz;
    const offset = fraction(this.#seed, this.#sensor, 0);
    return (
      mean +
      4 * (offset - 0.5) +
      daily * Math.sin(2 * Math.PI * (seconds / DAY_SECONDS + 0.1 * offset)) +
      weather * wander(this.#seed, `${this.#quantity}/weather`, n, 90 * this.#hz) +
      noise * (2 * fraction(this.#seed, `${this.#quantity}/noise`, n) - 1)
    );
  }

  #round(value: number): number {
    const { decimals, min = -Infinity, max = Infinity } = this.#shape;
    return Number(Math.min(max, Math.max(min, value)).toFixed(decimals));
  }
}

/** Empties over about ten days, then has been exchanged. In per cent. */
export function batteryAt(seed: number, sensor: string, n: number, hz: number): number {
  const spent = (n / hz / (10 * DAY_SECONDS) + fraction(seed, `${sensor}/battery`, 0)) % 1;
  return Number((100 - 85 * spent).toFixed(1));
}

const METER_START_ML = 1_000_000;
const METER_STEP_ML = 20;
/** Smaller than the step, so that the total rises with every message. */
const METER_JITTER_ML = 18;
const BURST_ML = 40_000;
const LEAK_ML = 150;

/**
 * A water meter's total in litres, as text with three decimals. It rises with every message, also
 * through anomalies, so each value names its message: a spike is a burst of water, a drift a leak.
 */
export class Meter {
  readonly #seed: number;
  readonly #sensor: string;
  readonly #plan: AnomalyPlan;
  /** What all anomalies before a slot have added, by slot. */
  readonly #addedBefore: number[] = [0];

  constructor(seed: number, sensor: string, plan: AnomalyPlan) {
    this.#seed = seed;
    this.#sensor = sensor;
    this.#plan = plan;
  }

  at(n: number): string {
    const jitter = below(METER_JITTER_ML, this.#seed, `${this.#sensor}/flow`, n);
    const total = METER_START_ML + n * METER_STEP_ML + jitter + this.#added(n);
    return (total / 1_000).toFixed(3);
  }

  #added(n: number): number {
    const slot = this.#plan.slotOf(n);
    while (this.#addedBefore.length <= slot) {
      const last = this.#addedBefore.length - 1;
      this.#addedBefore.push(this.#addedBefore[last]! + this.#addedIn(last, Infinity));
    }
    return this.#addedBefore[slot]! + this.#addedIn(slot, n);
  }

  #addedIn(slot: number, n: number): number {
    const anomaly = this.#plan.inSlot(this.#sensor, slot);
    if (anomaly === undefined || n < anomaly.first) return 0;
    const messages = Math.min(n, anomaly.last) - anomaly.first + 1;
    if (anomaly.kind === "spike") return BURST_ML * messages;
    return anomaly.kind === "drift" ? LEAK_ML * messages : 0;
  }
}
