/**
 * Requests under way on connections that nobody has proven to be theirs. One holds 10 to 35 KiB over HTTP/2, where
 * 128 may be open, and 3 KiB over HTTP/1.1, where a packet may bring a thousand; to leave them open, or to read
 * no answer, costs nothing. So all of them together are bounded as connections are, and beyond that the
 * connection goes that has the most. To refuse single ones would help little: a client that reads nothing
 * would be owed as many refusals.
 */

interface UnderWay {
  count: number;
  readonly end: () => void;
}

export class StrangerRequests {
  readonly #max: number;
  readonly #isKnown: (connection: object) => boolean;
  readonly #onEnded: () => void;
  /** By connection, also of those that were proven meanwhile. */
  readonly #underWay = new Map<object, UnderWay>();
  #count = 0;

  /** @param onEnded hears of each connection that made room */
  constructor(max: number, isKnown: (connection: object) => boolean, onEnded: () => void) {
    this.#max = max;
    this.#isKnown = isKnown;
    this.#onEnded = onEnded;
  }

  /** @param end of the connection; `closed` follows. @returns whether `done` is due */
  began(connection: object, end: () => void): boolean {
    if (this.#isKnown(connection)) return false;
    const known = this.#underWay.get(connection);
    if (known === undefined) this.#underWay.set(connection, { count: 1, end });
    else known.count++;
    if (++this.#count > this.#max) this.#makeRoom();
    return true;
  }

  /** Of a connection that is no longer counted, too. */
  done(connection: object): void {
    const underWay = this.#underWay.get(connection);
    if (underWay === undefined) return;
    this.#count--;
    if (--underWay.count === 0) this.#underWay.delete(connection);
  }

  /** With all that was under way. */
  closed(connection: object): void {
    this.#count -= this.#underWay.get(connection)?.count ?? 0;
    this.#underWay.delete(connection);
  }

  #makeRoom(): void {
    let busiest: object | undefined;
    let most = 0;
    for (const [connection, { count }] of this.#underWay) {
      if (this.#isKnown(connection)) this.closed(connection);
      else if (count > most) {
        busiest = connection;
        most = count;
      }
    }
    if (busiest === undefined || this.#count <= this.#max) return;
    const { end } = this.#underWay.get(busiest)!;
    this.closed(busiest);
    end();
    this.#onEnded();
  }
}
