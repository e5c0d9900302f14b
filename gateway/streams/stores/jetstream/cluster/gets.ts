/**
 * Messages that are on their way from the cluster, of all streams together, bounded in bytes. nats-server cuts a client off for
 * which 64 MB wait (its `max_pending`), and all that was asked on that connection with it. How large a message is, is known
 * only when it is here: each is taken to be about as large as those that came from beside it. Those from elsewhere in the stream
 * tell nothing: one reader goes through large ones of yesterday while small ones arrive.
 */
import { Turnstile } from "../../../../../runtime/turnstile.ts";

/** A quarter of what a nats-server lets wait: estimates may be wrong, and other answers come, too. */
const AT_ONCE_BYTES = 16 * 1_048_576;
/** Where nothing is known: also if each of these is as large as can be, the nodes let them wait. */
const UNKNOWN_BYTES = AT_ONCE_BYTES / 3;
/** What is smaller does not wait behind what is larger. */
const SMALL_BYTES = 65_536;
const SMALL_AT_ONCE_BYTES = AT_ONCE_BYTES / 2;
/** After a large message the next ones are taken to be large for a while. */
const KEPT_SHARE = 0.75;
/** Messages that tell of each other's size. */
const BESIDE = 64;
/** Stretches of so many of which the size is remembered: those that came last. */
const MAX_STRETCHES = 8_192;

export class Gets {
  readonly #large = new Turnstile(AT_ONCE_BYTES);
  readonly #small = new Turnstile(SMALL_AT_ONCE_BYTES);
  /** JetStream stream and stretch → bytes that its next message may have. The one that was told of last is last. */
  readonly #expected = new Map<string, number>();

  /** How many messages of a stream, from this place on, may be asked for so that they have about `bytes` together: 1 to `most`. */
  ahead(stream: string, sequence: number, most: number, bytes = AT_ONCE_BYTES): number {
    return Math.max(1, Math.min(most, Math.floor(bytes / Math.max(1, this.#expectedOf(stream, sequence)))));
  }

  /**
   * @param sequence undefined for the last one of a subject, wherever that is
   * @param ask for one message, in the answer's data
   */
  async run<T extends { readonly data: Uint8Array }>(
    stream: string,
    sequence: number | undefined,
    ask: () => Promise<T>,
  ): Promise<T> {
    const expected = this.#expectedOf(stream, sequence);
    const answer = await (expected <= SMALL_BYTES ? this.#small : this.#large).run(expected, ask);
    this.#note(stretchOf(stream, sequence), answer.data.length);
    return answer;
  }

  #expectedOf(stream: string, sequence: number | undefined): number {
    const here = this.#expected.get(stretchOf(stream, sequence));
    if (here !== undefined) return here;
    // Who goes through a stream comes from there.
    const before = sequence === undefined ? undefined : stretchOf(stream, sequence - BESIDE);
    return (before === undefined ? undefined : this.#expected.get(before)) ?? UNKNOWN_BYTES;
  }

  #note(stretch: string, bytes: number): void {
    const before = this.#expected.get(stretch) ?? 0;
    this.#expected.delete(stretch);
    this.#expected.set(stretch, Math.max(bytes, before * KEPT_SHARE));
    if (this.#expected.size <= MAX_STRETCHES) return;
    for (const oldest of this.#expected.keys()) {
      this.#expected.delete(oldest);
      break;
    }
  }
}

function stretchOf(stream: string, sequence: number | undefined): string {
  return sequence === undefined ? stream : `${stream} ${Math.floor(sequence / BESIDE)}`;
}
