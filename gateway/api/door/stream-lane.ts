/**
 * The short way of HTTP/2 calls: a stream of node:http2 as it is, without the request and the reply that
 * are made like HTTP/1.1's, and without a timer for each. Beside it the plain way answers the same.
 *
 *   HEADERS ─POST /, X-Amz-Target→ service.begin → body → call.run → HEADERS, DATA
 *           └─anything else→ node:http2's request and reply
 */
import { type IncomingHttpHeaders, type ServerHttp2Stream, sensitiveHeaders } from "node:http2";
import type { Clock } from "../../../runtime/clock.ts";
import type { HeadwaterError } from "../../../runtime/errors.ts";
import { type Placed, PlacedSet } from "../../../runtime/placed-set.ts";
import { giveAnswer, isLent } from "../answers/answer-memory.ts";
import { giveBehindStream } from "../answers/answers-on-way.ts";
import { isLarge } from "../answers/unread-answers.ts";
import { type BodyHolder, BusyError, UnprovenBusyError } from "../bodies/body-budget.ts";
import { BLOCK_BYTES, GatheredBody } from "../bodies/gathered-body.ts";
import { type Asker, BodyCutOffError, BodyTooLargeError, DISCARD_FACTOR } from "../exchange.ts";
import { canonicalHeaders } from "../signature/sigv4-canonical.ts";
import type { LaneAnswer, LaneCall, LaneService } from "./lane-service.ts";
import type { CallHead } from "./request-head.ts";
import { readStream } from "./stream-read.ts";

const SWEEP_MS = 5_000;
/** Each is another: in the connection's table of headers (RFC 7541 §6.2.3) it would only push out the others. */
const NOT_INDEXED = ["x-amzn-requestid"];

const TAKEN = Symbol("taken");
type Taken = ServerHttp2Stream & { [TAKEN]?: true };

export class StreamLane {
  readonly service: LaneService;
  /** For a body to come, for a call to be done, and for its answer to be taken. */
  readonly requestMs: number;
  readonly #clock: Clock;
  readonly #calls = new PlacedSet<StreamCall>();
  #sweeper: NodeJS.Timeout | undefined;
  #closing = false;

  constructor(service: LaneService, requestMs: number, clock: Clock) {
    this.service = service;
    this.requestMs = requestMs;
    this.#clock = clock;
  }

