/**
 * What a request says of its own signature, in either of the two forms: an Authorization header, or
 * the query of a presigned address. Nothing is believed yet.
 */
import { AwsError } from "../aws-error.ts";
import { canonicalQuery, parseQuery, type QueryPair } from "./sigv4-canonical.ts";

export const ALGORITHM = "AWS4-HMAC-SHA256";
const MAX_AUTHORIZATION_CHARACTERS = 4_096;
/** As SDKs write the header; other forms that AWS takes as well are read part by part. */
const USUAL_AUTHORIZATION =
  /^AWS4-HMAC-SHA256 Credential=([\w/.+-]{1,300}), ?SignedHeaders=([\w;:-]{1,2000}), ?Signature=([0-9a-f]{64})$/;
/** AWS: a presigned address is good for a week at most. */
const MAX_EXPIRES_SECONDS = 604_800;
const HTTP_DATE_CHARACTERS = 29;
/** The name of what is none. */
const NO_PAIR = "";

export interface ClaimedSignature {
  readonly credential: string;
  /** Names, divided by semicolons. */
  readonly signedHeaders: string;
  readonly signature: string;
  /** As it came; not yet known to be a date. */
  readonly date: string;
  /** Only of a presigned address, and only where it says so. */
  readonly expiresSeconds: number | undefined;
  readonly canonicalQuery: string;
  /** In its query; one in a header is among the headers. */
  readonly securityToken: string | undefined;
}

/** @throws AwsError MissingAuthenticationTokenException, IncompleteSignatureException, InvalidSignatureException */
export function claimOf(headers: ReadonlyMap<string, string>, query: string): ClaimedSignature {
  const authorization = headers.get("authorization") ?? "";
  const pairs = parseQuery(query);
  const has = (wanted: string): boolean => pairs.some(([name]) => name === wanted);
  if (authorization === "") {
    // To AWS this name alone makes a query a signature, whatever else stands in it.
    if (has("X-Amz-Algorithm")) return fromQuery(pairs);
    throw new AwsError("MissingAuthenticationTokenException", "Missing Authentication Token");
  }
  if (has("X-Amz-Algorithm") || has("X-Amz-Signature")) {
    throw new AwsError(
      "InvalidSignatureException",
      "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
    );
  }
  return fromUsualHeader(authorization, headers, pairs) ?? fromHeader(authorization, headers, pairs);
}

/** The same as `fromHeader`, which finds the faults, in a fifth of the time. */
function fromUsualHeader(
  text: string,
  headers: ReadonlyMap<string, string>,
  pairs: readonly QueryPair[],
): ClaimedSignature | undefined {
  const date = headers.get("x-amz-date");
  const parts = date === undefined ? null : USUAL_AUTHORIZATION.exec(text);
  if (date === undefined || parts === null) return undefined;
  return {
    credential: parts[1]!,
    signedHeaders: parts[2]!,
    signature: parts[3]!,
    date,
    expiresSeconds: undefined,
    canonicalQuery: canonicalQuery(pairs),
    securityToken: undefined,
  };
}

function fromHeader(
  text: string,
  headers: ReadonlyMap<string, string>,
  pairs: readonly QueryPair[],
): ClaimedSignature {
  const parts = authorizationParts(text);
  const problems: string[] = [];
  for (const name of ["Credential", "Signature", "SignedHeaders"]) {
    if (!parts.get(name)) problems.push(`Authorization header requires '${name}' parameter. `);
  }
  const date = headers.get("x-amz-date") ?? amzDateOf(headers.get("date"));
  if (date === undefined) {
    problems.push("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ");
  }
  if (!text.startsWith(`${ALGORITHM} `) && problems.length === 0) {
    problems.push(`Authorization header requires the algorithm '${ALGORITHM}'. `);
  }
  if (parts.has(NO_PAIR) && problems.length === 0) {
    problems.push(
      "Authorization header has a part that is not a valid key=value pair (missing equal-sign). ",
    );
  }
  // The signature is of no use to anybody else, but AWS repeats the whole header; we repeat none of it.
  if (problems.length > 0) throw incomplete(problems.join("").trim());
  return {
    credential: parts.get("Credential")!,
    signedHeaders: parts.get("SignedHeaders")!,
    signature: parts.get("Signature")!,
    date: date!,
    expiresSeconds: undefined,
    canonicalQuery: canonicalQuery(pairs),
    securityToken: undefined,
  };
}

/**
 * A Date header as RFC 9110 §5.6.7 has it (`Sun, 06 Nov 1994 08:49:37 GMT`) counts, and is signed, as
 * `19941106T084937Z`. Anything else stays as it is.
 */
function amzDateOf(date: string | undefined): string | undefined {
  if (date?.length !== HTTP_DATE_CHARACTERS) return date;
  const ms = Date.parse(date);
  // Date.parse forgives much; what it took must be what was written.
  if (Number.isNaN(ms) || new Date(ms).toUTCString() !== date) return date;
  return new Date(ms).toISOString().replace(/[-:]|\.\d{3}/g, "");
}

/** @throws AwsError when a part, or the header itself, comes twice: which of them would count? */
function authorizationParts(text: string): Map<string, string> {
  const parts = new Map<string, string>();
  const start = text.indexOf(" ") + 1;
  // Both ", " and "," stand between the parts; some signers leave the comma out.
  for (const part of text.slice(start, MAX_AUTHORIZATION_CHARACTERS).split(/[,\s]+/)) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    const name = equals <= 0 ? NO_PAIR : part.slice(0, equals);
    if (parts.has(name) && name !== NO_PAIR)
      throw incomplete(`Authorization header has more than one '${name.slice(0, 64)}' parameter.`);
    parts.set(name, part.slice(equals + 1));
  }
  return parts;
}

function fromQuery(pairs: readonly QueryPair[]): ClaimedSignature {
  const values = new Map<string, string>();
  for (const [name, value] of pairs) {
    if (!name.startsWith("X-Amz-")) continue;
    if (values.has(name)) {
      throw incomplete(`AWS query-string parameters must not include '${name.slice(0, 64)}' more than once.`);
    }
    values.set(name, value);
  }
  const problems: string[] = [];
  for (const name of ["Algorithm", "Credential", "Signature", "SignedHeaders", "Date"]) {
    if (!values.get(`X-Amz-${name}`)) {
      problems.push(`AWS query-string parameters must include 'X-Amz-${name}'. `);
    }
  }
  if (problems.length > 0) throw incomplete(`${problems.join("")}Re-examine the query-string parameters.`);
  if (values.get("X-Amz-Algorithm") !== ALGORITHM) {
    throw incomplete(`'X-Amz-Algorithm' must be '${ALGORITHM}'.`);
  }
  return {
    credential: values.get("X-Amz-Credential")!,
    signedHeaders: values.get("X-Amz-SignedHeaders")!,
    signature: values.get("X-Amz-Signature")!,
    date: values.get("X-Amz-Date")!,
    expiresSeconds: expiresOf(values.get("X-Amz-Expires")),
    canonicalQuery: canonicalQuery(pairs.filter(([name]) => name !== "X-Amz-Signature")),
    securityToken: values.get("X-Amz-Security-Token"),
  };
}

function expiresOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const seconds = /^\d{1,7}$/.test(text) ? Number(text) : Number.NaN;
  if (seconds >= 1 && seconds <= MAX_EXPIRES_SECONDS) return seconds;
  throw incomplete(`'X-Amz-Expires' must be a number of seconds from 1 to ${MAX_EXPIRES_SECONDS}.`);
}

export function incomplete(message: string): AwsError {
  return new AwsError("IncompleteSignatureException", message);
}
