/**
 * What the uplinks may send a second: one token bucket for records and footage together.
 *
 *   live    ─┐
 *   backlog ─┼→ Pacer ─ as many bytes a second as the cap allows → the wire
 *   footage ─┘
 *
 * Whoever sends takes first. A class that is nearer to now goes before the others, so live records
 * wait for what is being sent, and never for what waits. Where a cap holds, over any time `t` at most
 * `cap · t + max(burst, largest take)` bytes go out, with the heads of their packets.
 */
import type { Clock } from "../../runtime/clock.ts";

/** In the order in which they are served. */
export type Traffic = "live" | "backlog" | "footage";

/** How much of the cap may go out at once after a silence, and how much a single publish may hold. */
const BURST_SECONDS = 0.25;
const MIN_BURST_BYTES = 2_048;
/** Timers may be late, and an operator's clock may stand still for a debugger: no wait is longer. */
const LONGEST_WAIT_MS = 1_000;
/** RFC 791 §3.1 and RFC 9293 §3.1: heads of IPv4 and TCP, with timestamps (RFC 7323 §3.2). */
const HEAD_BYTES = 52;
const SEGMENT_BYTES = 1_400;

interface Waiter {
  readonly bytes: number;
  readonly go: (may: boolean) => void;
}

/** What so many bytes of ours are on the wire, about: TLS' own share and what is sent again are left out. */
export function wireBytes(bytes: number): number {
  return bytes + HEAD_BYTES * Math.ceil(bytes / SEGMENT_BYTES);
}

export class Pacer {
  readonly #clock: Pick<Clock, "monotonicMs">;
  readonly #waiting: Readonly<Record<Traffic, Set<Waiter>>> = {
    live: new Set(),
    backlog: new Set(),
    footage: new Set(),
  };
  #bytesPerSecond: number;
  /** Below zero after a take that was larger than the burst. */
  #tokens: number;
  #filledMs: number;
  #timer: NodeJS.Timeout | undefined;
  #waitedMs = 0;
  #waitingSinceMs: number | undefined;
  #closed = false;

  /** @param bytesPerSecond more than 0; Infinity for no cap */
  constructor(clock: Pick<Clock, "monotonicMs">, bytesPerSecond = Number.POSITIVE_INFINITY) {
    this.#clock = clock;
    this.#bytesPerSecond = bytesPerSecond;
    this.#tokens = this.#burst;
    this.#filledMs = clock.monotonicMs();
  }

  get bytesPerSecond(): number {
    return this.#bytesPerSecond;
  }

  /** For how long, in all, something had to wait for the cap. */
  get waitedMs(): number {
    const since = this.#waitingSinceMs;
    return this.#waitedMs + (since === undefined ? 0 : this.#clock.monotonicMs() - since);
  }

  /** Another cap, from now on. What waits goes by the new one. */
  setRate(bytesPerSecond: number): void {
    if (bytesPerSecond === this.#bytesPerSecond) return;
    this.#fill();
    const wasOpen = this.#bytesPerSecond === Number.POSITIVE_INFINITY;
    this.#bytesPerSecond = bytesPerSecond;
    this.#tokens = wasOpen ? 0 : Math.min(this.#tokens, this.#burst);
    this.#serve();
  }

  /** How large a publish should be: smaller under a cap, so that live records do not wait long for it. */
  publishBytes(wanted: number): number {
    return Math.min(wanted, this.#burst);
  }

  /** Resolves with true when so many bytes may be sent, and with false when `signal` aborts or it is closed before. */
  take(bytes: number, traffic: Traffic, signal: AbortSignal): Promise<boolean> {
    if (this.#closed || signal.aborted) return Promise.resolve(false);
    const onWire = wireBytes(bytes);
    if (this.#bytesPerSecond === Number.POSITIVE_INFINITY) return Promise.resolve(true);
    return new Promise((resolve) => {
      const queue = this.#waiting[traffic];
      const given = (may: boolean): void => {
        signal.removeEventListener("abort", aborted);
        queue.delete(waiter);
        resolve(may);
      };
      const aborted = (): void => {
        given(false);
        this.#serve();
      };
      const waiter: Waiter = { bytes: onWire, go: given };
      queue.add(waiter);
      signal.addEventListener("abort", aborted, { once: true });
      this.#serve();
    });
  }

  /** For what goes in any case, such as a status: whoever takes next waits for it. */
  charge(bytes: number): void {
    this.#fill();
    if (this.#bytesPerSecond !== Number.POSITIVE_INFINITY) this.#tokens -= wireBytes(bytes);
  }

  /** Leaves no timer behind; what waits is told false, and so is what comes later: it would go before. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const queue of Object.values(this.#waiting)) for (const waiter of queue) waiter.go(false);
  }

  get #burst(): number {
    return Math.max(MIN_BURST_BYTES, this.#bytesPerSecond * BURST_SECONDS);
  }

  #fill(): void {
    const nowMs = this.#clock.monotonicMs();
    const gained = (this.#bytesPerSecond * Math.max(0, nowMs - this.#filledMs)) / 1_000;
    this.#filledMs = nowMs;
    this.#tokens = Number.isFinite(gained) ? Math.min(this.#burst, this.#tokens + gained) : 0;
  }

  #first(): Waiter | undefined {
    const { live, backlog, footage } = this.#waiting;
    for (const queue of [live, backlog, footage]) for (const waiter of queue) return waiter;
    return undefined;
  }

  #serve(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#fill();
    for (;;) {
      const waiter = this.#first();
      if (waiter === undefined) break;
      const isOpen = this.#bytesPerSecond === Number.POSITIVE_INFINITY;
      // What is larger than the burst goes with a full bucket, and the bucket owes the rest.
      const missing = isOpen ? 0 : Math.min(waiter.bytes, this.#burst) - this.#tokens;
      if (missing > 0) {
        const waitMs = Math.ceil((missing * 1_000) / this.#bytesPerSecond);
        this.#timer = setTimeout(() => this.#serve(), Math.min(LONGEST_WAIT_MS, waitMs));
        break;
      }
      if (!isOpen) this.#tokens -= waiter.bytes;
      waiter.go(true);
    }
    this.#countWait();
  }

  #countWait(): void {
    const waits = this.#timer !== undefined;
    if (waits === (this.#waitingSinceMs !== undefined)) return;
    this.#waitedMs = this.waitedMs;
    this.#waitingSinceMs = waits ? this.#clock.monotonicMs() : undefined;
  }
}
