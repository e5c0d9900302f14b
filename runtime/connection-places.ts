/**
 * The connections that a port may have, which all take a descriptor that files need, too. When there are
 * too many, the one of which nothing came for longest makes place for the new one: who opens many and says
 * nothing keeps nobody out. Too many are also those of all ports together that take half of the process's descriptors.
 */
import type { Socket } from "node:net";
import { maxDescriptors } from "./descriptors.ts";

/** Of all ports, as descriptors are the process's. */
const together = new Map<Socket, ConnectionPlaces>();
const waitedForTogether = new Set<Socket>();

export class ConnectionPlaces {
  readonly #max: number;
  readonly #maxTogether = Math.floor(maxDescriptors() / 2);
  readonly #onShut: (reason: string) => void;
  /** Those that may go. The one that has been waited for longest is the first. */
  readonly #waitedFor = new Set<Socket>();
  readonly #all = new Set<Socket>();

  /** @param onShut one was closed for want of places */
  constructor(max: number, onShut: (reason: string) => void) {
    this.#max = max;
    this.#onShut = onShut;
  }

  /** Of a new connection. */
  admit(socket: Socket): void {
    const full = this.#all.size >= this.#max;
    if (full || together.size >= this.#maxTogether) {
      const [longest = socket] = full ? this.#waitedFor : waitedForTogether;
      const owner = together.get(longest) ?? this;
      owner.#forget(longest);
      longest.destroy();
      this.#onShut(
        full
          ? `more than ${this.#max} connections`
          : `more than ${this.#maxTogether} connections on all ports, half of the process's file descriptors`,
      );
      if (longest === socket) return;
    }
    this.#all.add(socket);
    together.set(socket, this);
    this.release(socket);
    socket.once("close", () => this.#forget(socket));
  }

  /** Something is done for it, or it has proved to be worth its place: it stays. */
  keep(socket: Socket): void {
    this.#waitedFor.delete(socket);
    waitedForTogether.delete(socket);
  }

  /** It is its turn again. */
  release(socket: Socket): void {
    if (!this.#all.has(socket)) return;
    this.keep(socket);
    this.#waitedFor.add(socket);
    waitedForTogether.add(socket);
  }

  #forget(socket: Socket): void {
    this.keep(socket);
    this.#all.delete(socket);
    together.delete(socket);
  }
}
