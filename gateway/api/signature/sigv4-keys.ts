/**
 * The keys that signatures are made with: derived from a secret for a day, a region and a service, and
 * kept, because the derivation costs four times as much as a signature.
 */
import crypto from "node:crypto";

/** RFC 2104: SHA-256 works on blocks of 64 bytes. */
const BLOCK_BYTES = 64;
const HASH_BYTES = 32;
/** Presigned requests live for seven days; with today and tomorrow's first minutes that is nine dates. */
const MAX_DATES = 9;

/** In hex, or as the characters 0 to 255. */
export function sha256(bytes: string | Uint8Array, encoding: "hex" | "binary"): string {
  // The one-shot form, of Node 20.12, takes half the time.
  return crypto.hash === undefined
    ? crypto.createHash("sha256").update(bytes).digest(encoding)
    : crypto.hash("sha256", bytes, encoding);
}

/** HMAC-SHA256 under one key (RFC 2104), as two one-shot hashes: `createHmac` takes twice the time. */
export class HmacKey {
  readonly #inner: Buffer;
  readonly #outer = Buffer.alloc(BLOCK_BYTES + HASH_BYTES, 0x5c);

  /** @param key at most 64 bytes */
  constructor(key: Uint8Array) {
    this.#inner = Buffer.alloc(BLOCK_BYTES, 0x36);
    for (let i = 0; i < key.length; i++) {
      this.#inner[i]! ^= key[i]!;
      this.#outer[i]! ^= key[i]!;
    }
  }

  /** @param text ASCII. @returns hex */
  sign(text: string): string {
    const message = Buffer.allocUnsafe(BLOCK_BYTES + text.length);
    message.set(this.#inner);
    message.write(text, BLOCK_BYTES, "latin1");
    this.#outer.write(sha256(message, "binary"), BLOCK_BYTES, "latin1");
    return sha256(this.#outer, "hex");
  }
}

export class SigningKeys {
  readonly #region: string;
  readonly #service: string;
  /** Key id → date → derived key. Both are checked before they come here, so that it stays small. */
  readonly #derived = new Map<string, Map<string, HmacKey>>();

  constructor(region: string, service: string) {
    this.#region = region;
    this.#service = service;
  }

  of(key: { readonly id: string; readonly secret: string }, date: string): HmacKey {
    let dates = this.#derived.get(key.id);
    if (dates === undefined) {
      dates = new Map();
      this.#derived.set(key.id, dates);
    }
    let derived = dates.get(date);
    if (derived === undefined) {
      derived = this.#derive(key.secret, date);
      if (dates.size >= MAX_DATES) dates.delete(dates.keys().next().value!);
      dates.set(date, derived);
    }
    return derived;
  }

  #derive(secret: string, date: string): HmacKey {
    let key: Buffer = Buffer.from(`AWS4${secret}`);
    for (const step of [date, this.#region, this.#service, "aws4_request"]) {
      key = crypto.createHmac("sha256", key).update(step).digest();
    }
    return new HmacKey(key);
  }
}
