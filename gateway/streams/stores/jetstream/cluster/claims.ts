/**
 * What one gateway alone may do for now, said aloud: the others stop doing it. No lease: nobody waits for an answer, and
 * a word may be lost with a connection, or come late. For what does no harm when it is done twice for a while.
 *
 * Claims are told apart by when they were made, in a time that all gateways come to share: each follows its own clock, and
 * is never behind what it has heard. Who holds a later claim than the one that it hears gives nothing up, and says its own again.
 */
import type { Clock } from "../../../../../runtime/clock.ts";
import type { Link } from "./link.ts";

export class Claims {
  readonly #link: Link;
  readonly #clock: Clock;
  readonly #subject: string;
  /** When those that stand were made, µs. */
  readonly #standing = new Map<string, number>();
  readonly #hearers: Array<(what: string) => void> = [];
  #latestUs = 0;

  constructor(link: Link, clock: Clock, prefix: string) {
    this.#link = link;
    this.#clock = clock;
    this.#subject = `${prefix}.n.claims`;
    link.hear(this.#subject, (_, text) => this.#heard(text));
  }

  /** @returns to be called when it is over, as else it would be held against what others claim later */
  make(what: string): () => void {
    const madeUs = Math.max(this.#latestUs + 1, this.#clock.nowUs());
    this.#latestUs = madeUs;
    this.#standing.set(what, madeUs);
    this.#say(what, madeUs);
    return () => {
      if (this.#standing.get(what) === madeUs) this.#standing.delete(what);
    };
  }

  /** Those of others, which end this gateway's own. */
  hear(heard: (what: string) => void): void {
    this.#hearers.push(heard);
  }

  #heard(text: string): void {
    const [, id, made, what] = /^(\S+) (\d+) (.+)$/s.exec(text) ?? [];
    if (id === undefined || id === this.#link.id) return;
    const madeUs = Number(made);
    this.#latestUs = Math.max(this.#latestUs, madeUs);
    const mineUs = this.#standing.get(what!);
    if (mineUs !== undefined && (mineUs > madeUs || (mineUs === madeUs && this.#link.id > id))) {
      // It came late, or that gateway knows nothing of this one's.
      this.#say(what!, mineUs);
      return;
    }
    this.#standing.delete(what!);
    for (const heard of this.#hearers) heard(what!);
  }

  #say(what: string, madeUs: number): void {
    this.#link.tell(this.#subject, `${this.#link.id} ${madeUs} ${what}`);
  }
}
