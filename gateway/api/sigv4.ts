/**
 * AWS Signature Version 4, the receiving side, in its header form: who sent this request, and is it
 * what they sent? Pure: it reads no socket and knows no operation.
 * Specification: "Create a signed AWS API request", AWS IAM User Guide.
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { Clock } from "../../runtime/clock.ts";
import { AwsError } from "./aws-error.ts";

const ALGORITHM = "AWS4-HMAC-SHA256";
const MAX_SKEW_MS = 15 * 60_000;
const MAX_SIGNED_HEADERS = 64;
const UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD";

/** A request as it came over the wire. */
export interface SignedRequest {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  /** Names and values in turn, as Node's `rawHeaders`. */
  readonly rawHeaders: readonly string[];
  /** What `host` is taken for when only HTTP/2's `:authority` names it. */
  readonly host: string;
}

export interface SigningKey {
  readonly id: string;
  readonly secret: string;
}

/** Checks what the headers alone can tell, so that no body is read for somebody unknown. */
export interface SignatureClaim<K extends SigningKey> {
  readonly key: K;
  /** @throws AwsError InvalidSignatureException when the body or the headers are not what was signed */
  check(body: Uint8Array): void;
}

interface Authorization {
  readonly credential: string;
  readonly signedHeaders: string;
  readonly signature: string;
}

export class SignatureVerifier<K extends SigningKey> {
  readonly #keys: ReadonlyMap<string, K>;
  readonly #region: string;
  readonly #service: string;
  readonly #clock: Clock;
  /** Key id → date and derived key: one derivation a day and key instead of one a request. */
  readonly #derived = new Map<string, { date: string; key: Buffer }>();

  constructor(options: { keys: readonly K[]; region: string; service: string; clock: Clock }) {
    this.#keys = new Map(options.keys.map((key) => [key.id, key]));
    this.#region = options.region;
    this.#service = options.service;
    this.#clock = options.clock;
  }

  /** @throws AwsError as AWS answers each mistake */
  open(request: SignedRequest): SignatureClaim<K> {
    const headers = headersOf(request);
    const authorization = parseAuthorization(headers);
    const amzDate = this.#dateOf(headers);
    const scope = this.#scopeOf(authorization.credential, amzDate);
    const key = this.#keys.get(scope.keyId);
    if (key === undefined) {
      throw new AwsError(
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
      );
    }
    const names = authorization.signedHeaders.split(";");
    checkSignedHeaders(names, headers);
    const canonicalHead = [
      request.method,
      canonicalPath(request.path),
      canonicalQuery(request.query),
      ...names.map((name) => `${name}:${headers.get(name)!}`),
      "",
      authorization.signedHeaders,
    ].join("\n");
    const declaredHash = names.includes("x-amz-content-sha256")
      ? headers.get("x-amz-content-sha256")
      : undefined;
    return {
      key,
      check: (body) => {
        const canonical = `${canonicalHead}\n${payloadHash(body, declaredHash)}`;
        const toSign = `${ALGORITHM}\n${amzDate}\n${scope.text}\n${sha256(canonical)}`;
        const expected = createHmac("sha256", this.#signingKey(key, scope.date)).update(toSign).digest();
        const given = Buffer.from(authorization.signature, "hex");
        if (given.length !== expected.length || !timingSafeEqual(given, expected)) throw mismatch();
      },
    };
  }

  #dateOf(headers: ReadonlyMap<string, string>): string {
    const text = headers.get("x-amz-date") ?? headers.get("date") ?? "";
    const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text);
    const signedMs = parts
      ? Date.parse(`${parts[1]}-${parts[2]}-${parts[3]}T${parts[4]}:${parts[5]}:${parts[6]}Z`)
      : Number.NaN;
    if (Number.isNaN(signedMs)) {
      throw new AwsError(
        "IncompleteSignatureException",
        `Date must be in ISO-8601 'basic format'. Got '${text.slice(0, 64)}'. See http://en.wikipedia.org/wiki/ISO_8601`,
      );
    }
    const nowMs = Math.floor(this.#clock.nowUs() / 1000);
    if (signedMs < nowMs - MAX_SKEW_MS) {
      throw new AwsError(
        "InvalidSignatureException",
        `Signature expired: ${text} is now earlier than ${amzTime(nowMs - MAX_SKEW_MS)} (${amzTime(nowMs)} - 15 min.)`,
      );
    }
    if (signedMs > nowMs + MAX_SKEW_MS) {
      throw new AwsError(
        "InvalidSignatureException",
        `Signature not yet current: ${text} is still later than ${amzTime(nowMs + MAX_SKEW_MS)} (${amzTime(nowMs)} + 15 min.)`,
      );
    }
    return text;
  }

  #scopeOf(credential: string, amzDate: string): { keyId: string; date: string; text: string } {
    const parts = credential.split("/");
    const [keyId, date, region, service, end] = parts as [string, string, string, string, string];
    if (parts.length !== 5) {
      throw new AwsError(
        "IncompleteSignatureException",
        `Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '${credential.slice(0, 256)}'`,
      );
    }
    const problems: string[] = [];
    if (region !== this.#region) {
      problems.push(
        `Credential should be scoped to a valid region, not '${region.slice(0, 64)}'; this gateway is '${this.#region}'. `,
      );
    }
    if (service !== this.#service)
      problems.push(`Credential should be scoped to correct service: '${this.#service}'. `);
    if (end !== "aws4_request")
      problems.push(
        `Credential should be scoped with a valid terminator: 'aws4_request', not '${end.slice(0, 64)}'. `,
      );
    if (date !== amzDate.slice(0, 8)) {
      problems.push(
        `Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '${date.slice(0, 16)}' != '${amzDate.slice(0, 8)}', from '${amzDate}'. `,
      );
    }
    if (problems.length > 0) throw new AwsError("InvalidSignatureException", problems.join(""));
    return { keyId, date, text: `${date}/${region}/${service}/${end}` };
  }