  /**
   * @param rawHeaders names and values in turn
   * @returns false for what is to go the plain way
   */
  take(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, rawHeaders: readonly string[]): boolean {
    if (this.#closing || stream.destroyed || !isUsual(headers)) return false;
    const declaredBytes = Number(headers["content-length"] ?? Number.NaN);
    if (declaredBytes > this.service.maxBodyBytes) return false;
    const call = this.service.begin(headOf(headers, rawHeaders));
    if (call === undefined) return false;
    const taken = new StreamCall(this, stream, call, declaredBytes);
    this.#calls.add(taken);
    (stream as Taken)[TAKEN] = true;
    this.#sweeper ??= setInterval(() => this.sweep(), SWEEP_MS).unref();
    taken.start();
    return true;
  }

  /** Whether it is a call of the lane's, which has its deadline. */
  took(stream: ServerHttp2Stream): boolean {
    return (stream as Taken)[TAKEN] === true;
  }

  /** Once. */
  forget(call: StreamCall): void {
    this.#calls.delete(call);
  }

  nowMs(): number {
    return this.#clock.monotonicMs();
  }

  /** Lets go of whoever is too slow. */
  sweep(): void {
    const nowMs = this.nowMs();
    for (const call of this.#calls.all()) call.checkDeadline(nowMs);
  }

  /** What has begun goes on, and nothing else begins. Safe to call twice. */
  close(): void {
    this.#closing = true;
    clearInterval(this.#sweeper);
  }
}

/** A call, as SDKs write them; HTTP/2 needs no length (RFC 9113 §8.1.1). */
function isUsual(headers: IncomingHttpHeaders): boolean {
  return (
    headers[":method"] === "POST" &&
    headers[":path"] === "/" &&
    typeof headers["x-amz-target"] === "string" &&
    headers.expect === undefined &&
    /^\d{1,9}$/.test(headers["content-length"] ?? "0")
  );
}

/** As `openExchange` and `SignatureVerifier.open` would read it. */
function headOf(headers: IncomingHttpHeaders, rawHeaders: readonly string[]): CallHead {
  const signed = canonicalHeaders(rawHeaders);
  const host = headers.host ?? headers[":authority"] ?? "";
  if (!signed.has("host")) signed.set("host", host);
  return {
    method: "POST",
    path: "/",
    query: "",
    headers: signed,
    host,
    contentType: headers["content-type"] ?? "",
    target: headers["x-amz-target"] as string,
  };
}

/** One call and its stream. */
class StreamCall implements Asker, Placed {
  /** Over HTTP/2 that is how each call ends, and who leaves says so. */
  readonly hasSaidAll = false;
  place = 0;
  readonly #lane: StreamLane;
  readonly #stream: ServerHttp2Stream;
  readonly #call: LaneCall;
  /** Its connection; and whose that was known to be when the body began. */
  readonly #session: object;
  readonly #holder: BodyHolder;
  /** NaN where none were. */
  readonly #declaredBytes: number;
  readonly #body = new GatheredBody(true);
  /** Taken from the budget for it. */
  #takenBytes = 0;
  #seenBytes = 0;
  #refusal: HeadwaterError | undefined;
  #state: "body" | "answering" | "answered" = "body";
  /** When the state became what it is. */
  #sinceMs: number;
  /** Of a large answer, until the stream is closed. */
  #unreadBytes = 0;

  constructor(lane: StreamLane, stream: ServerHttp2Stream, call: LaneCall, declaredBytes: number) {
    this.#lane = lane;
    this.#stream = stream;
    this.#call = call;
    this.#session = stream.session ?? stream;
    this.#prove();
    this.#holder = lane.service.budget.holderOf(this.#session);
    this.#declaredBytes = declaredBytes;
    this.#sinceMs = lane.nowMs();
  }

  start(): void {
    const stream = this.#stream;
    if (this.#reserve()) readStream(stream, this.#onDirect, () => this.#body.room);
    else readStream(stream, this.#onData);
    stream.on("end", this.#onEnd);
    stream.on("close", this.#onClose);
  }

  get isGone(): boolean {
    return this.#stream.destroyed || this.#stream.closed;
  }

  checkDeadline(nowMs: number): void {
    if (nowMs - this.#sinceMs > this.#lane.requestMs && this.#unreadBytes === 0) this.#stream.close();
  }

  /**
   * Of a known sender whose body fits in a block: all of it is taken from the budget now, and read into its place. The
   * block is the body's until the stream has ended or is closed, after which node:http2 writes nothing more into it.
   */
  #reserve(): boolean {
    const { budget } = this.#lane.service;
    const bytes = this.#declaredBytes;
    if (this.#holder === budget.strangers || !(bytes > 0 && bytes <= BLOCK_BYTES)) return false;
    if (!budget.take(bytes, this.#holder)) return false;
    this.#takenBytes = bytes;
    this.#body.expect(bytes);
    return true;
  }

  readonly #onDirect = (chunk: Buffer): void => {
    this.#seenBytes += chunk.length;
    if (!this.#body.holds(chunk)) this.#body.add(chunk);
  };

  readonly #onData = (chunk: Buffer): void => {
    if (this.#state !== "body") return;
    const { budget, maxBodyBytes } = this.#lane.service;
    const isStrangers = this.#holder === budget.strangers;
    this.#seenBytes += chunk.length;
    if (this.#refusal === undefined) {
      if (this.#seenBytes > maxBodyBytes) this.#refusal = new BodyTooLargeError(maxBodyBytes);
      else if (!budget.take(chunk.length, this.#holder)) {
        this.#refusal = isStrangers ? new UnprovenBusyError() : new BusyError();
        if (isStrangers) for (const piece of this.#body.pieces) this.#call.discard(piece);
      } else {
        this.#takenBytes += chunk.length;
        this.#body.add(chunk);
        return;
      }
      this.#release();
    }
    if (this.#refusal instanceof UnprovenBusyError) this.#call.discard(chunk);
    // Read to its end and thrown away, so that the client gets to see the refusal; but not for ever.
    if (this.#seenBytes > maxBodyBytes * DISCARD_FACTOR) {
      this.#refuse(this.#refusal);
      // RFC 9113 §8.1: with NO_ERROR, once the answer has gone, it asks the client to stop.
      this.#stream.close();
    }
  };

  readonly #onEnd = (): void => {
    if (this.#state !== "body") return;
    // RFC 9113 §8.1.1: a length that is not that of the body makes the call malformed. node:http2 sees to it.
    // A stream that is reset may end, too, and is then aborted; its "close" follows.
    if (this.#seenBytes !== this.#declaredBytes && !Number.isNaN(this.#declaredBytes)) {
      this.#stream.close();
    } else if (this.#refusal !== undefined) this.#refuse(this.#refusal);
    else if (!this.#stream.aborted) {
      this.#enter("answering");
      this.#body.use(this.#call.keepsBody, (body) => this.#call.run(body, this.#answer, this));
      this.#prove();
    }
  };

  readonly #onClose = (): void => {
    this.#lane.forget(this);
    if (this.#unreadBytes > 0) this.#lane.service.unread.give(this.#unreadBytes, this.#call.keyId);
    if (this.#state === "body") this.#refuse(new BodyCutOffError());
  };

  #refuse(why: HeadwaterError): void {
    this.#enter("answering");
    this.#release();
    this.#call.refuse(why, this.#answer);
    this.#prove();
  }

  #prove(): void {
    const { isProven, keyId } = this.#call;
    if (isProven) this.#lane.service.budget.prove(this.#session, keyId);
  }

  readonly #answer = ({ status, requestId, contentType, body, room }: LaneAnswer): boolean => {
    const stream = this.#stream;
    const length = typeof body === "string" ? Buffer.byteLength(body) : body.length;
    const isThere = !this.isGone;
    if (isThere && isLarge(length)) {
      if (!this.#lane.service.unread.take(length, this.#call.keyId, room)) {
        giveAnswer(body);
        return false;
      }
      this.#unreadBytes = length;
      // It may take long, but not rest; small ones have gone, or their deadline is that of the call.
      stream.setTimeout(this.#lane.requestMs, () => stream.close());
    }
    this.#release();
    this.#enter("answered");
    if (!isThere) {
      giveAnswer(body);
      return true;
    }
    const head = {
      ":status": status,
      "x-amzn-requestid": requestId,
      "content-type": contentType,
      "content-length": length,
      [sensitiveHeaders]: NOT_INDEXED,
    };
    stream.respond(head, length === 0 ? { endStream: true } : undefined);
    // A string's characters are its bytes unless it is longer in UTF-8.
    if (typeof body === "string") stream.end(body, body.length === length ? "latin1" : "utf8");
    else if (isLarge(length)) {
      giveBehindStream(stream, body);
      stream.end(body);
    } else if (isLent(body)) {
      // node:http2 does not tell when it has left, and to copy it costs less than to ask the client.
      const text = body.toString("latin1");
      giveAnswer(body);
      stream.end(text, "latin1");
    } else stream.end(body);
    return true;
  };

  #enter(state: "answering" | "answered"): void {
    this.#state = state;
    this.#sinceMs = this.#lane.nowMs();
  }

  #release(): void {
    this.#lane.service.budget.give(this.#takenBytes, this.#holder);
    this.#takenBytes = 0;
    this.#body.clear();
  }
}
