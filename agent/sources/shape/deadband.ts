/**
 * Leaves out readings that say nothing new: none of the fields moved by more than its band since
 * the last one that passed. After `maxSilenceSeconds` one passes all the same, so that a sensor that
 * is quiet can be told from one that is gone.
 */
import type { ShapeConfig } from "../../../config/source-config.ts";
import type { SensorReading } from "../source.ts";
import { fieldAt } from "./mapping.ts";
import { SensorStates } from "./sensor-states.ts";

type Config = NonNullable<ShapeConfig["deadband"]>;
type Band = (now: unknown, last: unknown) => boolean;

interface Passed {
  readonly values: ReadonlyMap<string, unknown>;
  readonly arrivalUs: number;
}

export class Deadband {
  readonly #maxSilenceUs: number;
  readonly #bands: readonly (readonly [string, Band])[];
  readonly #any: Band | undefined;
  readonly #passed = new SensorStates<Passed>();

  constructor({ fields, maxSilenceSeconds }: Config) {
    this.#maxSilenceUs = maxSilenceSeconds * 1e6;
    const { "*": any, ...named } = fields;
    this.#any = any === undefined ? undefined : bandOf(any);
    this.#bands = Object.entries(named).map(([name, band]) => [name, bandOf(band)] as const);
  }

  /** True when the reading is worth a record; it is then what the next ones are compared with. */
  passes(reading: SensorReading, arrivalUs: number): boolean {
    const bands = this.#bandsOf(reading);
    // A reading without any of the fields is not what the band is about.
    if (bands.length === 0) return true;
    const last = this.#passed.get(reading.sensor);
    const values = new Map(bands.map(([name]) => [name, fieldAt(reading.fields, name)]));
    // A clock that was set back makes the silence mean nothing.
    const silenceUs = last === undefined ? 0 : arrivalUs - last.arrivalUs;
    const passes =
      last === undefined ||
      silenceUs >= this.#maxSilenceUs ||
      silenceUs < 0 ||
      bands.some(
        ([name, beyond]) => !last.values.has(name) || beyond(values.get(name), last.values.get(name)),
      );
    if (passes)
      this.#passed.set(reading.sensor, { values: new Map([...(last?.values ?? []), ...values]), arrivalUs });
    return passes;
  }

  /** The next reading of every sensor passes. */
  reset(): void {
    this.#passed.clear();
  }

  #bandsOf({ fields }: SensorReading): (readonly [string, Band])[] {
    const named = this.#bands.filter(([name]) => fieldAt(fields, name) !== undefined);
    const any = this.#any;
    if (any === undefined) return named;
    const known = new Set(named.map(([name]) => name));
    const others = Object.entries(fields).filter(
      ([name, value]) => typeof value === "number" && !known.has(name),
    );
    return [...named, ...others.map(([name]) => [name, any] as const)];
  }
}

function bandOf(band: number | string): Band {
  const part = typeof band === "string" ? Number.parseFloat(band) / 100 : undefined;
  return (now, last) => {
    if (typeof now !== "number" || typeof last !== "number")
      return JSON.stringify(now) !== JSON.stringify(last);
    const width = part === undefined ? Number(band) : Math.abs(last) * part;
    return Math.abs(now - last) > width;
  };
}
