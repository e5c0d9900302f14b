/**
 * Things in the order of their last use, so that those which nobody used for longest can go first. The links stand
 * in the things themselves. A Map whose entries are deleted and set again keeps the same order, but needs a new table
 * each time that so many have moved as it has room for, and one that is old gets it in V8's old space
 * (docs/design/0012-fast-paths.md).
 */

/** Both undefined in what is in no list. */
export interface Linked<T> {
  older: T | undefined;
  newer: T | undefined;
}

export class LastUsed<T extends Linked<T>> {
  #oldest: T | undefined;
  #newest: T | undefined;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get oldest(): T | undefined {
    return this.#oldest;
  }

  /** From here on it is the one that was used last, also where it was not in the list before. */
  touch(thing: T): void {
    if (thing === this.#newest) return;
    this.remove(thing);
    thing.older = this.#newest;
    if (this.#newest === undefined) this.#oldest = thing;
    else this.#newest.newer = thing;
    this.#newest = thing;
    this.#size++;
  }

  /** Safe where it is not in the list. */
  remove(thing: T): void {
    const { older, newer } = thing;
    if (older === undefined && thing !== this.#oldest) return;
    if (older === undefined) this.#oldest = newer;
    else older.newer = newer;
    if (newer === undefined) this.#newest = older;
    else newer.older = older;
    thing.older = undefined;
    thing.newer = undefined;
    this.#size--;
  }

  /** The oldest first. Nothing may be touched or removed meanwhile. */
  *[Symbol.iterator](): Generator<T> {
    for (let thing = this.#oldest; thing !== undefined; thing = thing.newer) yield thing;
  }
}
