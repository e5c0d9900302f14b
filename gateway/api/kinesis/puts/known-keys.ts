/**
 * Partition keys that came before, found by their bytes in a body: keys repeat, and neither their
 * text nor their MD5 needs to be made again. Bounded: each key has two places, and of three that share
 * them the last two stay. What is kept is printable ASCII without quote and backslash, so that the bytes of a key that
 * is found need no closer look, neither in JSON nor in CBOR.
 */
import { keyHashWords } from "../../../streams/streams.ts";

const SLOTS = 32_768;
/** A UUID has 36. Longer ones are made anew each time. */
const MAX_KEPT_BYTES = 44;
// A slot is as long as a line of the processor's cache, as one look-up needs all of it:
// the key's bytes, filled up with zeros; their number, 0 where there is no key; the words of its hash.
const SLOT_WORDS = 16;
const LENGTH_AT = 11;
const HASH_AT = 12;
const HASH_WORDS = 4;
/** Behind the others: the last key that was not kept. */
const UNKEPT = SLOTS;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;

export class KnownKeys {
  /** By slot. */
  readonly texts: string[] = new Array<string>(SLOTS + 1).fill("");
  readonly #words = new Int32Array((SLOTS + 1) * SLOT_WORDS);
  readonly #hash = new Uint32Array(HASH_WORDS);

  /**
   * The slot of the key that stands in `[from, to)`, or -1. It holds until the next `learn`.
   * @param end of what may be read, as words are read whole
   */
  find(view: DataView, from: number, to: number, end: number): number {
    const bytes = to - from;
    if (bytes <= 0 || bytes > MAX_KEPT_BYTES || to + 3 > end) return -1;
    const slot = slotOf(view, from, to);
    if (this.#holds(slot, view, from, to)) return slot;
    return this.#holds(slot ^ 1, view, from, to) ? slot ^ 1 : -1;
  }

  /** Takes in the key that stands in `[from, to)`, which is not known, and whose text is `text`. */
  learn(view: DataView, from: number, to: number, end: number, text: string): number {
    const bytes = to - from;
    const keeps = bytes > 0 && bytes <= MAX_KEPT_BYTES && to + 3 <= end && isPlain(view, from, to);
    const slot = keeps ? slotOf(view, from, to) : UNKEPT;
    const words = this.#words;
    const base = slot * SLOT_WORDS;
    if (keeps) {
      // What stood there has a second place.
      if (words[base + LENGTH_AT] !== 0) this.#move(slot, slot ^ 1);
      for (let i = from, at = base; i < to; i += 4, at++) words[at] = wordAt(view, i, to);
      words[base + LENGTH_AT] = bytes;
    }
    this.texts[slot] = text;
    keyHashWords(text, this.#hash);
    words.set(this.#hash, base + HASH_AT);
    return slot;
  }

  /** Puts the four words of a slot's hash at `at`. */
  copyHash(slot: number, to: Uint32Array, at: number): void {
    const words = this.#words;
    const from = slot * SLOT_WORDS + HASH_AT;
    to[at] = words[from]!;
    to[at + 1] = words[from + 1]!;
    to[at + 2] = words[from + 2]!;
    to[at + 3] = words[from + 3]!;
  }

  #holds(slot: number, view: DataView, from: number, to: number): boolean {
    const words = this.#words;
    let at = slot * SLOT_WORDS;
    if (words[at + LENGTH_AT] !== to - from) return false;
    for (let i = from; i < to; i += 4, at++) if (words[at] !== wordAt(view, i, to)) return false;
    return true;
  }

  #move(from: number, to: number): void {
    this.texts[to] = this.texts[from]!;
    this.#words.copyWithin(to * SLOT_WORDS, from * SLOT_WORDS, (from + 1) * SLOT_WORDS);
  }
}

/** Four bytes, of which those from `to` on are taken for zeros. */
function wordAt(view: DataView, at: number, to: number): number {
  const word = view.getInt32(at, true);
  return at + 4 <= to ? word : word & (-1 >>> ((at + 4 - to) << 3));
}

function slotOf(view: DataView, from: number, to: number): number {
  let hash = to - from;
  for (let i = from; i < to; i += 4) {
    hash = Math.imul(hash ^ wordAt(view, i, to), 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  return hash & (SLOTS - 1);
}

function isPlain(view: DataView, from: number, to: number): boolean {
  for (let i = from; i < to; i++) {
    const byte = view.getUint8(i);
    if (byte < 0x20 || byte > 0x7e || byte === QUOTE || byte === BACKSLASH) return false;
  }
  return true;
}
