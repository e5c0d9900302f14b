/**
 * Messages that are on their way from the cluster, of all streams together, bounded in bytes. nats-server cuts a client off for
 * which 64 MB wait (its `max_pending`), and all that was asked on that connection with it. How large a message is, is known
 * only when it is here: each is taken to be about as large as those of its stream that came before.
 */
import { Turnstile } from "../../../../runtime/turnstile.ts";

/** A quarter of what a nats-server lets wait: estimates may be wrong, and other answers come, too. */
const AT_ONCE_BYTES = 16 * 1_048_576;
/** What is smaller needs no turn: there are never so many asked for at once. */
const SMALL_BYTES = 65_536;
/** After a large message the next ones are taken to be large for a while. */
const KEPT_SHARE = 0.75;
/** Streams of which the size is remembered. */
const MAX_STREAMS = 1_024;

export class Gets {
  readonly #room = new Turnstile(AT_ONCE_BYTES);
  /** JetStream stream → bytes that its next message may have. */
  readonly #expected = new Map<string, number>();

  /** How many of the next messages of a stream may be asked for so that they have about `bytes` together: 1 to `most`. */
  ahead(stream: string, most: number, bytes = AT_ONCE_BYTES): number {
    return Math.max(1, Math.min(most, Math.floor(bytes / Math.max(1, this.#expectedOf(stream)))));
  }

  /** @param ask for one message, in the answer's data */
  async run<T extends { readonly data: Uint8Array }>(stream: string, ask: () => Promise<T>): Promise<T> {
    const expected = this.#expectedOf(stream);
    const answer = await (expected <= SMALL_BYTES ? ask() : this.#room.run(expected, ask));
    this.#note(stream, answer.data.length);
    return answer;
  }

  /** As large as can be while nothing is known. */
  #expectedOf(stream: string): number {
    return this.#expected.get(stream) ?? AT_ONCE_BYTES;
  }

  #note(stream: string, bytes: number): void {
    const before = this.#expected.get(stream) ?? 0;
    if (!this.#expected.has(stream) && this.#expected.size === MAX_STREAMS) this.#expected.clear();
    this.#expected.set(stream, Math.max(bytes, before * KEPT_SHARE));
  }
}
