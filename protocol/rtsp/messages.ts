/**
 * RTSP 1.0 on a TCP stream (RFC 2326 §4-7, §10.12): requests, responses and interleaved `$` frames.
 * The bytes come from strangers, so every length has a limit.
 */
import { HeadwaterError } from "../../runtime/errors.ts";
import { PacketBlocks } from "./packet-blocks.ts";

export const MAX_LINE_BYTES = 8 * 1_024;
export const MAX_HEADERS = 64;
export const MAX_BODY_BYTES = 256 * 1_024;

/** Header names are in lower case; of a header given twice the values are joined by ", ". */
export type RtspHeaders = ReadonlyMap<string, string>;

export interface RtspRequest {
  readonly kind: "request";
  readonly method: string;
  /** As it came: an absolute rtsp:// address, or `*`. */
  readonly url: string;
  readonly headers: RtspHeaders;
  readonly body: Buffer;
}

export interface RtspResponse {
  readonly kind: "response";
  readonly status: number;
  readonly reason: string;
  readonly headers: RtspHeaders;
  readonly body: Buffer;
}

/** RFC 2326 §10.12. `payload` is a view of what was received; do not write to it. */
export interface InterleavedFrame {
  readonly kind: "frame";
  readonly channel: number;
  readonly payload: Buffer;
}

export type RtspMessage = RtspRequest | RtspResponse | InterleavedFrame;

/** The bytes are not RTSP, or exceed a limit. The place of the next message is unknown: close the connection. */
export class MalformedMessageError extends HeadwaterError {
  constructor(reason: string) {
    super("RTSP_MALFORMED", { message: `RTSP message: ${reason}` });
  }
}

const DOLLAR = 0x24;
const CR = 0x0d;
const LF = 0x0a;
const FRAME_HEAD_BYTES = 4;
const EMPTY = Buffer.alloc(0);

type State = "start" | "line" | "body" | "frame-head" | "frame" | "lost";

/** What a text message has shown of itself so far. */
interface Head {
  readonly startLine: string;
  readonly headers: Map<string, string>;
  lastName: string;
}

export class RtspParser {
  readonly #onMessage: (message: RtspMessage) => void;
  #state: State = "start";
  /** A line or a frame's head of which the rest has not come. Made when first needed. */
  #line: Buffer = EMPTY;
  #lineBytes = 0;
  #head: Head | undefined;
  #channel = 0;
  readonly #blocks = new PacketBlocks();
  /** A body or payload of which the rest has not come; a fresh one each time, as it is handed out. */
  #store: Buffer = EMPTY;
  #storedBytes = 0;
  #neededBytes = 0;

  /** @param onMessage is called in order, from within `push`. */
  constructor(onMessage: (message: RtspMessage) => void) {
    this.#onMessage = onMessage;
  }

  /** @throws MalformedMessageError; the stream is lost then, close it. */
  push(chunk: Buffer): void {
    let at = 0;
    try {
      while (at < chunk.length) at = this.#step(chunk, at);
    } catch (error) {
      this.#state = "lost";
      throw error;
    }
  }

  #step(chunk: Buffer, at: number): number {
    switch (this.#state) {
      case "start":
        return this.#startMessage(chunk, at);
      case "line":
        return this.#takeLine(chunk, at);
      case "frame-head":
        return this.#takeFrameHead(chunk, at);
      case "body":
      case "frame":
        return this.#takePayload(chunk, at);
      case "lost":
        throw new MalformedMessageError("follows a malformed one");
    }
  }

  #startMessage(chunk: Buffer, at: number): number {
    const byte = chunk[at];
    // RFC 2326 §4.1: empty lines before a message are to be ignored.
    if (byte === CR || byte === LF) return at + 1;
    this.#lineBytes = 0;
    if (byte !== DOLLAR) {
      this.#state = "line";
      return at;
    }
    if (chunk.length - at < FRAME_HEAD_BYTES) {
      this.#state = "frame-head";
      return at;
    }
    this.#startFrame(chunk[at + 1]!, chunk.readUInt16BE(at + 2));
    return at + FRAME_HEAD_BYTES;
  }

  #takeFrameHead(chunk: Buffer, at: number): number {
    const line = this.#lineStore();
    const end = Math.min(chunk.length, at + FRAME_HEAD_BYTES - this.#lineBytes);
    this.#lineBytes += chunk.copy(line, this.#lineBytes, at, end);
    if (this.#lineBytes === FRAME_HEAD_BYTES) this.#startFrame(line[1]!, line.readUInt16BE(2));
    return end;
  }

  #startFrame(channel: number, bytes: number): void {
    this.#channel = channel;
    this.#expect("frame", bytes);
  }

  /** An empty payload is complete at once, before any further byte comes. */
  #expect(state: "body" | "frame", bytes: number): void {
    this.#state = state;
    this.#neededBytes = bytes;
    this.#storedBytes = 0;
    if (bytes === 0) this.#finish(EMPTY);
  }

  #takePayload(chunk: Buffer, at: number): number {
    const missing = this.#neededBytes - this.#storedBytes;
    const end = Math.min(chunk.length, at + missing);
    if (this.#storedBytes === 0) {
      if (end - at === missing) {
        this.#finish(chunk.subarray(at, end));
        return end;
      }
      this.#store = this.#blocks.take(this.#neededBytes);
    }
    this.#storedBytes += chunk.copy(this.#store, this.#storedBytes, at, end);
    if (this.#storedBytes === this.#neededBytes) {
      const whole = this.#store;
      this.#store = EMPTY;
      this.#finish(whole);
    }
    return end;
  }

  #finish(payload: Buffer): void {
    const wasFrame = this.#state === "frame";
    this.#state = "start";
    if (wasFrame) {
      this.#onMessage({ kind: "frame", channel: this.#channel, payload });
      return;
    }
    const { startLine, headers } = this.#head!;
    this.#head = undefined;
    this.#onMessage(parseStart(startLine, headers, payload));
  }

  #lineStore(): Buffer {
    if (this.#line.length === 0) this.#line = Buffer.allocUnsafe(MAX_LINE_BYTES);
    return this.#line;
  }

  #takeLine(chunk: Buffer, at: number): number {
    const newline = chunk.indexOf(LF, at);
    const end = newline === -1 ? chunk.length : newline;
    if (this.#lineBytes + end - at > MAX_LINE_BYTES) {
      throw new MalformedMessageError(`a line longer than ${MAX_LINE_BYTES} bytes`);
    }
    if (newline === -1) {
      this.#lineBytes += chunk.copy(this.#lineStore(), this.#lineBytes, at, end);
      return end;
    }
    let line: string;
    if (this.#lineBytes === 0) line = chunk.toString("utf8", at, end);
    else {
      this.#lineBytes += chunk.copy(this.#line, this.#lineBytes, at, end);
      line = this.#line.toString("utf8", 0, this.#lineBytes);
      this.#lineBytes = 0;
    }
    this.#useLine(line.endsWith("\r") ? line.slice(0, -1) : line);
    return newline + 1;
  }

  #useLine(line: string): void {
    if (this.#head === undefined) {
      checkStart(line);
      this.#head = { startLine: line, headers: new Map(), lastName: "" };
    } else if (line === "") {
      this.#expect("body", bodyBytes(this.#head.headers));
    } else addHeader(this.#head, line);
  }
}

