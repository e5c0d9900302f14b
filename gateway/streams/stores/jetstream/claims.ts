/**
 * What one gateway alone may do for now, said aloud: the others stop doing it. No lease: nobody waits for an answer, and
 * a word may be lost with a connection. For what does no harm when it is done twice for a while.
 */
import type { Link } from "./link.ts";

export class Claims {
  readonly #link: Link;
  readonly #subject: string;

  constructor(link: Link, prefix: string) {
    this.#link = link;
    this.#subject = `${prefix}.n.claims`;
  }

  make(what: string): void {
    this.#link.tell(this.#subject, `${this.#link.id} ${what}`);
  }

  /** Those of others. @param heard told also whether that gateway's id comes before this one's */
  hear(heard: (what: string, comesFirst: boolean) => void): void {
    this.#link.hear(this.#subject, (_, text) => {
      const end = text.indexOf(" ");
      const id = text.slice(0, end);
      if (id !== this.#link.id) heard(text.slice(end + 1), id < this.#link.id);
    });
  }
}
