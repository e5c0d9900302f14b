/** How the console's part of the API answers: JSON that nobody stores, and refusals of one shape. */
import { HeadwaterError } from "../../../runtime/errors.ts";
import { type Exchange, type Headers, send } from "../exchange.ts";

/** A request that is refused; its status, code, message and hint reach the page. */
export class ConsoleError extends HeadwaterError {
  readonly status: number;
  readonly headers: Headers;

  constructor(status: number, code: string, message: string, hint?: string, headers: Headers = {}) {
    super(code, { message, ...(hint !== undefined && { hint }), retryable: status === 429 || status >= 500 });
    this.status = status;
    this.headers = headers;
  }
}

/** What every answer carries: nothing of ours is guessed at, framed, or told to other sites. */
export const SECURITY_HEADERS: Headers = {
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "x-frame-options": "DENY",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
};

const JSON_HEADERS: Headers = {
  ...SECURITY_HEADERS,
  "content-type": "application/json; charset=utf-8",
  "cache-control": "no-store",
};

export function sendJson(exchange: Exchange, value: unknown, status = 200, headers: Headers = {}): void {
  sendJsonText(exchange, toJson(value), status, headers);
}

export function sendJsonText(exchange: Exchange, json: string, status = 200, headers: Headers = {}): void {
  send(exchange, status, { ...JSON_HEADERS, ...headers }, json);
}

export function sendNothing(exchange: Exchange, headers: Headers = {}): void {
  send(exchange, 204, { ...SECURITY_HEADERS, "cache-control": "no-store", ...headers });
}

export function sendRefusal(exchange: Exchange, error: ConsoleError): void {
  const { code, message, hint } = error;
  sendJson(exchange, { error: { code, message, hint } }, error.status, error.headers);
}

/** 64-bit numbers go as decimal strings: JavaScript's own numbers would round them. */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_, member: unknown) =>
    typeof member === "bigint" ? member.toString() : member,
  );
}
