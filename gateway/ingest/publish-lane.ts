/**
 * A shorter way for publishes through the broker library, for QoS 0 and 1. The library parses byte
 * lists, emits each publish to subscribers, which a door does not have, and writes each PUBACK by
 * itself; that costs more than storing a reading. Here publishes are read straight from the chunk,
 * and the PUBACKs of one group commit leave in one write for each connection.
 *
 *   chunk → PublishLane ─ QoS 0 and 1 → taken (stored) → PUBACKs, gathered
 *                       └ all else, all that is odd → the library, as before
 *
 * The library's way is the plain way beside this one: the same tests hold for both. Where
 * the library's internals are not as expected (library-client.ts), a client is left to it.
 *
 * Back-pressure: a connection (lane-connection.ts) is read on while little of it waits for an answer, and
 * little of all connections together (publish-memory.ts has the last word); and not while the library is at
 * one of its packets. Of a chunk with thousands of packets some are taken in each turn of the event loop, so
 * that others are heard in between.
 */
import type { Client } from "aedes";
import { type Lane, LaneConnection, type LaneConnectionOptions } from "./lane-connection.ts";
import { innerClient } from "./library-client.ts";
import type { PublishMemory } from "./publish-memory.ts";

/** What may wait for an answer on all connections; who has nothing waiting may hand in one publish more. */
const MAX_ALL_WAITING_BYTES = 32 * 1_048_576;
/** Packets of one connection that are taken in one turn of the event loop. */
const PACKETS_AT_ONCE = 512;
/** What is put off to the next turn, of all connections; beyond this a chunk is taken whole. */
const MAX_PUT_OFF_BYTES = 32 * 1_048_576;

export interface LaneOptions extends LaneConnectionOptions {
  /** 512 unless given. */
  readonly packetsAtOnce?: number;
}

export class PublishLane implements Lane {
  readonly options: LaneOptions;
  /** Connections with PUBACKs that are due. */
  #due: LaneConnection[] = [];
  readonly #memory: PublishMemory;
  readonly #held = new Set<LaneConnection>();
  #isStopped = false;
  #putOffBytes = 0;
  #allAnswered = (): void => {};

  constructor(options: LaneOptions) {
    this.options = options;
    this.#memory = options.memory;
  }

  /** Reads for a client that has not been heard yet; undefined where the library is not as expected. */
  attach(client: Client): LaneConnection | undefined {
    const inner = innerClient(client);
    if (inner === undefined) return undefined;
    return new LaneConnection(inner, this);
  }

  /** What one group commit answered comes in one turn; it leaves at the turn's end. */
  due(connection: LaneConnection): void {
    if (this.#due.push(connection) === 1) process.nextTick(() => this.#flush());
  }

  waits(bytes: number): void {
    this.#memory.waitingBytes += bytes;
    if (this.#memory.waitingBytes === 0) this.#allAnswered();
  }

  /** No connection that has to stop is read on any more. Resolves when nothing waits for an answer. */
  stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#memory.waitingBytes === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#allAnswered = resolve;
    });
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  get packetsAtOnce(): number {
    if (this.#putOffBytes > MAX_PUT_OFF_BYTES) return Number.POSITIVE_INFINITY;
    return this.options.packetsAtOnce ?? PACKETS_AT_ONCE;
  }

  putOff(bytes: number): void {
    this.#putOffBytes += bytes;
  }

  get isFull(): boolean {
    return this.#memory.waitingBytes > MAX_ALL_WAITING_BYTES;
  }

  hold(connection: LaneConnection): void {
    this.#held.add(connection);
  }

  #flush(): void {
    const due = this.#due;
    this.#due = [];
    for (const connection of due) connection.sendAnswers();
    this.#memory.roomCame();
    if (this.#held.size === 0 || this.#memory.waitingBytes > MAX_ALL_WAITING_BYTES / 2) return;
    const held = [...this.#held];
    this.#held.clear();
    for (const connection of held) connection.readOn();
  }
}
