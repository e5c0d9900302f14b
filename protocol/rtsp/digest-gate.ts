/** Who is behind one connection of the server: asks for a user and password by Digest, and counts the wrong answers. */
import { randomBytes } from "node:crypto";
import { formatChallenge, parseAnswer, verifyAnswer } from "./digest.ts";
import { type Authenticator, type ProvenPeer, RtspError } from "./handler.ts";
import type { RtspRequest } from "./messages.ts";
import { pathOf } from "./transport.ts";

const REALM = "Headwater";
const MAX_WRONG_ANSWERS = 8;

export class DigestGate {
  readonly #authenticate: Authenticator | undefined;
  /** Of this connection alone, so that an answer overheard elsewhere is worth nothing here. */
  readonly #nonce = randomBytes(16).toString("hex");
  readonly #proven: ProvenPeer | undefined;
  #wrongAnswers = 0;
  #user: string | undefined;

  /** @param proven who the connection itself has proved to be: then nobody is asked for a password */
  constructor(authenticate: Authenticator | undefined, proven?: ProvenPeer) {
    this.#authenticate = authenticate;
    this.#proven = proven;
  }

  /** Whether nobody is asked who he is. */
  get isOpen(): boolean {
    return this.#authenticate === undefined && this.#proven === undefined;
  }

  /** Whoever is behind it has proved who it is. */
  get passed(): boolean {
    return this.user !== undefined;
  }

  /** Who that is. */
  get user(): string | undefined {
    return this.#proven?.user ?? this.#user;
  }

  /** For WWW-Authenticate. */
  get challenge(): string {
    return formatChallenge(REALM, this.#nonce);
  }

  /** Whoever is behind it is guessing. */
  get exhausted(): boolean {
    return this.#wrongAnswers >= MAX_WRONG_ANSWERS;
  }

  /** The user's name; undefined when nobody is asked. @throws RtspError 401 */
  async authorize(
    request: RtspRequest,
    path: string,
    method: "ANNOUNCE" | "DESCRIBE",
  ): Promise<string | undefined> {
    if (this.#proven !== undefined) {
      if (!this.#proven.mayUse(path)) throw new RtspError(403, "Forbidden");
      return this.#proven.user;
    }
    if (this.#authenticate === undefined) return undefined;
    const answer = parseAnswer(request.headers.get("authorization") ?? "");
    if (answer === undefined) throw new RtspError(401, "Unauthorized");
    const password = await this.#authenticate(answer.username, path, method);
    const wanted = pathOf(request.url);
    const expected = { realm: REALM, nonce: this.#nonce, password };
    if (!verifyAnswer(answer, expected, request.method, (uri) => pathOf(uri) === wanted)) {
      this.#wrongAnswers++;
      throw new RtspError(401, "Unauthorized");
    }
    this.#user = answer.username;
    return answer.username;
  }
}
