/**
 * The requests that were stored lately, by the hash of their Idempotency-Key, so that one sent again
 * after a lost answer is stored once. Kept as a mark with the records, and so survives a power cut.
 */
import { createHash } from "node:crypto";

const HASH_BYTES = 10;
/** As many as a mark of 4 KiB holds. */
const MAX_REQUESTS = 400;

interface Request {
  /** Undefined once it is stored. */
  storing: Promise<void> | undefined;
  /** It is stored, or handed to the buffer before anything that is handed over from now on. */
  accepted: boolean;
}

export class RequestMemory {
  /** Oldest first. */
  readonly #requests = new Map<string, Request>();

  constructor(mark?: Uint8Array) {
    const bytes = Buffer.from(mark ?? []);
    for (let at = 0; at + HASH_BYTES <= bytes.length; at += HASH_BYTES)
      this.#requests.set(bytes.toString("latin1", at, at + HASH_BYTES), {
        storing: undefined,
        accepted: true,
      });
  }

  static hash(key: string): string {
    return createHash("sha256").update(key).digest().toString("latin1", 0, HASH_BYTES);
  }

  /** Resolves when that request is stored; undefined when it is new. */
  known(hash: string): Promise<void> | undefined {
    const request = this.#requests.get(hash);
    return request && (request.storing ?? Promise.resolve());
  }

  /**
   * The mark to be stored with one more request, which is handed to the buffer now. It names only
   * what is in the buffer before it: a request that the buffer refuses must not be taken for stored.
   */
  accept(hash: string): Buffer {
    const before = [...this.#requests].filter(([key, { accepted }]) => accepted && key !== hash);
    const request = this.#requests.get(hash);
    if (request !== undefined) request.accepted = true;
    const keys = before.slice(-(MAX_REQUESTS - 1)).map(([key]) => key);
    return Buffer.from([...keys, hash].join(""), "latin1");
  }

  /** When storing fails it is forgotten. */
  add(hash: string, storing: Promise<void>): void {
    const request: Request = { storing, accepted: false };
    this.#requests.set(hash, request);
    if (this.#requests.size > MAX_REQUESTS) {
      const [oldest] = this.#requests.keys();
      this.#requests.delete(oldest!);
    }
    storing.then(
      () => {
        request.storing = undefined;
      },
      () => {
        if (this.#requests.get(hash) === request) this.#requests.delete(hash);
      },
    );
  }
}
