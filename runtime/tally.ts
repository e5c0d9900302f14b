/**
 * What hot paths count: plain numbers, which become a metric when somebody asks for it. prom-client looks
 * up and checks the labels at each call, 1 to 2 µs; `counter.inc` and `histogram.observe` are the plain way.
 */

/** Only rises. */
export class Tally {
  readonly #settle: (count: number) => void;
  #pending = 0;

  /** @param settle hears, now and then, how much was added since it last heard */
  constructor(settle: (count: number) => void) {
    this.#settle = settle;
  }

  add(count: number): void {
    this.#pending += count;
  }

  settle(): void {
    if (this.#pending === 0) return;
    this.#settle(this.#pending);
    this.#pending = 0;
  }
}

/** One sample of a metric, in the form in which a registry asks for it. */
export interface Sample {
  readonly metricName: string;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
}

/** How many of the values that were observed lie below each of some bounds, and their sum. */
export class HistogramTally {
  readonly #bounds: readonly number[];
  readonly #counts: number[];
  #sum = 0;

  /** @param bounds rising */
  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = new Array<number>(bounds.length + 1).fill(0);
  }

  observe(value: number): void {
    let place = 0;
    while (place < this.#bounds.length && value > this.#bounds[place]!) place++;
    this.#counts[place]!++;
    this.#sum += value;
  }

  /** Buckets count all that lies below their bound, as Prometheus has it. */
  samples(name: string, labels: Readonly<Record<string, string>>): Sample[] {
    const samples: Sample[] = [];
    let count = 0;
    for (const [place, inBucket] of this.#counts.entries()) {
      count += inBucket;
      const le = this.#bounds[place] ?? "+Inf";
      samples.push({ metricName: `${name}_bucket`, labels: { le, ...labels }, value: count });
    }
    samples.push({ metricName: `${name}_sum`, labels, value: this.#sum });
    samples.push({ metricName: `${name}_count`, labels, value: count });
    return samples;
  }
}
