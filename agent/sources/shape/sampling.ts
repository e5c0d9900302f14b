/** Thins readings out: the first of a sensor in each interval, or each n-th. */
import type { ShapeConfig } from "../../../config/source-config.ts";
import { SensorStates } from "./sensor-states.ts";

interface Taken {
  readonly arrivalUs: number;
  readonly since: number;
}

export class Sampling {
  readonly #everyUs: number;
  readonly #oneIn: number;
  readonly #taken = new SensorStates<Taken>();

  constructor({ everySeconds = 0, oneIn = 1 }: NonNullable<ShapeConfig["sample"]>) {
    this.#everyUs = everySeconds * 1e6;
    this.#oneIn = oneIn;
  }

  /** The next reading of every sensor passes. */
  reset(): void {
    this.#taken.clear();
  }

  takes(sensor: string, arrivalUs: number): boolean {
    const last = this.#taken.get(sensor);
    const since = (last?.since ?? 0) + 1;
    const passedUs = last === undefined ? 0 : arrivalUs - last.arrivalUs;
    // A clock that was set back must not silence a sensor until it has caught up.
    const due = last === undefined || ((passedUs >= this.#everyUs || passedUs < 0) && since >= this.#oneIn);
    this.#taken.set(sensor, due ? { arrivalUs, since: 0 } : { arrivalUs: last!.arrivalUs, since });
    return due;
  }
}
