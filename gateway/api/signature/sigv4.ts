/**
 * AWS Signature Version 4, the receiving side, by header and presigned: who sent this request, and is
 * it what they sent? Pure: it reads no socket and knows no operation.
 * Specification: "Create a signed AWS API request", AWS IAM User Guide.
 *
 *   headers, query → claim → date in its window? → scope ours? → key known? → signed enough?  | body → signature
 */
import { createHash, type Hash, timingSafeEqual } from "node:crypto";
import type { Clock } from "../../../runtime/clock.ts";
import { AwsError } from "../aws-error.ts";
import type { BodySender } from "../bodies/body-budget.ts";
import { canonicalHeaders, canonicalPath } from "./sigv4-canonical.ts";
import { ALGORITHM, type ClaimedSignature, claimOf, incomplete } from "./sigv4-claim.ts";
import { type HmacKey, SigningKeys, sha256 } from "./sigv4-keys.ts";

/** Kinesis: the clocks of both sides may differ by so much. */
const MAX_SKEW_MINUTES = 5;
const MAX_SKEW_MS = MAX_SKEW_MINUTES * 60_000;
const MAX_SIGNED_HEADERS = 64;
const UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD";
const SHA256_HEX = /^[0-9a-f]{64}$/;
/** How much of what should have been signed is told to whoever signed something else. */
const MAX_TOLD_CHARACTERS = 4_096;

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

/** One whose headers are already as `canonicalHeaders` gives them, the host among them. */
export interface CanonicalRequest extends Pick<SignedRequest, "method" | "path" | "query"> {
  readonly headers: ReadonlyMap<string, string>;
}

export interface SigningKey {
  readonly id: string;
  readonly secret: string;
}

/**
 * Checks what the headers alone can tell, so that no body is read for somebody unknown. It is proven when the
 * signature has been found right: from the first where the head declares the hash of the body, otherwise with it.
 */
export interface SignatureClaim<K extends SigningKey> extends BodySender {
  readonly key: K;
  /** @throws AwsError InvalidSignatureException when the body or the headers are not what was signed */
  check(body: Uint8Array): void;
  /** In the place of `check` where the whole body was discarded: only tells whether it is proven. */
  checkDiscarded(): void;
}

export interface VerifierOptions<K> {
  readonly keys: readonly K[];
  readonly region: string;
  readonly service: string;
  readonly clock: Clock;
  /** Whether a sender may leave the body out of the signature, as video uploads do. Not unless set. */
  readonly unsignedPayload?: boolean;
}

export class SignatureVerifier<K extends SigningKey> {
  readonly #keys: ReadonlyMap<string, K>;
  readonly #region: string;
  readonly #service: string;
  readonly #clock: Clock;
  readonly #unsignedPayload: boolean;
  readonly #signingKeys: SigningKeys;
  /** Most requests of a second carry the same date. */
  #lastDate = { text: "", ms: Number.NaN };

  constructor(options: VerifierOptions<K>) {
    this.#keys = new Map(options.keys.map((key) => [key.id, key]));
    this.#region = options.region;
    this.#service = options.service;
    this.#clock = options.clock;
    this.#unsignedPayload = options.unsignedPayload ?? false;
    this.#signingKeys = new SigningKeys(options.region, options.service);
  }

  /** @throws AwsError as AWS answers each mistake */
  open(request: SignedRequest): SignatureClaim<K> {
    const headers = canonicalHeaders(request.rawHeaders);
    if (!headers.has("host")) headers.set("host", request.host);
    return this.openCanonical({ ...request, headers });
  }

