/**
 * Objects that come and go all the time, in no order. A Set that empties and fills gets a new table each time, which V8
 * makes in old space once the Set is old; there it is garbage that only whole collections find, and what it referred to
 * lives on with it (docs/design/0012-fast-paths.md).
 */

export interface Placed {
  /** Of the set's alone; an object is in one set at most. */
  place: number;
}

export class PlacedSet<T extends Placed> {
  readonly #all: T[] = [];

  /** One that is not in it. */
  add(one: T): void {
    one.place = this.#all.push(one) - 1;
  }

  /** One that is in it. */
  delete({ place }: T): void {
    const last = this.#all.pop()!;
    if (last.place === place) return;
    this.#all[place] = last;
    last.place = place;
  }

  /** Those that are there now. */
  all(): T[] {
    return [...this.#all];
  }
}
