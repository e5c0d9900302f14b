/** Something small for each sensor, bounded: the one longest not heard of is forgotten first. */
const MAX_SENSORS = 10_000;

export class SensorStates<T> {
  readonly #states = new Map<string, T>();
  readonly #max: number;

  constructor(max = MAX_SENSORS) {
    this.#max = max;
  }

  get(sensor: string): T | undefined {
    return this.#states.get(sensor);
  }

  set(sensor: string, state: T): void {
    this.#states.delete(sensor);
    this.#states.set(sensor, state);
    if (this.#states.size <= this.#max) return;
    const [oldest] = this.#states.keys();
    this.#states.delete(oldest!);
  }

  clear(): void {
    this.#states.clear();
  }

  get size(): number {
    return this.#states.size;
  }
}