  /** @throws AwsError as `open` */
  openCanonical(request: CanonicalRequest): SignatureClaim<K> {
    const { headers } = request;
    const claim = claimOf(headers, request.query);
    this.#checkTime(claim);
    const scope = this.#scopeOf(claim.credential, claim.date);
    const key = this.#keys.get(scope.keyId);
    // Ours are permanent keys; a token belongs to a temporary one, which is then none of ours.
    const token = claim.securityToken ?? headers.get("x-amz-security-token") ?? "";
    if (key === undefined || token !== "") {
      throw new AwsError(
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
      );
    }
    const names = claim.signedHeaders.split(";");
    checkSignedHeaders(names, headers);
    let canonicalHead = `${request.method}\n${canonicalPath(request.path)}\n${claim.canonicalQuery}\n`;
    for (const name of names) canonicalHead += `${name}:${headers.get(name)!}\n`;
    canonicalHead += `\n${claim.signedHeaders}\n`;
    const declaredHash = headers.get("x-amz-content-sha256");
    const opened = new OpenedClaim(key, this.#signingKeys.of(key, scope.date), claim, {
      canonicalHead,
      scope: scope.text,
      // Of the bytes that came, whatever a header says, unless a sender may leave them out.
      payloadHash: declaredHash === UNSIGNED_PAYLOAD && this.#unsignedPayload ? declaredHash : undefined,
    });
    // It is signed, as are all of its kind; whether the body is of that hash is for later.
    if (declaredHash !== undefined && SHA256_HEX.test(declaredHash)) opened.tryHash(declaredHash);
    return opened;
  }

  /** @throws AwsError unless it was signed now, as far as two clocks agree, or is a presigned one still good */
  #checkTime({ date, expiresSeconds }: ClaimedSignature): void {
    if (this.#lastDate.text !== date) this.#lastDate = { text: date, ms: parseAmzTime(date) };
    const signedMs = this.#lastDate.ms;
    if (Number.isNaN(signedMs)) {
      throw incomplete(
        `Date must be in ISO-8601 'basic format'. Got '${date.slice(0, 64)}'. See http://en.wikipedia.org/wiki/ISO_8601`,
      );
    }
    const nowMs = Math.floor(this.#clock.nowUs() / 1000);
    const lifeMs = expiresSeconds === undefined ? MAX_SKEW_MS : expiresSeconds * 1000;
    if (signedMs < nowMs - lifeMs) {
      const life = expiresSeconds === undefined ? `${MAX_SKEW_MINUTES} min.` : `${expiresSeconds} sec.`;
      throw new AwsError(
        "InvalidSignatureException",
        `Signature expired: ${date} is now earlier than ${amzTime(nowMs - lifeMs)} (${amzTime(nowMs)} - ${life})`,
      );
    }
    if (signedMs > nowMs + MAX_SKEW_MS) {
      throw new AwsError(
        "InvalidSignatureException",
        `Signature not yet current: ${date} is still later than ${amzTime(nowMs + MAX_SKEW_MS)} (${amzTime(nowMs)} + ${MAX_SKEW_MINUTES} min.)`,
      );
    }
  }

  #scopeOf(credential: string, amzDate: string): { keyId: string; date: string; text: string } {
    const parts = credential.split("/", 7);
    if (parts.length !== 5) {
      throw incomplete(
        `Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '${credential.slice(0, 256)}'`,
      );
    }
    const [keyId, date, region, service, end] = parts as [string, string, string, string, string];
    const right =
      region === this.#region &&
      service === this.#service &&
      end === "aws4_request" &&
      date === amzDate.slice(0, 8);
    if (right) return { keyId, date, text: credential.slice(keyId.length + 1) };
    const problems: string[] = [];
    if (region !== this.#region) {
      problems.push(
        `Credential should be scoped to a valid region, not '${region.slice(0, 64)}'; this gateway is '${this.#region}'. `,
      );
    }
    if (service !== this.#service) {
      problems.push(`Credential should be scoped to correct service: '${this.#service}'. `);
    }
    if (end !== "aws4_request") {
      problems.push(
        `Credential should be scoped with a valid terminator: 'aws4_request', not '${end.slice(0, 64)}'. `,
      );
    }
    if (date !== amzDate.slice(0, 8)) {
      problems.push(
        `Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '${date.slice(0, 16)}' != '${amzDate.slice(0, 8)}', from '${amzDate}'. `,
      );
    }
    throw new AwsError("InvalidSignatureException", problems.join(""));
  }
}

/** What of a signature is known before the body. */
interface SignedHead {
  readonly canonicalHead: string;
  readonly scope: string;
  /** In the place of the body's; undefined where it is the body's. */
  readonly payloadHash: string | undefined;
}

class OpenedClaim<K extends SigningKey> implements SignatureClaim<K> {
  readonly key: K;
  readonly #signingKey: HmacKey;
  readonly #claim: ClaimedSignature;
  readonly #head: SignedHead;
  /** Of the payload for which the signature is right, once that is known. */
  #provenHash: string | undefined;
  #discarded: Hash | undefined;

