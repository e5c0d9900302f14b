/** Prometheus metrics. Each program owns one registry and passes it in; names start with `headwater_`. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, type Metric, Registry } from "prom-client";
import { HistogramTally, Tally } from "./tally.ts";

export class Metrics {
  readonly #registry = new Registry();
  readonly #tallies: Tally[] = [];

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

  /** For hot paths: adds to one of a counter's numbers. Kept for good, so made once for what there is few of. */
  tally<L extends string>(counter: Counter<L>, labels: Readonly<Record<L, string>>): Tally {
    const tally = new Tally((count) => counter.inc({ ...labels }, count));
    this.#tallies.push(tally);
    return tally;
  }

  /** For hot paths: a histogram for each value of a label, asked for once for each. */
  tallies(
    name: string,
    help: string,
    buckets: readonly number[],
    labelName: string,
  ): (label: string) => HistogramTally {
    const made = new Map<string, HistogramTally>();
    const get = async (): Promise<object> => ({
      ...{ name, help, type: "histogram", aggregator: "sum" },
      values: [...made].flatMap(([label, tally]) => tally.samples(name, { [labelName]: label })),
    });
    // All that a registry asks of a metric.
    this.#registry.registerMetric({ name, get } as unknown as Metric);
    return (label) => {
      const tally = made.get(label) ?? new HistogramTally(buckets);
      made.set(label, tally);
      return tally;
    };
  }

  /**
   * The process itself under the names that dashboards know: `process_*` (memory, processor, descriptors) and
   * `nodejs_*` (heap, collections, how late the event loop is). Once for a process, as it goes on until its end.
   */
  watchProcess(): void {
    collectDefaultMetrics({ register: this.#registry });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** The text of /metrics. */
  render(): Promise<string> {
    for (const tally of this.#tallies) tally.settle();
    return this.#registry.metrics();
  }
}
