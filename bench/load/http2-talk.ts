/**
 * What is said over HTTP/2 by prior knowledge, on raw sockets as over HTTP/1.1: one request at a time on a
 * connection, its bytes and its signature made before. DATA frames are as large as the server allows, which
 * is what Netty (the AWS SDK for Java) and Go's client do; Node's client, and so the SDK for JavaScript,
 * sends 16 KiB, whatever is allowed: `maxFrameBytes` tells how large they may be.
 *
 *   preface, SETTINGS → SETTINGS → HEADERS, DATA… → HEADERS `:status 200`, DATA… END_STREAM → the next one
 */
import { AnswerCheck } from "./answer-check.ts";
import type { Talk } from "./drive.ts";
import {
  DEFAULT,
  FLAG,
  FRAME,
  FRAME_HEAD_BYTES,
  frame,
  headerBlock,
  PREFACE,
  SETTING,
  STATUS_200,
  settings,
  windowUpdate,
  writeFrameHead,
} from "./http2-frames.ts";
import type { SignedCall } from "./kinesis-requests.ts";

/** For answers; what was read of the connection's is given back when half of it is used. */
const ANSWER_WINDOW_BYTES = 8 * 1_048_576;
/** RFC 9113 §5.1.1: ids are odd, rise, and end here; at a thousand requests a second that is twelve days. */
const LAST_STREAM = 2 ** 31 - 1;
/** Of a refusal, as much as is told. */
const MAX_TOLD_BYTES = 400;

/** A request as all connections may send it: only the ids of its frames are another's. */
export interface Http2Message {
  readonly head: Buffer;
  readonly body: Buffer;
}

export function http2Message({ headers, body }: SignedCall): Http2Message {
  const { host, ...rest } = headers;
  const block = headerBlock(host ?? "", { ...rest, "content-length": String(body.length) });
  return { head: block, body };
}

export class Http2Talk implements Talk {
  readonly #messages: readonly Http2Message[];
  readonly #maxFrameBytes: number;
  readonly #check: AnswerCheck;
  #turn: number;
  #send: (bytes: Buffer) => void = () => {};
  #ready: () => void = () => {};
  /** The request under way; 0 for none. */
  #stream = 0;
  #lastStream = -1;
  /** Of its body, what is still to be sent. */
  #body: Buffer = Buffer.alloc(0);
  #status: "awaited" | "good" | "refused" = "awaited";
  #refusal = "";
  /** What the server allows. */
  #frameBytes: number = DEFAULT.frameBytes;
  #initialWindow: number = DEFAULT.windowBytes;
  #streamWindow = 0;
  #connectionWindow: number = DEFAULT.windowBytes;
  /** Of answers, what was not yet given back to the connection's window. */
  #heardBytes = 0;
  /** Of a frame that has not yet come whole. */
  #rest: Buffer = Buffer.alloc(0);
  #done = 0;

  /**
   * @param messages are sent in turn from `start` on
   * @param expected how each answer's body begins
   */
  constructor(
    messages: readonly Http2Message[],
    start: number,
    expected?: RegExp,
    maxFrameBytes = Number.POSITIVE_INFINITY,
  ) {
    this.#messages = messages;
    this.#turn = start;
    this.#check = new AnswerCheck(expected);
    this.#maxFrameBytes = maxFrameBytes;
  }

  meet(send: (bytes: Buffer) => void): Promise<void> {
    this.#send = send;
    const own = settings([
      [SETTING.enablePush, 0],
      [SETTING.initialWindowSize, ANSWER_WINDOW_BYTES],
    ]);
    // SETTINGS tell only the window of a stream (RFC 9113 §6.9.2).
    send(Buffer.concat([PREFACE, own, windowUpdate(0, ANSWER_WINDOW_BYTES - DEFAULT.windowBytes)]));
    return new Promise((resolve) => {
      this.#ready = resolve;
    });
  }

