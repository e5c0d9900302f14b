/**
 * The memory in which bodies of requests gather. Whoever sends slowly holds no more of it than has come, and
 * loses that when others need it: a client that never ends its requests keeps nobody out.
 */
import type { Clock } from "../../../runtime/clock.ts";

/** Who takes longer for a body may be sent away for others. */
const SLOW_MS = 2_000;

export interface BodyPlace {
  /** So many bytes more have come. @returns false when there is no room, also with nobody slow left */
  take(bytes: number): boolean;
  /** It is whole, or given up. Safe to call twice. */
  leave(): void;
}

interface Gathering {
  readonly sinceMs: number;
  readonly cut: () => void;
  bytes: number;
}

export class BodyRoom {
  readonly #maxBytes: number;
  readonly #clock: Pick<Clock, "monotonicMs">;
  /** The one that began first is the first. */
  readonly #bodies = new Set<Gathering>();
  #bytes = 0;

  constructor(maxBytes: number, clock: Pick<Clock, "monotonicMs">) {
    this.#maxBytes = maxBytes;
    this.#clock = clock;
  }

  /** @param cut called when its room goes to others; it has left then */
  enter(cut: () => void): BodyPlace {
    const body: Gathering = { sinceMs: this.#clock.monotonicMs(), cut, bytes: 0 };
    this.#bodies.add(body);
    return {
      take: (bytes) => {
        body.bytes += bytes;
        this.#bytes += bytes;
        return this.#fits();
      },
      leave: () => this.#leave(body),
    };
  }

  #fits(): boolean {
    while (this.#bytes > this.#maxBytes) {
      const [first] = this.#bodies;
      if (first === undefined || this.#clock.monotonicMs() - first.sinceMs < SLOW_MS) return false;
      this.#leave(first);
      first.cut();
    }
    return true;
  }

  #leave(body: Gathering): void {
    if (this.#bodies.delete(body)) this.#bytes -= body.bytes;
  }
}
