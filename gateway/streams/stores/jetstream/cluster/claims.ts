/**
 * What one gateway alone may do for now, said aloud: the others stop doing it. No lease: nobody waits for an answer, and
 * a word may be lost with a connection, until that is there again, or come late. For what does no harm when it is done twice for a while.
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
  /** By the kind of what they hear of. */
  readonly #hearers = new Map<string, (name: string) => void>();
  #latestUs = 0;

  constructor(link: Link, clock: Clock, prefix: string) {
    this.#link = link;
    this.#clock = clock;
    this.#subject = `${prefix}.n.claims`;
    link.hear(this.#subject, (_, text) => this.#heard(text));
    // What was said meanwhile, by this gateway or another one, is lost: who holds a later claim answers with it.
    link.onReconnected(() => {
      for (const [what, madeUs] of this.#standing) this.#say(what, madeUs);
    });
  }

  /** @returns to be called when it is over, as else it would be held against what others claim later */
  make(kind: string, name: string): () => void {
    const what = `${kind} ${name}`;
    const madeUs = Math.max(this.#latestUs + 1, this.#clock.nowUs());
    this.#latestUs = madeUs;
    this.#standing.set(what, madeUs);
    this.#say(what, madeUs);
    return () => {
      if (this.#standing.get(what) === madeUs) this.#standing.delete(what);
    };
  }

  /** Those of others, which end this gateway's own. @param kind without a space in it; each has one hearer */
  hear(kind: string, heard: (name: string) => void): void {
    this.#hearers.set(kind, heard);
  }

  #heard(text: string): void {
    const [, id, made, what, kind, name] = /^(\S+) (\d+) ((\S+) (.+))$/s.exec(text) ?? [];
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
    this.#hearers.get(kind!)?.(name!);
  }

  #say(what: string, madeUs: number): void {
    this.#link.tell(this.#subject, `${this.#link.id} ${madeUs} ${what}`);
  }
}