  next(): readonly Buffer[] {
    if (this.#stream !== 0) throw new Error("over HTTP/2 one request at a time is sent on a connection");
    this.#stream = this.#lastStream += 2;
    if (this.#stream > LAST_STREAM) throw new Error("the connection has no stream left");
    const { head, body } = this.#messages[this.#turn++ % this.#messages.length]!;
    this.#streamWindow = this.#initialWindow;
    this.#status = "awaited";
    this.#body = body;
    const flags = FLAG.endHeaders | (body.length === 0 ? FLAG.endStream : 0);
    return [frame(FRAME.headers, flags, this.#stream, head), ...this.#dataFrames()];
  }

  taken(chunk: Buffer): number {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let at = 0;
    while (bytes.length - at >= FRAME_HEAD_BYTES) {
      const length = bytes.readUIntBE(at, 3);
      // We have not allowed more (RFC 9113 §4.2).
      if (length > DEFAULT.frameBytes) throw new Error(`a frame of ${length} bytes, which is too large`);
      const payloadAt = at + FRAME_HEAD_BYTES;
      if (bytes.length - payloadAt < length) break;
      const payload = bytes.subarray(payloadAt, payloadAt + length);
      this.#hear(bytes[at + 3]!, bytes[at + 4]!, bytes.readUInt32BE(at + 5) & LAST_STREAM, payload);
      at = payloadAt + length;
    }
    // The chunk's memory is the next one's, too.
    this.#rest = at === bytes.length ? Buffer.alloc(0) : Buffer.from(bytes.subarray(at));
    const done = this.#done;
    this.#done = 0;
    return done;
  }

  /** As much of the body as the windows allow (RFC 9113 §5.2); the rest goes when they are wider. */
  #dataFrames(): Buffer[] {
    const parts: Buffer[] = [];
    while (this.#body.length > 0) {
      const bytes = Math.min(
        this.#body.length,
        this.#frameBytes,
        this.#maxFrameBytes,
        this.#streamWindow,
        this.#connectionWindow,
      );
      if (bytes <= 0) break;
      const head = Buffer.allocUnsafe(FRAME_HEAD_BYTES);
      const isLast = bytes === this.#body.length;
      writeFrameHead(head, 0, bytes, FRAME.data, isLast ? FLAG.endStream : 0, this.#stream);
      parts.push(head, this.#body.subarray(0, bytes));
      this.#body = this.#body.subarray(bytes);
      this.#streamWindow -= bytes;
      this.#connectionWindow -= bytes;
    }
    return parts;
  }

  #sendMore(): void {
    for (const part of this.#dataFrames()) this.#send(part);
  }

  #hear(type: number, flags: number, stream: number, payload: Buffer): void {
    switch (type) {
      case FRAME.headers:
        this.#hearHeaders(flags, stream, payload);
        break;
      case FRAME.data:
        this.#hearData(flags, stream, payload);
        break;
      case FRAME.settings:
        if ((flags & FLAG.ack) === 0) this.#hearSettings(payload);
        break;
      case FRAME.windowUpdate:
        if (stream === 0) this.#connectionWindow += payload.readUInt32BE(0);
        // One of a request that is answered may be late.
        else if (stream === this.#stream) this.#streamWindow += payload.readUInt32BE(0);
        this.#sendMore();
        break;
      case FRAME.ping:
        if ((flags & FLAG.ack) === 0) this.#send(frame(FRAME.ping, FLAG.ack, 0, payload));
        break;
      case FRAME.reset:
        throw new Error(`the server reset stream ${stream}: error ${payload.readUInt32BE(0)}`);
      case FRAME.goAway:
        throw new Error(`the server said GOAWAY: error ${payload.readUInt32BE(4)}`);
      default:
        throw new Error(`a frame of type ${type} that nobody expects`);
    }
  }

  #hearHeaders(flags: number, stream: number, block: Buffer): void {
    this.#mustBeOurs(stream, flags);
    if (this.#status !== "awaited" || (flags & FLAG.endHeaders) === 0) {
      throw new Error("headers that an answer of ours does not have");
    }
    // It comes first (RFC 9113 §8.3); other codes, however they are written, are other bytes.
    this.#status = block[0] === STATUS_200 ? "good" : "refused";
    if ((flags & FLAG.endStream) !== 0) this.#end();
  }

  #hearData(flags: number, stream: number, payload: Buffer): void {
    this.#mustBeOurs(stream, flags);
    if (this.#status === "awaited") throw new Error("a body before its headers");
    if (this.#status === "good") this.#check.add(payload, 0, payload.length);
    else if (this.#refusal.length < MAX_TOLD_BYTES) this.#refusal += payload.toString("latin1");
    this.#heardBytes += payload.length;
    if (this.#heardBytes >= ANSWER_WINDOW_BYTES / 2) {
      this.#send(windowUpdate(0, this.#heardBytes));
      this.#heardBytes = 0;
    }
    if ((flags & FLAG.endStream) !== 0) this.#end();
  }

  #mustBeOurs(stream: number, flags: number): void {
    if (stream !== this.#stream || stream === 0) throw new Error(`an answer on stream ${stream}`);
    if ((flags & FLAG.padded) !== 0) throw new Error("a padded frame, which nobody expects");
  }

  #end(): void {
    if (this.#status === "refused") throw new Error(`refused: ${this.#refusal.slice(0, MAX_TOLD_BYTES)}`);
    if (this.#body.length > 0) throw new Error("answered before it was asked to the end");
    this.#check.end();
    this.#stream = 0;
    this.#done++;
  }

  #hearSettings(payload: Buffer): void {
    for (let at = 0; at < payload.length; at += 6) {
      const value = payload.readUInt32BE(at + 2);
      switch (payload.readUInt16BE(at)) {
        case SETTING.maxFrameSize:
          this.#frameBytes = value;
          break;
        case SETTING.initialWindowSize:
          // RFC 9113 §6.9.2: it counts for the request under way as well.
          this.#streamWindow += value - this.#initialWindow;
          this.#initialWindow = value;
          break;
        case SETTING.headerTableSize:
          // A smaller table would have to be told in the next headers (RFC 7541 §4.2).
          if (value < DEFAULT.tableBytes) throw new Error(`a table of headers of ${value} bytes`);
          break;
        case SETTING.maxConcurrentStreams:
          if (value === 0) throw new Error("the server allows no stream");
          break;
        default:
      }
    }
    this.#send(frame(FRAME.settings, FLAG.ack, 0, Buffer.alloc(0)));
    this.#ready();
    this.#sendMore();
  }
}
