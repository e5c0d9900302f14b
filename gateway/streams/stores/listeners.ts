/**
 * Readers that wait for a shard, or for a whole stream, to grow.
 *
 * Somebody comes to wait and goes again a thousand times a second, for as long as the gateway runs. So nothing
 * here is a Map or a Set that empties and fills: V8 gives those that are old a new table each time, in old
 * space, where only a collection of the whole heap finds it to be free. The same is true of an AbortSignal
 * whose only listener comes and goes: a signal is listened to until it aborts or is one of many that rest.
 */

/** As many signals that nobody waits with may be listened to, and twice as many as there are who wait. */
const RESTING_SIGNALS = 16;

interface Waiter {
  readonly shard: number;
  readonly satisfied: () => boolean;
  readonly resolve: () => void;
  readonly heard: HeardSignal | undefined;
}

export class Listeners {
  /** Those who wait, in the order of their coming; behind `#waiting` nothing. */
  readonly #waiters: Array<Waiter | undefined> = [];
  #waiting = 0;
  #heard: HeardSignal[] = [];

  /** How many wait, for whichever shard. */
  get waiting(): number {
    return this.#waiting;
  }

  /** How many signals are listened to. */
  get signals(): number {
    return this.#heard.length;
  }

  /** Resolves as soon as `satisfied` holds, looked at now and at each check, or `signal` aborts. */
  wait(shard: number, satisfied: () => boolean, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted || satisfied()) return Promise.resolve();
    const heard = signal && this.#hear(signal);
    return new Promise((resolve) => {
      this.#waiters[this.#waiting++] = { shard, satisfied, resolve, heard };
      if (heard !== undefined) heard.waiting++;
    });
  }

  check(shard: number): void {
    this.#endThose((waiter) => waiter.shard === shard && waiter.satisfied());
  }

  checkAll(): void {
    this.#endThose(isSatisfied);
  }

  /** Listens to no signal that nobody waits with. */
  rest(): void {
    for (const heard of this.#heard) if (heard.waiting === 0) heard.end();
    this.#heard = this.#heard.filter((heard) => heard.waiting > 0);
  }

  #endThose(isOver: (waiter: Waiter) => boolean): void {
    const waiters = this.#waiters;
    let kept = 0;
    for (let i = 0; i < this.#waiting; i++) {
      const waiter = waiters[i]!;
      if (isOver(waiter)) {
        if (waiter.heard !== undefined) waiter.heard.waiting--;
        waiter.resolve();
      } else waiters[kept++] = waiter;
    }
    waiters.fill(undefined, kept, this.#waiting);
    this.#waiting = kept;
  }

  #hear(signal: AbortSignal): HeardSignal {
    const known = this.#heard.find((heard) => heard.signal === signal);
    if (known !== undefined) return known;
    if (this.#heard.length >= RESTING_SIGNALS + 2 * this.#waiting) this.rest();
    const heard = new HeardSignal(signal, () => {
      this.#endThose((waiter) => waiter.heard === heard);
      this.#heard.splice(this.#heard.indexOf(heard), 1);
    });
    this.#heard.push(heard);
    return heard;
  }
}

class HeardSignal {
  readonly signal: AbortSignal;
  readonly #onAbort: () => void;
  /** How many wait with it. */
  waiting = 0;

  constructor(signal: AbortSignal, onAbort: () => void) {
    this.signal = signal;
    this.#onAbort = onAbort;
    signal.addEventListener("abort", onAbort, { once: true });
  }

  end(): void {
    this.signal.removeEventListener("abort", this.#onAbort);
  }
}

function isSatisfied(waiter: Waiter): boolean {
  return waiter.satisfied();
}
