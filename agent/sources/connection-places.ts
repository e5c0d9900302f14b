/**
 * The connections that a port may have, which all take a descriptor that the buffer needs, too. When there are
 * too many, the one of which nothing came for longest makes place for the new one: who opens many and says
 * nothing keeps nobody out.
 */
import type { Socket } from "node:net";

export class ConnectionPlaces {
  readonly #max: number;
  readonly #onShut: () => void;
  /** Those that may go. The one that has been waited for longest is the first. */
  readonly #waitedFor = new Set<Socket>();
  readonly #all = new Set<Socket>();

  /** @param onShut one was closed for want of places */
  constructor(max: number, onShut: () => void) {
    this.#max = max;
    this.#onShut = onShut;
  }

  /** Of a new connection. */
  admit(socket: Socket): void {
    if (this.#all.size >= this.#max) {
      const [longest = socket] = this.#waitedFor;
      this.#forget(longest);
      longest.destroy();
      this.#onShut();
      if (longest === socket) return;
    }
    this.#all.add(socket);
    this.#waitedFor.add(socket);
    socket.once("close", () => this.#forget(socket));
  }

  /** Something is done for it, or it has proved to be worth its place: it stays. */
  keep(socket: Socket): void {
    this.#waitedFor.delete(socket);
  }

  /** It is its turn again. */
  release(socket: Socket): void {
    if (!this.#all.has(socket)) return;
    this.#waitedFor.delete(socket);
    this.#waitedFor.add(socket);
  }

  #forget(socket: Socket): void {
    this.#all.delete(socket);
    this.#waitedFor.delete(socket);
  }
}
