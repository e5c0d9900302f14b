/**
 * The message ids of one publish. Its tries share an id, so that the cluster knows a repetition. But a leader notes the id
 * before it proposes a message, and where the proposal comes to nothing it may call each repetition a duplicate at
 * place 0, "on its way", until its duplicate window has passed (design note 16). So after some seconds of that the next tries
 * have another id. Both may be stored after all: they expect the same message, so that only the first of them counts.
 */
import type { Clock } from "../../../../../runtime/clock.ts";
import { ID_HEADER, type StoredMessage } from "./stored-message.ts";

/** Without a majority a message is on its way for long; each id more is then a copy more in the leader's log. So it doubles. */
const ON_ITS_WAY_MS = 5_000;

export class MessageIds {
  readonly #clock: Clock;
  readonly #first: string;
  #others = 0;
  #sinceMs: number | undefined;

  constructor(first: string, clock: Clock) {
    this.#first = first;
    this.#clock = clock;
  }

  /** Of the next try. */
  get current(): string {
    return this.#others === 0 ? this.#first : `${this.#first}+${this.#others}`;
  }

  /** The cluster said of the last try that it is on its way. */
  onItsWay(): void {
    const nowMs = this.#clock.monotonicMs();
    this.#sinceMs ??= nowMs;
    if (nowMs - this.#sinceMs < ON_ITS_WAY_MS * 2 ** this.#others) return;
    this.#others++;
    this.#sinceMs = undefined;
  }
}

/** Where a message of a publish stands, and under which of its ids. */
export interface Sent {
  readonly sequence: number;
  readonly id: string;
}

/** Whether a message with this id was sent by the publish whose first id that was. */
export function isOf(first: string, id: string): boolean {
  return id === first || id.startsWith(`${first}+`);
}

/** @returns undefined where it is another publish's */
export function sentBy(first: string, message: StoredMessage | undefined): Sent | undefined {
  if (message === undefined) return undefined;
  const id = message.header(ID_HEADER);
  return isOf(first, id) ? { sequence: message.sequence, id } : undefined;
}