  constructor(key: K, signingKey: HmacKey, claim: ClaimedSignature, head: SignedHead) {
    this.key = key;
    this.#signingKey = signingKey;
    this.#claim = claim;
    this.#head = head;
  }

  get keyId(): string {
    return this.key.id;
  }

  get isProven(): boolean {
    return this.#provenHash !== undefined;
  }

  check(body: Uint8Array): void {
    const hash = this.#head.payloadHash ?? sha256(body, "hex");
    if (hash === this.#provenHash || this.tryHash(hash)) return;
    const canonical = this.#canonical(hash);
    throw mismatch(canonical, this.#toSign(canonical));
  }

  discard(piece: Uint8Array): void {
    this.#discarded ??= createHash("sha256");
    this.#discarded.update(piece);
  }

  checkDiscarded(): void {
    const hash = this.#discarded?.digest("hex");
    this.#discarded = undefined;
    if (hash !== undefined) this.tryHash(this.#head.payloadHash ?? hash);
  }

  /** Whether the signature is right for a payload of that hash. */
  tryHash(hash: string): boolean {
    const expected = this.#signingKey.sign(this.#toSign(this.#canonical(hash)));
    if (!sameText(this.#claim.signature, expected)) return false;
    this.#provenHash = hash;
    return true;
  }

  #canonical(hash: string): string {
    return this.#head.canonicalHead + hash;
  }

  #toSign(canonical: string): string {
    return `${ALGORITHM}\n${this.#claim.date}\n${this.#head.scope}\n${sha256(canonical, "hex")}`;
  }
}

/** AWS tells whoever has a key what they should have signed; there is no secret in it. */
function mismatch(canonical: string, toSign: string): AwsError {
  const told = (text: string): string => text.slice(0, MAX_TOLD_CHARACTERS);
  return new AwsError(
    "InvalidSignatureException",
    `The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.\n\nThe Canonical String for this request should have been\n'${told(canonical)}'\n\nThe String-to-Sign should have been\n'${told(toSign)}'\n`,
  );
}

/**
 * `host` must be signed, or a request could be replayed to another gateway; and every `x-amz-*` that
 * is present, or it could be exchanged on the way. Over HTTP/2 the AWS SDK for JavaScript signs
 * `:authority` in the place of `host`.
 */
function checkSignedHeaders(names: readonly string[], headers: ReadonlyMap<string, string>): void {
  const wanted = (name: string): boolean =>
    name === "host" ? !names.includes(":authority") : name.startsWith("x-amz-");
  const unsigned: string[] = [];
  for (const name of headers.keys()) {
    if (wanted(name) && !names.includes(name)) unsigned.push(name);
  }
  if (unsigned.length > 0) {
    const told = unsigned.slice(0, MAX_SIGNED_HEADERS).map((name) => `'${name.slice(0, 64)}'`);
    throw new AwsError(
      "InvalidSignatureException",
      `${told.join(", ")} must be a 'SignedHeader' in the AWS Authorization.`,
    );
  }
  if (names.length > MAX_SIGNED_HEADERS || names.some((name) => !headers.has(name))) {
    throw new AwsError(
      "InvalidSignatureException",
      "'SignedHeaders' names a header that the request does not have, or too many.",
    );
  }
}

/** In a time that tells nothing of where they differ. */
function sameText(given: string, expected: string): boolean {
  if (given.length !== expected.length) return false;
  return timingSafeEqual(Buffer.from(given, "latin1"), Buffer.from(expected, "latin1"));
}

/** NaN for what is no `20150122T011202Z`. */
function parseAmzTime(text: string): number {
  if (text.length !== 16 || text[8] !== "T" || text[15] !== "Z") return Number.NaN;
  const iso = `${text.slice(0, 4)}-${text.slice(4, 6)}-${text.slice(6, 8)}T${text.slice(9, 11)}:${text.slice(11, 13)}:${text.slice(13, 15)}Z`;
  const ms = Date.parse(iso);
  // Date.parse forgives much; what it took must be what was written.
  return amzTime(ms) === text ? ms : Number.NaN;
}

/** 20150122T011202Z; "invalid" beyond the years of a Date. */
function amzTime(ms: number): string {
  if (Number.isNaN(ms)) return "invalid";
  return new Date(ms).toISOString().replace(/[-:]|\.\d{3}/g, "");
}
