/**
 * Who is signed in at the console. A session begins with an access key or a one-time link, is held
 * by a cookie, and lives in memory only: a restart of the gateway signs everybody out.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import type { AccessKeyConfig } from "../../../config/gateway-config.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { HeadwaterError } from "../../../runtime/errors.ts";
import { allows } from "../signature/access.ts";
import { ConsoleError } from "./console-reply.ts";

const COOKIE = "headwater_session";
const SESSION_LIFE_MS = 12 * 3_600_000;
const LINK_LIFE_MS = 10 * 60_000;
const MAX_SESSIONS = 1_000;
const MAX_LINKS = 100;
/** Wrong secrets for one key id that one address has in a minute before it must wait. */
const MAX_FAILURES = 10;
const FAILURE_WINDOW_MS = 60_000;
const MAX_FAILING = 10_000;

/** A sign-in link was asked for, but no key opens the console. */
export class NoConsoleKeyError extends HeadwaterError {
  constructor() {
    super("NO_CONSOLE_KEY", {
      message: "no access key may use the console",
      hint: 'add "console" to the allow list of a key under accessKeys in gateway.yaml',
    });
  }
}

export interface Session {
  readonly accessKeyId: string;
  readonly expiresMs: number;
}

interface Failures {
  /** Digests: a program that is set up wrongly tries the same again and again, and guesses nothing. */
  readonly secrets: Set<string>;
  readonly untilMs: number;
}

export class Sessions {
  readonly #keys: readonly AccessKeyConfig[];
  readonly #clock: Clock;
  /** By the SHA-256 of the cookie: whoever reads our memory by a bug gets no cookie, and look-ups leak no timing. */
  readonly #sessions = new Map<string, Session>();
  readonly #links = new Map<string, Session>();
  /** By address and key id: behind one address there may be a proxy, and whoever comes by it. */
  readonly #failures = new Map<string, Failures>();

  constructor(keys: readonly AccessKeyConfig[], clock: Clock) {
    this.#keys = keys;
    this.#clock = clock;
  }

  /** Works once, within ten minutes. @throws NoConsoleKeyError */
  makeLinkToken(): string {
    const key = this.#keys.find((candidate) => allows(candidate, "console"));
    if (key === undefined) throw new NoConsoleKeyError();
    const token = randomBytes(32).toString("base64url");
    keepNewest(this.#links, MAX_LINKS);
    this.#links.set(digest(token), { accessKeyId: key.id, expiresMs: this.#nowMs() + LINK_LIFE_MS });
    return token;
  }

  /** The Set-Cookie of a new session; undefined for a token that is unknown, used or expired. */
  redeemLink(token: string): string | undefined {
    const name = digest(token);
    const link = this.#links.get(name);
    this.#links.delete(name);
    if (link === undefined || link.expiresMs <= this.#nowMs()) return undefined;
    return this.#open(link.accessKeyId);
  }

  /**
   * The Set-Cookie of a new session.
   * @throws ConsoleError 401 for a wrong pair, 403 for a key that may not, 429 after too many wrong ones
   */
  signIn(accessKeyId: string, secretAccessKey: string, remoteAddress: string): string {
    const key = this.authenticate(accessKeyId, secretAccessKey, remoteAddress);
    if (!allows(key, "console")) {
      throw new ConsoleError(
        403,
        "CONSOLE_NOT_ALLOWED",
        "this access key may not use the console",
        'add "console" to its allow list in gateway.yaml',
      );
    }
    return this.#open(key.id);
  }

  /** @throws ConsoleError 401, or 429 after too many failures of this address with this key */
  authenticate(accessKeyId: string, secretAccessKey: string, remoteAddress: string): AccessKeyConfig {
    const nowMs = this.#nowMs();
    const who = `${remoteAddress} ${digest(accessKeyId)}`;
    const failures = this.#failures.get(who);
    if (failures !== undefined && failures.untilMs > nowMs && failures.secrets.size >= MAX_FAILURES) {
      const waitSeconds = Math.ceil((failures.untilMs - nowMs) / 1000);
      throw new ConsoleError(
        429,
        "TOO_MANY_SIGN_INS",
        "too many wrong sign-ins",
        `try again in ${waitSeconds} s`,
        { "retry-after": waitSeconds },
      );
    }
    // Every key is compared, in constant time each, so that the time tells nothing about any.
    let found: AccessKeyConfig | undefined;
    for (const key of this.#keys) {
      const same = sameText(key.secret, secretAccessKey);
      if (sameText(key.id, accessKeyId) && same) found = key;
    }
    if (found !== undefined) return found;
    const wrong = digest(secretAccessKey);
    if (failures === undefined || failures.untilMs <= nowMs) {
      this.#failures.delete(who);
      keepNewest(this.#failures, MAX_FAILING);
      this.#failures.set(who, { secrets: new Set([wrong]), untilMs: nowMs + FAILURE_WINDOW_MS });
    } else failures.secrets.add(wrong);
    throw new ConsoleError(
      401,
      "WRONG_ACCESS_KEY",
      "this access key and secret do not belong together",
      "the gateway prints where its key is kept when it starts",
    );
  }

  /** @param cookieHeader as the browser sent it */
  find(cookieHeader: string | undefined): Session | undefined {
    const token = cookieOf(cookieHeader);
    if (token === undefined) return undefined;
    const name = digest(token);
    const session = this.#sessions.get(name);
    if (session === undefined || session.expiresMs > this.#nowMs()) return session;
    this.#sessions.delete(name);
    return undefined;
  }

  /** The Set-Cookie that makes the browser forget. */
  signOut(cookieHeader: string | undefined): string {
    const token = cookieOf(cookieHeader);
    if (token !== undefined) this.#sessions.delete(digest(token));
    return `${COOKIE}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0`;
  }

  #open(accessKeyId: string): string {
    const token = randomBytes(32).toString("base64url");
    keepNewest(this.#sessions, MAX_SESSIONS);
    this.#sessions.set(digest(token), { accessKeyId, expiresMs: this.#nowMs() + SESSION_LIFE_MS });
    return `${COOKIE}=${token}; HttpOnly; SameSite=Strict; Path=/; Max-Age=${SESSION_LIFE_MS / 1000}`;
  }

  /** Not the time of day: set back, it would keep sessions and links alive, and who must wait waiting, for as long. */
  #nowMs(): number {
    return this.#clock.monotonicMs();
  }
}

function cookieOf(header: string | undefined): string | undefined {
  for (const part of (header ?? "").split(";")) {
    const [name, value] = part.trim().split("=");
    if (name === COOKIE && value !== undefined && value !== "") return value;
  }
  return undefined;
}

/** Makes room for one more: the oldest goes. */
function keepNewest(map: Map<string, unknown>, max: number): void {
  if (map.size < max) return;
  for (const oldest of map.keys()) {
    map.delete(oldest);
    return;
  }
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("base64");
}

function sameText(a: string, b: string): boolean {
  return timingSafeEqual(createHash("sha256").update(a).digest(), createHash("sha256").update(b).digest());
}
