/**
 * The connections of a door, and which of them goes where there are too many: to open many and say nothing costs nothing,
 * and would keep everybody out otherwise. Who was let in keeps its place, as long as it has no more than its share of
 * them: one device that goes wrong, or was taken over, keeps no other out.
 */
import type { Socket } from "node:net";
import { FairShares } from "../../runtime/fair-shares.ts";

export class ConnectionRoom {
  readonly #max: number;
  readonly #shares: FairShares;
  readonly #sockets = new Set<Socket>();
  /** Of nobody who was let in yet or, with whose they are, beyond the share of who was; the oldest first. */
  readonly #yielding = new Map<Socket, string | undefined>();
  /** Whose the others are. */
  readonly #kept = new Map<Socket, string>();

  constructor(max: number) {
    this.#max = max;
    this.#shares = new FairShares(max);
  }

  get size(): number {
    return this.#sockets.size;
  }

  get isFull(): boolean {
    return this.#sockets.size >= this.#max;
  }

  /** Which is to make room; undefined where all keep their places. */
  firstToGo(): Socket | undefined {
    for (const [socket, device] of this.#yielding) {
      // Its device may have fewer by now than when it came.
      if (device === undefined || !this.#keep(socket, device)) return socket;
    }
    return undefined;
  }

  [Symbol.iterator](): IterableIterator<Socket> {
    return this.#sockets.values();
  }

  add(socket: Socket): void {
    this.#sockets.add(socket);
    this.#yielding.set(socket, undefined);
  }

  letIn(socket: Socket, device: string): void {
    if (this.#yielding.has(socket) && !this.#keep(socket, device)) this.#yielding.set(socket, device);
  }

  /** Safe to call twice. */
  forget(socket: Socket): void {
    this.#sockets.delete(socket);
    this.#yielding.delete(socket);
    const device = this.#kept.get(socket);
    if (device === undefined) return;
    this.#kept.delete(socket);
    this.#shares.give(device);
  }

  /** @returns false where it is beyond the share of its device */
  #keep(socket: Socket, device: string): boolean {
    if (!this.#shares.take(device)) return false;
    this.#yielding.delete(socket);
    this.#kept.set(socket, device);
    return true;
  }
}
