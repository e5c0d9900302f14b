/**
 * One-time tokens with which devices join. Only their hashes are kept.
 *
 * A token is spent by the first key that uses it: the same key may ask again until the token expires,
 * so that a device whose answer was lost on the way can still join, and nobody else can.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import { DEVICE_NAME } from "../../protocol/topics.ts";
import type { Clock } from "../../runtime/clock.ts";
import { writeDurably } from "../../runtime/durable.ts";
import { HeadwaterError } from "../../runtime/errors.ts";

const SECRET_BYTES = 20;
/** Those that were spent or ran out are remembered for a day, so that their users are told which it was. */
const REMEMBERED_MS = 86_400_000;
const MAX_TOKENS = 10_000;

/** Never made here, or long forgotten. */
export class TokenUnknownError extends HeadwaterError {
  constructor() {
    super("TOKEN_UNKNOWN", {
      message: "this gateway does not know the token",
      hint: "make one on this gateway: headwater-gateway devices token NAME",
    });
  }
}

/** It was not used in time. */
export class TokenExpiredError extends HeadwaterError {
  constructor() {
    super("TOKEN_EXPIRED", {
      message: "the token has expired",
      hint: "make another: headwater-gateway devices token NAME",
    });
  }
}

/** Another key has joined with it. */
export class TokenUsedError extends HeadwaterError {
  constructor() {
    super("TOKEN_USED", {
      message: "the token was used already",
      hint: "if it was not this device, revoke it; then make another: headwater-gateway devices token NAME",
    });
  }
}

/** Thousands of tokens wait for their devices. */
export class TooManyTokensError extends HeadwaterError {
  constructor() {
    super("TOO_MANY_TOKENS", { message: `${MAX_TOKENS} tokens are open already`, retryable: true });
  }
}

export interface Token {
  readonly device: string;
  /** SHA-256 of the secret, hexadecimal. */
  readonly hash: string;
  readonly expiresMs: number;
  /** SHA-256 of the key that spent it. */
  usedBy?: string;
}

export class TokenStore {
  readonly #file: string;
  readonly #clock: Clock;
  #tokens: Token[] = [];
  #writing: Promise<void> = Promise.resolve();

  constructor(file: string, clock: Clock) {
    this.#file = file;
    this.#clock = clock;
  }

  /**
   * What is no token is left out, and the file kept aside: a token that is not known is refused, which is
   * the safe side, and the device can be given another.
   * @returns how many were left out, and where they are; undefined when all is well
   */
  async start(): Promise<{ readonly leftOut: number; readonly keptAt: string } | undefined> {
    let text: string;
    try {
      text = await readFile(this.#file, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
    const { tokens, leftOut } = tokensIn(text);
    this.#tokens = tokens;
    if (leftOut === 0) return undefined;
    const keptAt = `${this.#file}.damaged`;
    await writeDurably(keptAt, text, 0o600);
    return { leftOut, keptAt };
  }

  /** The secret; it is on disk, as a hash, when this resolves. @throws TooManyTokensError */
  async make(device: string, lifeMs: number): Promise<Buffer> {
    const nowMs = this.#nowMs();
    this.#tokens = this.#tokens.filter((token) => token.expiresMs + REMEMBERED_MS > nowMs);
    if (this.#tokens.length >= MAX_TOKENS) throw new TooManyTokensError();
    const secret = randomBytes(SECRET_BYTES);
    this.#tokens.push({ device, hash: hashOf(secret).toString("hex"), expiresMs: nowMs + lifeMs });
    await this.#write();
    return secret;
  }

  /** Whose token it is, whatever became of it. @throws TokenUnknownError */
  deviceOf(secret: Uint8Array): string {
    return this.#find(secret).device;
  }

  /**
   * Spends it: on disk before this resolves, so that a crash never makes it good again. One behind it
   * leaves a token that only this key can still use.
   * @throws TokenUnknownError, TokenExpiredError, TokenUsedError
   */
  async spend(secret: Uint8Array, keyHash: string): Promise<string> {
    const token = this.#find(secret);
    if (token.usedBy !== undefined && token.usedBy !== keyHash) throw new TokenUsedError();
    if (token.expiresMs <= this.#nowMs()) throw new TokenExpiredError();
    token.usedBy = keyHash;
    // Also where it was spent before: a full disk may have kept that from being written.
    await this.#write();
    return token.device;
  }

  /**
   * Whoever holds a token of the device cannot join with it from the call on.
   * @returns whether there was one
   */
  async forget(device: string): Promise<boolean> {
    const before = this.#tokens.length;
    this.#tokens = this.#tokens.filter((token) => token.device !== device);
    if (this.#tokens.length === before) return false;
    await this.#write();
    return true;
  }

  #find(secret: Uint8Array): Token {
    const hash = hashOf(secret);
    let found: Token | undefined;
    // All are compared, so that the time says nothing.
    for (const token of this.#tokens) {
      if (timingSafeEqual(hash, Buffer.from(token.hash, "hex"))) found = token;
    }
    if (found === undefined) throw new TokenUnknownError();
    return found;
  }

  #write(): Promise<void> {
    const next = this.#writing.then(() =>
      writeDurably(this.#file, `${JSON.stringify({ version: 1, tokens: this.#tokens })}\n`, 0o600),
    );
    this.#writing = next.catch(() => {});
    return next;
  }

  #nowMs(): number {
    return this.#clock.nowUs() / 1_000;
  }
}

/** Of what was written by `make` and `spend`; a file that is no JSON counts as one that is left out. */
export function tokensIn(text: string): { readonly tokens: Token[]; readonly leftOut: number } {
  let listed: unknown;
  try {
    listed = (JSON.parse(text) as { tokens?: unknown } | null)?.tokens;
  } catch {
    // Cut off, or somebody edited it.
  }
  if (!Array.isArray(listed)) return { tokens: [], leftOut: 1 };
  const tokens = listed.filter(isToken).slice(0, MAX_TOKENS);
  return { tokens, leftOut: listed.length - tokens.length };
}

function isToken(value: unknown): value is Token {
  const { device, hash, expiresMs, usedBy } = (value ?? {}) as Partial<Record<keyof Token, unknown>>;
  return (
    typeof device === "string" &&
    DEVICE_NAME.test(device) &&
    typeof hash === "string" &&
    /^[0-9a-f]{64}$/.test(hash) &&
    typeof expiresMs === "number" &&
    (usedBy === undefined || typeof usedBy === "string")
  );
}

function hashOf(secret: Uint8Array): Buffer {
  return createHash("sha256").update(secret).digest();
}
