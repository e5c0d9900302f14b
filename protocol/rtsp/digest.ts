/**
 * Digest authentication, MD5 (RFC 7616, and RFC 2617 §3.2 for peers that know no qop, which are most of
 * those that speak RTSP). Passwords stay in here: nothing that leaves shows one.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";

export interface Credentials {
  readonly username: string;
  readonly password: string;
}

export interface DigestChallenge {
  readonly realm: string;
  readonly nonce: string;
  readonly opaque: string | undefined;
  /** The server offers qop=auth. */
  readonly qopAuth: boolean;
  readonly stale: boolean;
}

function md5(text: string): string {
  return createHash("md5").update(text).digest("hex");
}

/** The first `Digest` challenge with MD5 in WWW-Authenticate headers that were joined; undefined when there is none. */
export function parseChallenge(header: string): DigestChallenge | undefined {
  for (const match of header.matchAll(/(?:^|[\s,])Digest\s+/gi)) {
    const parameters = parseParameters(header.slice(match.index + match[0].length));
    const algorithm = parameters.get("algorithm")?.toUpperCase() ?? "MD5";
    const realm = parameters.get("realm");
    const nonce = parameters.get("nonce");
    if (algorithm !== "MD5" || realm === undefined || nonce === undefined) continue;
    const qop = parameters.get("qop")?.split(",") ?? [];
    return {
      realm,
      nonce,
      opaque: parameters.get("opaque"),
      qopAuth: qop.some((word) => word.trim().toLowerCase() === "auth"),
      stale: parameters.get("stale")?.toLowerCase() === "true",
    };
  }
  return undefined;
}

/** `name="value", name=value` up to the next scheme. The first of a name counts. */
function parseParameters(text: string): Map<string, string> {
  const parameters = new Map<string, string>();
  const parameter = /\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|$)/y;
  for (let match = parameter.exec(text); match !== null; match = parameter.exec(text)) {
    const name = match[1]!.toLowerCase();
    if (!parameters.has(name)) parameters.set(name, match[3] ?? match[2]!.replace(/\\(.)/g, "$1"));
  }
  return parameters;
}

/** The value of Authorization. @param count how often the nonce was used, from 1 */
export function answerChallenge(
  challenge: DigestChallenge,
  credentials: Credentials,
  method: string,
  uri: string,
  count: number,
  clientNonce: string = randomBytes(8).toString("hex"),
): string {
  const { realm, nonce, opaque } = challenge;
  const secret = md5(`${credentials.username}:${realm}:${credentials.password}`);
  const request = md5(`${method}:${uri}`);
  const nonceCount = count.toString(16).padStart(8, "0");
  const response = challenge.qopAuth
    ? md5(`${secret}:${nonce}:${nonceCount}:${clientNonce}:auth:${request}`)
    : md5(`${secret}:${nonce}:${request}`);
  const parts = [
    `username=${quote(credentials.username)}`,
    `realm=${quote(realm)}`,
    `nonce=${quote(nonce)}`,
    `uri=${quote(uri)}`,
    `response="${response}"`,
  ];
  if (opaque !== undefined) parts.push(`opaque=${quote(opaque)}`);
  if (challenge.qopAuth) parts.push(`qop=auth, nc=${nonceCount}, cnonce="${clientNonce}"`);
  return `Digest ${parts.join(", ")}`;
}

function quote(text: string): string {
  return `"${text.replace(/["\\]/g, "\\$&")}"`;
}

/** The value of WWW-Authenticate. Without qop, as widespread publishers know only RFC 2069's form of it. */
export function formatChallenge(realm: string, nonce: string): string {
  return `Digest realm=${quote(realm)}, nonce="${nonce}", algorithm=MD5`;
}

export interface DigestAnswer {
  readonly username: string;
  readonly parameters: ReadonlyMap<string, string>;
}

/** Undefined when the header is no Digest answer. */
export function parseAnswer(header: string): DigestAnswer | undefined {
  const match = /^\s*Digest\s+/i.exec(header);
  if (match === null) return undefined;
  const parameters = parseParameters(header.slice(match[0].length));
  const username = parameters.get("username");
  return username === undefined ? undefined : { username, parameters };
}

/**
 * True when the answer proves the password. Takes equally long for an unknown user.
 * @param password undefined for an unknown user
 * @param isRequested tells whether the answer's `uri` means the address of the request
 */
export function verifyAnswer(
  answer: DigestAnswer,
  expected: { readonly realm: string; readonly nonce: string; readonly password: string | undefined },
  method: string,
  isRequested: (uri: string) => boolean,
): boolean {
  const { parameters } = answer;
  const uri = parameters.get("uri") ?? "";
  const qop = parameters.get("qop");
  const known = expected.password !== undefined;
  const secret = md5(
    `${answer.username}:${expected.realm}:${known ? expected.password : randomBytes(8).toString("hex")}`,
  );
  const request = md5(`${method}:${uri}`);
  const middle = qop === undefined ? "" : `${parameters.get("nc")}:${parameters.get("cnonce")}:${qop}:`;
  const proof = Buffer.from(md5(`${secret}:${expected.nonce}:${middle}${request}`), "latin1");
  const given = Buffer.from((parameters.get("response") ?? "").toLowerCase(), "latin1");
  const proven = given.length === proof.length && timingSafeEqual(given, proof);
  const supported =
    (qop ?? "auth") === "auth" && (parameters.get("algorithm") ?? "MD5").toUpperCase() === "MD5";
  return (
    proven &&
    known &&
    supported &&
    parameters.get("realm") === expected.realm &&
    parameters.get("nonce") === expected.nonce &&
    isRequested(uri)
  );
}
