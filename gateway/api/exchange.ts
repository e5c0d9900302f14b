/**
 * One request and its reply, the same over HTTP/1.1 and HTTP/2. Bodies are read whole, within a
 * limit of their own, a deadline, and a budget that all requests of the gateway share.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import { HeadwaterError } from "../../runtime/errors.ts";
import {
  type BodyBudget,
  type BodyHolder,
  type BodySender,
  BusyError,
  UnprovenBusyError,
} from "./bodies/body-budget.ts";
import { BodyChunks } from "./bodies/body-chunks.ts";

export type IncomingRequest = IncomingMessage | Http2ServerRequest;
export type OutgoingReply = ServerResponse | Http2ServerResponse;

/** A client that sends more slowly than this is let go. */
const BODY_DEADLINE_MS = 60_000;
/** How far beyond its limit a body is read and thrown away, so that the client gets to see the refusal. */
export const DISCARD_FACTOR = 4;

/** Whether what is written to it goes nowhere, and nobody will tell when. Of HTTP/2 the reply itself does not say. */
export function isGone(reply: OutgoingReply): boolean {
  return "stream" in reply ? reply.stream.closed || reply.stream.destroyed : reply.destroyed;
}

/** Who waits for an answer. */
export interface Asker {
  /** Whether nobody is there to take it any more. */
  readonly isGone: boolean;
  /** Whether it has closed its side, over HTTP/1.1. It may wait for the answer, or have left: only what is sent to it shows that. */
  readonly hasSaidAll: boolean;
}

/** Who asked has left meanwhile: what costs much to answer is not begun then. */
export class AskerGoneError extends HeadwaterError {
  constructor() {
    super("ASKER_GONE", { message: "nobody waits for the answer any more" });
  }
}

export interface Exchange extends Asker {
  readonly request: IncomingRequest;
  readonly reply: OutgoingReply;
  readonly method: string;
  /** As it was sent, percent-encoding and all; without the query. */
  readonly path: string;
  /** Behind the `?`; empty without one. */
  readonly query: string;
  /** The Host header or the `:authority` of HTTP/2; empty when there was none. */
  readonly host: string;
  readonly remoteAddress: string;
  /** The address of ours that the client reached. */
  readonly localAddress: string;
}

export function openExchange(request: IncomingRequest, reply: OutgoingReply): Exchange {
  const { url, host } = targetOf(request);
  const mark = url.indexOf("?");
  return {
    request,
    reply,
    method: request.method ?? "GET",
    path: mark < 0 ? url : url.slice(0, mark),
    query: mark < 0 ? "" : url.slice(mark + 1),
    host,
    remoteAddress: plainAddress(request.socket?.remoteAddress),
    localAddress: plainAddress(request.socket?.localAddress),
    get isGone() {
      return isGone(reply);
    },
    get hasSaidAll() {
      return !("stream" in request) && request.socket.readableEnded;
    },
  };
}

