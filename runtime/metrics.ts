/** Prometheus metrics. Each program owns one registry and passes it in; names start with `headwater_`. */
import { Counter, Gauge, Histogram, Registry } from "prom-client";

export class Metrics {
  readonly #registry = new Registry();

  /** A number that only rises. The same name twice gives the same counter. */
  counter<L extends string = string>(name: string, help: string, labelNames: readonly L[] = []): Counter<L> {
    const known = this.#registry.getSingleMetric(name) as Counter<L> | undefined;
    return known ?? new Counter({ name, help, labelNames, registers: [this.#registry] });
  }

  /** A number that rises and falls; `collect` may set it when it is asked for. */
  gauge<L extends string = string>(
    name: string,
    help: string,
    labelNames: readonly L[] = [],
    collect?: (this: Gauge<L>) => void | Promise<void>,
  ): Gauge<L> {
    const known = this.#registry.getSingleMetric(name) as Gauge<L> | undefined;
    if (known !== undefined) return known;
    return new Gauge({ name, help, labelNames, registers: [this.#registry], ...(collect && { collect }) });
  }

  /** @param buckets upper bounds in the unit that the name ends in. */
  histogram<L extends string = string>(
    name: string,
    help: string,
    buckets: number[],
    labelNames: readonly L[] = [],
  ): Histogram<L> {
    const known = this.#registry.getSingleMetric(name) as Histogram<L> | undefined;
    return known ?? new Histogram({ name, help, buckets, labelNames, registers: [this.#registry] });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** The text of /metrics. */
  render(): Promise<string> {
    return this.#registry.metrics();
  }
}
