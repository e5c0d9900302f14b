/**
 * Looks once a second at rising counts, to tell how fast each rises and when it last did, and at the
 * link, to tell since when it is as it is.
 */
import type { Clock } from "../../runtime/clock.ts";
import type { Activity } from "./agent-status.ts";

const EVERY_MS = 1_000;
/** Rates are taken over so many looks. */
const LOOKS = 10;

interface Watched {
  /** The oldest first; at most LOOKS + 1. */
  readonly looks: Array<{ readonly atMs: number; readonly count: number }>;
  changedMs: number | undefined;
}

export interface ActivityWatchOptions {
  readonly clock: Clock;
  /** Of what is watched, by name; each only rises. */
  readonly counts: () => ReadonlyMap<string, number>;
  readonly connected: () => boolean;
}

export class ActivityWatch {
  readonly #options: ActivityWatchOptions;
  readonly #watched = new Map<string, Watched>();
  #linkUp = false;
  #linkChangedMs: number;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: ActivityWatchOptions) {
    this.#options = options;
    this.#linkChangedMs = options.clock.monotonicMs();
  }

  async start(): Promise<void> {
    this.look();
    this.#timer ??= setInterval(() => this.look(), EVERY_MS);
    this.#timer.unref();
  }

  look(): void {
    const { clock, counts } = this.#options;
    const atMs = clock.monotonicMs();
    this.link();
    for (const [name, count] of counts()) {
      const watched = this.#watched.get(name) ?? { looks: [], changedMs: undefined };
      this.#watched.set(name, watched);
      if (count > (watched.looks.at(-1)?.count ?? 0)) watched.changedMs = atMs;
      watched.looks.push({ atMs, count });
      if (watched.looks.length > LOOKS + 1) watched.looks.shift();
    }
  }

  of(name: string): Activity {
    const watched = this.#watched.get(name);
    const [first, last] = [watched?.looks.at(0), watched?.looks.at(-1)];
    if (watched === undefined || first === undefined || last === undefined) return { recordsPerSecond: 0 };
    const spanMs = last.atMs - first.atMs;
    const perSecond = spanMs > 0 ? ((last.count - first.count) * 1_000) / spanMs : 0;
    return {
      recordsPerSecond: Math.round(perSecond * 10) / 10,
      ...(watched.changedMs !== undefined && {
        lastRecordAgoMs: Math.round(this.#options.clock.monotonicMs() - watched.changedMs),
      }),
    };
  }

  /** Whether the link is up, and for how long it has been so. */
  link(): { connected: boolean; sinceMs: number } {
    const nowMs = this.#options.clock.monotonicMs();
    const connected = this.#options.connected();
    if (connected !== this.#linkUp) this.#linkChangedMs = nowMs;
    this.#linkUp = connected;
    return { connected, sinceMs: Math.round(nowMs - this.#linkChangedMs) };
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
  }
}