/** RFC 9112 §3.2.2: where a client, such as one that knows a proxy, writes all of an address, that is its host. */
function targetOf({ url = "/", headers }: IncomingRequest): { url: string; host: string } {
  const authority = headers[":authority"];
  const host = headers.host ?? (typeof authority === "string" ? authority : "");
  const whole = url.startsWith("/") ? null : /^https?:\/\/([^/?#]*)(.*)$/i.exec(url);
  if (whole === null) return { url, host };
  const rest = whole[2]!;
  return { url: rest.startsWith("/") ? rest : `/${rest}`, host: whole[1]! };
}

/** Dual-stack sockets show IPv4 addresses as `::ffff:127.0.0.1`. */
export function plainAddress(address: string | undefined): string {
  return (address ?? "").replace(/^::ffff:/, "");
}

/** What its other calls come by as well. */
export function connectionOf({ request }: Exchange): object {
  return "stream" in request ? (request.stream.session ?? request.stream) : request.socket;
}

/** The value of a header that may stand once; empty when it is missing. */
export function header(exchange: Exchange, name: string): string {
  const value = exchange.request.headers[name];
  return Array.isArray(value) ? value.join(",") : (value ?? "");
}

export class BodyTooLargeError extends HeadwaterError {
  constructor(maxBytes: number) {
    super("BODY_TOO_LARGE", { message: `the body is larger than ${maxBytes} bytes` });
  }
}

/** The client stopped sending, or was too slow. There is nobody to answer. */
export class BodyCutOffError extends HeadwaterError {
  constructor() {
    super("BODY_CUT_OFF", { message: "the body never came to its end" });
  }
}

/** Why there is no body; or the body. */
export type BodyHeard = (refusal: HeadwaterError | undefined, body: Buffer) => void;

/**
 * Reads the whole body. `heard` is called once, with a BodyTooLargeError, BodyCutOffError, BusyError or
 * UnprovenBusyError if there is none; otherwise it owes its bytes to the budget.
 * @param keepsBody whether its bytes are needed once `heard` has returned; otherwise they may be written over
 * @param holder whose share of the budget it is; without one all that is free may be taken
 * @param sender of whom nothing is proven yet; all others need not be named
 */
export function readBody(
  request: IncomingRequest,
  maxBytes: number,
  budget: BodyBudget,
  keepsBody: boolean,
  heard: BodyHeard,
  holder?: BodyHolder,
  sender?: BodySender,
): void {
  const chunks = new BodyChunks();
  let readBytes = 0;
  let refusal: HeadwaterError | undefined;
  const deadline = setTimeout(() => end(new BodyCutOffError()), BODY_DEADLINE_MS);
  const giveUp = (): void => {
    refusal ??= sender === undefined ? new BusyError() : new UnprovenBusyError();
    budget.give(chunks.bytes, holder);
    chunks.clear();
  };
  const end = (why: HeadwaterError | undefined): void => {
    clearTimeout(deadline);
    budget.came(giveUp);
    request.removeListener("data", onData);
    request.removeListener("end", onEnd);
    request.removeListener("close", onClose);
    if (why === undefined) heard(undefined, chunks.join(keepsBody));
    else {
      budget.give(chunks.bytes, holder);
      heard(why, NO_BYTES);
    }
  };
  const onData = (chunk: Buffer): void => {
    readBytes += chunk.length;
    if (refusal === undefined) {
      if (readBytes > maxBytes) refusal = new BodyTooLargeError(maxBytes);
      else if (budget.takeComing(chunk.length, giveUp, holder)) {
        chunks.add(chunk);
        return;
      } else if (sender !== undefined) for (const piece of chunks.pieces) sender.discard(piece);
      giveUp();
    }
    if (refusal instanceof UnprovenBusyError) sender?.discard(chunk);
    if (readBytes > maxBytes * DISCARD_FACTOR) end(refusal);
  };
  const onEnd = (): void => end(refusal);
  const onClose = (): void => end(refusal ?? new BodyCutOffError());
  request.on("data", onData);
  request.on("end", onEnd);
  request.on("close", onClose);
  // "close" follows and is enough.
  request.on("error", ignore);
}

const NO_BYTES = Buffer.alloc(0);
const ignore = (): void => {};

/**
 * Reads the whole body and hands it to `use`; the budget is given back when `use` is done.
 * @throws BodyTooLargeError, BodyCutOffError, BusyError
 */
export function withBody<T>(
  exchange: Exchange,
  maxBytes: number,
  budget: BodyBudget,
  use: (body: Buffer) => Promise<T>,
): Promise<T> {
  return new Promise((resolve, reject) => {
    readBody(exchange.request, maxBytes, budget, true, (refusal, body) => {
      if (refusal !== undefined) return reject(refusal);
      use(body)
        .finally(() => budget.give(body.length))
        .then(resolve, reject);
    });
  });
}

export type Headers = Readonly<Record<string, string | number | readonly string[]>>;

/** Writes head and body at once. Does nothing when the client has gone. */
export function send(exchange: Exchange, status: number, headers: Headers, body: string | Buffer = ""): void {
  const { reply } = exchange;
  if (reply.headersSent || reply.destroyed || reply.writableEnded) return;
  const bytes = typeof body === "string" ? Buffer.byteLength(body) : body.length;
  // RFC 9110 §8.6: a 204 or 304 has no Content-Length.
  const all: Record<string, string | number | readonly string[]> =
    status === 204 || status === 304 ? { ...headers } : { ...headers, "content-length": bytes };
  (reply as ServerResponse).writeHead(status, all as Record<string, string | number | string[]>);
  if (exchange.method === "HEAD" || bytes === 0) reply.end();
  else (reply as ServerResponse).end(body);
}

/** Sends and lets go of the connection: for requests of which more may come than we want to read. */
export function sendAndPart(
  exchange: Exchange,
  status: number,
  headers: Headers,
  body: string | Buffer,
): void {
  const overHttp1 = exchange.request.httpVersionMajor === 1;
  send(exchange, status, overHttp1 ? { ...headers, connection: "close" } : headers, body);
}
