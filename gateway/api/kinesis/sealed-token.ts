/**
 * Places in our data that clients carry for us: shard iterators and next tokens. Sealed by
 * AES-256-GCM, so that nobody reads, alters or makes up one. The key is derived from the gateway's
 * access keys: tokens outlive a restart, and end with a change of the keys.
 *
 *   base64( u8 version | 12-byte nonce | sealed( u64 issuedMs | JSON ) | 16-byte tag )
 */
import { createCipheriv, createDecipheriv, createHash, createHmac, randomBytes } from "node:crypto";

const VERSION = 1;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const HEAD_BYTES = 1 + NONCE_BYTES;
const MAX_TOKEN_CHARACTERS = 1_048;

/** Kinesis: an iterator or a token lives for five minutes. */
export const TOKEN_LIFE_MS = 300_000;

export interface OpenedToken {
  readonly issuedMs: number;
  readonly content: unknown;
}

export class TokenSealer {
  readonly #key: Buffer;
  readonly #purpose: Buffer;

  /** @param purpose what the tokens are for; one of another purpose does not open */
  constructor(secrets: readonly string[], purpose: string) {
    // Each secret is hashed before they are joined, so that no two lists of secrets give the same key.
    const joined = secrets.map((secret) => createHash("sha256").update(secret).digest("hex")).sort();
    this.#key = createHmac("sha256", "headwater sealed token").update(joined.join("")).digest();
    this.#purpose = Buffer.from(purpose);
  }

  seal(content: unknown, issuedMs: number): string {
    const nonce = randomBytes(NONCE_BYTES);
    const plain = Buffer.concat([Buffer.alloc(8), Buffer.from(JSON.stringify(content))]);
    plain.writeDoubleBE(issuedMs);
    const cipher = createCipheriv("aes-256-gcm", this.#key, nonce);
    cipher.setAAD(this.#purpose);
    const sealed = Buffer.concat([Buffer.from([VERSION]), nonce, cipher.update(plain), cipher.final()]);
    return Buffer.concat([sealed, cipher.getAuthTag()]).toString("base64");
  }

  /** Undefined for anything that `seal` did not give. */
  open(token: string): OpenedToken | undefined {
    if (token.length > MAX_TOKEN_CHARACTERS) return undefined;
    const bytes = Buffer.from(token, "base64");
    // One token has one spelling: Buffer.from overlooks what is no base64.
    if (bytes.toString("base64") !== token) return undefined;
    if (bytes.length < HEAD_BYTES + 8 + TAG_BYTES || bytes[0] !== VERSION) return undefined;
    try {
      const decipher = createDecipheriv("aes-256-gcm", this.#key, bytes.subarray(1, HEAD_BYTES));
      decipher.setAAD(this.#purpose);
      decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
      const sealed = bytes.subarray(HEAD_BYTES, -TAG_BYTES);
      const plain = Buffer.concat([decipher.update(sealed), decipher.final()]);
      return { issuedMs: plain.readDoubleBE(0), content: JSON.parse(plain.toString("utf8", 8)) as unknown };
    } catch {
      return undefined;
    }
  }
}
