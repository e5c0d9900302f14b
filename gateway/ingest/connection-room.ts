/**
 * The connections of a door, and which of them goes where there are too many: to open many and say nothing costs nothing,
 * and would keep everybody out otherwise. Who was let in keeps its place, as long as it has no more than its share of
 * them: one device that goes wrong, or was taken over, keeps no other out.
 */
import type { Socket } from "node:net";
import { FairShares } from "../../runtime/fair-shares.ts";

export class ConnectionRoom {
  readonly max: number;
  readonly #shares: FairShares;
  readonly #sockets = new Set<Socket>();
  /** Of nobody who was let in yet, or beyond the share of who was; the oldest first. */
  readonly #yielding = new Set<Socket>();
  /** Whose the others are. */
  readonly #kept = new Map<Socket, string>();

  constructor(max: number) {
    this.max = max;
    this.#shares = new FairShares(max);
  }

  get size(): number {
    return this.#sockets.size;
  }

  get isFull(): boolean {
    return this.#sockets.size >= this.max;
  }

  /** Which is to make room; undefined where all keep their places. */
  get firstToGo(): Socket | undefined {
    return this.#yielding.values().next().value;
  }

  [Symbol.iterator](): IterableIterator<Socket> {
    return this.#sockets.values();
  }

  add(socket: Socket): void {
    this.#sockets.add(socket);
    this.#yielding.add(socket);
  }

  letIn(socket: Socket, device: string): void {
    if (!this.#yielding.has(socket) || !this.#shares.take(device)) return;
    this.#yielding.delete(socket);
    this.#kept.set(socket, device);
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
}
