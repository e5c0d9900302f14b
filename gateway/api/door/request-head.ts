/**
 * The head of an HTTP/1.1 request as SDKs write it, read strictly and quickly. Whatever is unusual is
 * left to Node's parser, which is the oracle: what is read here, it reads in the same way.
 */

/** The head of a call of an AWS protocol, in either version of HTTP. */
export interface CallHead {
  readonly method: "POST";
  readonly path: "/";
  readonly query: "";
  /** Names in lower case; values as they are signed. */
  readonly headers: ReadonlyMap<string, string>;
  readonly host: string;
  readonly contentType: string;
  /** X-Amz-Target. */
  readonly target: string;
}

/** `POST /`, with a body of declared length. */
export interface RequestHead extends CallHead {
  readonly contentLength: number;
  /** Of the head itself, with the empty line. */
  readonly bytes: number;
}

const REQUEST_LINE = "POST / HTTP/1.1\r\n";
/** Heads of SDKs have 300 to 1,200 bytes. */
const MAX_HEAD_BYTES = 4_096;
const MAX_HEADERS = 48;
const CR = 0x0d;
const LF = 0x0a;
const COLON = 0x3a;
const SPACE = 0x20;
const TAB = 0x09;

/** RFC 9110 §5.6.2: what names are made of; 1 for each. */
const token = new Uint8Array(128);
for (const character of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") {
  token[character.charCodeAt(0)] = 1;
  token[character.toUpperCase().charCodeAt(0)] = 1;
}

/** These change what a message is, or how its connection goes on: not here. */
const UNUSUAL = new Set([
  "connection",
  "expect",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** Undefined unless all of the head is there and nothing about it is unusual. */
export function readRequestHead(chunk: Buffer): RequestHead | undefined {
  const text = chunk.toString("latin1", 0, Math.min(chunk.length, MAX_HEAD_BYTES));
  if (!text.startsWith(REQUEST_LINE)) return undefined;
  const headers = new Map<string, string>();
  let at = REQUEST_LINE.length;
  let count = 0;
  while (text.charCodeAt(at) !== CR) {
    const nameEnd = endOfName(text, at);
    if (nameEnd === at || text.charCodeAt(nameEnd) !== COLON) return undefined;
    const name = text.slice(at, nameEnd).toLowerCase();
    const valueAt = skipSpace(text, nameEnd + 1);
    const lineEnd = endOfValue(text, valueAt);
    if (text.charCodeAt(lineEnd) !== CR || text.charCodeAt(lineEnd + 1) !== LF) return undefined;
    const value = text.slice(valueAt, lineEnd);
    at = lineEnd + 2;
    if (isUnusual(name, value)) return undefined;
    headers.set(name, value);
    // One that comes twice is for Node to judge.
    if (headers.size !== ++count || count > MAX_HEADERS) return undefined;
  }
  if (text.charCodeAt(at + 1) !== LF) return undefined;
  const host = headers.get("host");
  const target = headers.get("x-amz-target");
  const length = headers.get("content-length");
  if (host === undefined || target === undefined || length === undefined || !/^\d{1,9}$/.test(length)) {
    return undefined;
  }
  return {
    method: "POST",
    path: "/",
    query: "",
    headers,
    host,
    contentType: headers.get("content-type") ?? "",
    target,
    contentLength: Number(length),
    bytes: at + 2,
  };
}

function isUnusual(name: string, value: string): boolean {
  if (UNUSUAL.has(name) && !(name === "connection" && isKeepAlive(value))) return true;
  // Spaces at the end are allowed by RFC 9110 §5.5, but Node does not take them of every header; those
  // within are no longer the same in a signature.
  return value.endsWith(" ") || value.endsWith("\t") || value.includes("  ");
}

/** What HTTP/1.1 does anyway. */
function isKeepAlive(value: string): boolean {
  return value.length === 10 && value.toLowerCase() === "keep-alive";
}

function endOfName(text: string, at: number): number {
  while (token[text.charCodeAt(at)] === 1) at++;
  return at;
}

function skipSpace(text: string, at: number): number {
  for (;;) {
    const code = text.charCodeAt(at);
    if (code !== SPACE && code !== TAB) return at;
    at++;
  }
}

/** Behind the visible characters and spaces; others than ASCII are left to Node. */
function endOfValue(text: string, at: number): number {
  for (;;) {
    const code = text.charCodeAt(at);
    if (!((code >= SPACE && code < 0x7f) || code === TAB)) return at;
    at++;
  }
}