  #signingKey(key: SigningKey, date: string): Buffer {
    const kept = this.#derived.get(key.id);
    if (kept?.date === date) return kept.key;
    let derived: Buffer = Buffer.from(`AWS4${key.secret}`);
    for (const step of [date, this.#region, this.#service, "aws4_request"]) {
      derived = createHmac("sha256", derived).update(step).digest();
    }
    this.#derived.set(key.id, { date, key: derived });
    return derived;
  }
}

function mismatch(): AwsError {
  return new AwsError(
    "InvalidSignatureException",
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
  );
}

/** Lower-case names; values trimmed, inner runs of spaces made one, and those of one name joined by commas. */
function headersOf(request: SignedRequest): Map<string, string> {
  const headers = new Map<string, string>();
  for (let i = 0; i + 1 < request.rawHeaders.length; i += 2) {
    const name = request.rawHeaders[i]!.toLowerCase();
    const value = request.rawHeaders[i + 1]!.trim().replace(/ +/g, " ");
    const before = headers.get(name);
    headers.set(name, before === undefined ? value : `${before},${value}`);
  }
  if (!headers.has("host")) headers.set("host", request.host);
  return headers;
}

/** @throws AwsError when there is no Authorization header, or a part of it is missing */
function parseAuthorization(headers: ReadonlyMap<string, string>): Authorization {
  const text = headers.get("authorization");
  if (text === undefined || text === "")
    throw new AwsError("MissingAuthenticationTokenException", "Missing Authentication Token");
  const parts = new Map<string, string>();
  // Both ", " and "," stand between the parts; some signers leave the comma out.
  for (const part of text
    .slice(0, 4_096)
    .replace(/^\S+ ?/, "")
    .split(/[,\s]+/)) {
    const equals = part.indexOf("=");
    if (equals > 0) parts.set(part.slice(0, equals), part.slice(equals + 1));
  }
  const problems: string[] = [];
  for (const name of ["Credential", "Signature", "SignedHeaders"]) {
    if (!parts.get(name)) problems.push(`Authorization header requires '${name}' parameter. `);
  }
  if (!headers.has("x-amz-date") && !headers.has("date")) {
    problems.push("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ");
  }
  if (!text.startsWith(`${ALGORITHM} `) && problems.length === 0) {
    problems.push(`Authorization header requires the algorithm '${ALGORITHM}'. `);
  }
  // The signature is of no use to anybody else, but AWS repeats the whole header; we repeat none of it.
  if (problems.length > 0) throw new AwsError("IncompleteSignatureException", problems.join("").trim());
  return {
    credential: parts.get("Credential")!,
    signedHeaders: parts.get("SignedHeaders")!,
    signature: parts.get("Signature")!.toLowerCase(),
  };
}

/**
 * `host` must be signed, or a request could be replayed to another gateway; `x-amz-target` and
 * `x-amz-date` must be where they are present, or they could be exchanged on the way. Over HTTP/2
 * the AWS SDK for JavaScript signs `:authority` in the place of `host`.
 */
function checkSignedHeaders(names: readonly string[], headers: ReadonlyMap<string, string>): void {
  const signed = new Set(names);
  const authority = signed.has(":authority") ? [] : ["host"];
  const wanted = [...authority, "x-amz-date", "x-amz-target", "x-amz-security-token"];
  const unsigned = wanted.filter((name) => headers.has(name) && !signed.has(name));
  if (unsigned.length > 0) {
    throw new AwsError(
      "InvalidSignatureException",
      `${unsigned.map((name) => `'${name}'`).join(", ")} must be a 'SignedHeader' in the AWS Authorization.`,
    );
  }
  if (names.length > MAX_SIGNED_HEADERS || names.some((name) => !headers.has(name))) throw mismatch();
}

function payloadHash(body: Uint8Array, declared: string | undefined): string {
  const actual = sha256(body);
  if (declared === undefined || declared === actual) return actual;
  // Whoever signs these words has decided to leave the body unprotected.
  if (declared === UNSIGNED_PAYLOAD) return declared;
  throw mismatch();
}

/** Every service but S3 encodes each segment once more and resolves dots and doubled slashes. */
function canonicalPath(path: string): string {
  const segments: string[] = [];
  for (const segment of path.split("/")) {
    if (segment === "..") segments.pop();
    else if (segment !== "" && segment !== ".") segments.push(encode(segment));
  }
  const trailing = segments.length > 0 && path.endsWith("/") ? "/" : "";
  return `/${segments.join("/")}${trailing}`;
}

function canonicalQuery(query: string): string {
  if (query === "") return "";
  return query
    .split("&")
    .filter((pair) => pair !== "")
    .map((pair) => {
      const equals = pair.indexOf("=");
      const name = equals < 0 ? pair : pair.slice(0, equals);
      const value = equals < 0 ? "" : pair.slice(equals + 1);
      return [encode(decode(name)), encode(decode(value))] as const;
    })
    .sort((a, b) => compare(a[0], b[0]) || compare(a[1], b[1]))
    .map(([name, value]) => `${name}=${value}`)
    .join("&");
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** RFC 3986 §2.3: all but the unreserved characters. */
function encode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function sha256(bytes: string | Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** 20150122T011202Z */
function amzTime(ms: number): string {
  return new Date(ms).toISOString().replace(/[-:]|\.\d{3}/g, "");
}