function addHeader(head: Head, line: string): void {
  // RFC 2616 §4.2, which RTSP takes over: a line that begins with a blank goes on with the one before.
  if (line.startsWith(" ") || line.startsWith("\t")) {
    const before = head.headers.get(head.lastName);
    if (before === undefined) throw new MalformedMessageError("a continued line continues nothing");
    setHeader(head, head.lastName, `${before} ${line.trim()}`);
    return;
  }
  const colon = line.indexOf(":");
  const name = line.slice(0, Math.max(colon, 0)).trim().toLowerCase();
  if (!/^[!-9;-~]+$/.test(name)) throw new MalformedMessageError("a header without a name");
  const value = line.slice(colon + 1).trim();
  const before = head.headers.get(name);
  if (before === undefined && head.headers.size >= MAX_HEADERS) {
    throw new MalformedMessageError(`more than ${MAX_HEADERS} headers`);
  }
  setHeader(head, name, before === undefined ? value : `${before}, ${value}`);
  head.lastName = name;
}

function setHeader(head: Head, name: string, value: string): void {
  if (value.length > MAX_LINE_BYTES) throw new MalformedMessageError(`a value longer than ${MAX_LINE_BYTES}`);
  head.headers.set(name, value);
}

function bodyBytes(headers: RtspHeaders): number {
  const text = headers.get("content-length");
  if (text === undefined) return 0;
  if (!/^\d{1,9}$/.test(text)) throw new MalformedMessageError("Content-Length is no number");
  const bytes = Number(text);
  if (bytes > MAX_BODY_BYTES) throw new MalformedMessageError(`a body of ${bytes} bytes`);
  return bytes;
}

const REQUEST_LINE = /^([A-Z_]{1,32}) (\S+) RTSP\/1\.\d$/;
const STATUS_LINE = /^RTSP\/1\.\d (\d{3})(?: (.*))?$/;

function checkStart(line: string): void {
  if (!REQUEST_LINE.test(line) && !STATUS_LINE.test(line)) {
    throw new MalformedMessageError("neither a request nor a status line of RTSP 1.0");
  }
}

function parseStart(line: string, headers: RtspHeaders, body: Buffer): RtspRequest | RtspResponse {
  const request = REQUEST_LINE.exec(line);
  if (request !== null) return { kind: "request", method: request[1]!, url: request[2]!, headers, body };
  const status = STATUS_LINE.exec(line)!;
  return { kind: "response", status: Number(status[1]), reason: status[2] ?? "", headers, body };
}

export type HeaderFields = Readonly<Record<string, string | undefined>>;

/** Headers that are undefined are left out; Content-Length follows from the body. */
export function formatRequest(method: string, url: string, headers: HeaderFields, body: string): Buffer {
  return formatMessage(`${method} ${url} RTSP/1.0`, headers, body);
}

export function formatResponse(status: number, reason: string, headers: HeaderFields, body: string): Buffer {
  return formatMessage(`RTSP/1.0 ${status} ${reason}`, headers, body);
}

function formatMessage(startLine: string, headers: HeaderFields, body: string): Buffer {
  let text = oneLine(startLine);
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) text += oneLine(`${name}: ${value}`);
  }
  if (body !== "") text += oneLine(`Content-Length: ${Buffer.byteLength(body)}`);
  return Buffer.from(`${text}\r\n${body}`);
}

/** A stranger's line break must not become a header of ours. */
function oneLine(text: string): string {
  return `${text.replace(/[\r\n]+/g, " ")}\r\n`;
}

/** The four bytes ahead of an interleaved frame's payload. */
export function frameHead(channel: number, payloadBytes: number): Buffer {
  const head = Buffer.allocUnsafe(FRAME_HEAD_BYTES);
  head[0] = DOLLAR;
  head[1] = channel;
  head.writeUInt16BE(payloadBytes, 2);
  return head;
}
