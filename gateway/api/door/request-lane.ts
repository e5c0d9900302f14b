/**
 * The short way of HTTP/1.1 calls: heads and bodies straight from the socket's chunks, one request of a
 * connection after the other, answers in one write. Node's HTTP server makes some forty objects for a
 * request, which all live until the disk has synced.
 *
 *   chunk ─head as SDKs write it→ service.begin → body → call.run → answer
 *         └─anything else→ Node's HTTP server, with this connection, from this request on
 */
import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import type { Clock } from "../../../runtime/clock.ts";
import type { HeadwaterError } from "../../../runtime/errors.ts";
import { type Reading, readPlain, readShared } from "../../../runtime/shared-read.ts";
import { giveAnswer, isLent, ONE_PIECE_BYTES } from "../answers/answer-memory.ts";
import { isLarge } from "../answers/unread-answers.ts";
import { type BodyHolder, BusyError, UnprovenBusyError } from "../bodies/body-budget.ts";
import { GatheredBody } from "../bodies/gathered-body.ts";
import { type Asker, BodyCutOffError } from "../exchange.ts";
import type { LaneAnswer, LaneCall, LaneService } from "./lane-service.ts";
import { readRequestHead } from "./request-head.ts";

export interface LaneDeadlines {
  /** For the whole request, and for the next one to begin. */
  readonly requestMs: number;
  readonly keepAliveMs: number;
  /** Nothing moves, as when an answer is not read. */
  readonly stalledMs: number;
}

const SWEEP_MS = 5_000;

export class RequestLane {
  readonly service: LaneService;
  readonly deadlines: LaneDeadlines;
  readonly #clock: Clock;
  readonly #lines = new Set<Line>();
  #sweeper: NodeJS.Timeout | undefined;
  #closing = false;
  #headEnd = "";
  #headEndSecond = -1;

  constructor(service: LaneService, deadlines: LaneDeadlines, clock: Clock) {
    this.service = service;
    this.deadlines = deadlines;
    this.#clock = clock;
  }

  /**
   * @param first what the socket has sent so far
   * @param giveUp hears, once, from which bytes on the connection is to go the plain way
   */
  adopt(socket: Socket, first: Buffer, giveUp: (rest: Buffer) => void): void {
    const line = new Line(this, socket, giveUp);
    this.#lines.add(line);
    this.#sweeper ??= setInterval(() => this.sweep(), SWEEP_MS).unref();
    line.start(first);
  }

  forget(line: Line): void {
    this.#lines.delete(line);
  }

  get closing(): boolean {
    return this.#closing;
  }

  nowMs(): number {
    return this.#clock.monotonicMs();
  }

  /** Lets go of whoever is too slow, or has been silent for too long. */
  sweep(): void {
    const nowMs = this.nowMs();
    for (const line of this.#lines) line.checkDeadline(nowMs);
  }

  /** What is answered from now on is the last on its connection, and ends it. Safe to call twice. */
  close(): void {
    this.#closing = true;
    clearInterval(this.#sweeper);
  }

  /** Closes idle connections. */
  closeIdle(): void {
    for (const line of this.#lines) line.closeWhenIdle();
  }

  /** What all heads of a second have in common: RFC 9110 §6.6.1, and how long the connection is kept. */
  headEnd(): string {
    const second = Math.floor(this.#clock.nowUs() / 1_000_000);
    if (second !== this.#headEndSecond || this.#closing) {
      this.#headEndSecond = second;
      const kept = this.#closing
        ? "close"
        : `keep-alive\r\nKeep-Alive: timeout=${this.deadlines.keepAliveMs / 1000}`;
      this.#headEnd = `\r\nDate: ${new Date(second * 1000).toUTCString()}\r\nConnection: ${kept}\r\n\r\n`;
    }
    return this.#headEnd;
  }
}

/** One connection. */
class Line implements Asker {
  readonly #lane: RequestLane;
  readonly #socket: Socket;
  readonly #giveUp: (rest: Buffer) => void;
  /** Made once: each request would need one otherwise. */
  readonly #answer = (answer: LaneAnswer): boolean => this.#send(answer);
  #state: "idle" | "body" | "answering" | "ended" = "idle";
  /** When the request in hand began, or the last one was answered. */
  #sinceMs: number;
  #call: LaneCall | undefined;
  readonly #body = new GatheredBody();
  /** Whose call of this connection was signed rightly, the last time; and who that was when the body in hand began. */
  #known: BodyHolder;
  #holder: BodyHolder;
  #reading: Reading | undefined;
  #missingBytes = 0;
  #refusal: HeadwaterError | undefined;
  /** What came behind the request in hand. Nothing more is read meanwhile. */
  #behind: Buffer | undefined;
  /** The client has sent all that it will. */
  #ended = false;

  constructor(lane: RequestLane, socket: Socket, giveUp: (rest: Buffer) => void) {
    this.#lane = lane;
    this.#socket = socket;
    this.#giveUp = giveUp;
    this.#sinceMs = lane.nowMs();
    this.#known = lane.service.budget.holderOf(socket);
    this.#holder = this.#known;
  }

  start(first: Buffer): void {
    const socket = this.#socket;
    // What TLS has decrypted is in memory of its own already.
    this.#reading = ("encrypted" in socket ? readPlain : readShared)(socket, this.#onData);
    socket.on("end", this.#onEnd);
    socket.on("error", ignore);
    socket.on("close", this.#onClose);
    socket.on("timeout", this.#onTimeout);
    socket.setTimeout(this.#lane.deadlines.stalledMs);
    this.#begin(first);
  }

  get isGone(): boolean {
    return this.#socket.destroyed;
  }

  get hasSaidAll(): boolean {
    return this.#ended;
  }

  checkDeadline(nowMs: number): void {
    // An answer that is under way may take long, but not rest: `stalledMs` is for that.
    if (this.#socket.writableLength > 0) this.#sinceMs = nowMs;
    const { requestMs, keepAliveMs } = this.#lane.deadlines;
    const waitedMs = nowMs - this.#sinceMs;
    const late =
      (this.#state === "idle" && waitedMs > keepAliveMs) || (this.#state === "body" && waitedMs > requestMs);
    if (late) this.#socket.destroy();
  }

  closeWhenIdle(): void {
    if (this.#state !== "idle") return;
    if (this.#socket.writableLength > 0) this.#end();
    else this.#socket.destroy();
  }

  /**
   * RFC 9112 §9.6: what comes behind the last answer is not performed, as nobody would hear of it. It is read, so that
   * the client's end is heard.
   */
  #end(): void {
    this.#state = "ended";
    this.#behind = undefined;
    this.#socket.end();
    this.#socket.resume();
  }

  /** The chunk is another's after the call. */
  readonly #onData = (chunk: Buffer): void => {
    if (this.#state === "idle") this.#begin(chunk);
    else if (this.#state === "body") this.#take(chunk);
    else if (this.#state === "answering") this.#keepBehind(chunk);
  };

  #keepBehind(chunk: Buffer): void {
    this.#behind = this.#behind === undefined ? Buffer.from(chunk) : Buffer.concat([this.#behind, chunk]);
    this.#socket.pause();
  }

  readonly #onEnd = (): void => {
    this.#ended = true;
    if (this.#state === "idle") this.#socket.end();
    else if (this.#state === "body") this.#socket.destroy();
  };

  readonly #onTimeout = (): void => void this.#socket.destroy();

  readonly #onClose = (): void => {
    this.#lane.forget(this);
    if (this.#state !== "body") return;
    const call = this.#call!;
    this.#release();
    call.refuse(new BodyCutOffError(), this.#answer);
  };

  #begin(chunk: Buffer): void {
    const { service } = this.#lane;
    const head = readRequestHead(chunk);
    const fits = head !== undefined && head.contentLength <= service.maxBodyBytes;
    const call = fits ? service.begin(head) : undefined;
    if (call === undefined || head === undefined) {
      this.#leave(chunk);
      return;
    }
    this.#state = "body";
    this.#sinceMs = this.#lane.nowMs();
    this.#call = call;
    this.#lookWhose(call);
    this.#holder = this.#known;
    this.#missingBytes = head.contentLength;
    this.#take(chunk.subarray(head.bytes));
  }

  #lookWhose({ isProven, keyId }: LaneCall): void {
    if (isProven && keyId !== this.#known.keyId)
      this.#known = this.#lane.service.budget.prove(this.#socket, keyId);
  }

  get #isStrangers(): boolean {
    return this.#holder === this.#lane.service.budget.strangers;
  }

  /** Bytes of the body, and what comes behind it. */
  #take(chunk: Buffer): void {
    let piece = chunk;
    if (chunk.length > this.#missingBytes) {
      piece = chunk.subarray(0, this.#missingBytes);
      this.#keepBehind(chunk.subarray(this.#missingBytes));
    }
    this.#missingBytes -= piece.length;
    if (this.#refusal !== undefined || !this.#lane.service.budget.take(piece.length, this.#holder)) {
      this.#discard(piece);
      if (this.#missingBytes === 0) this.#refuse(this.#refusal!);
    } else if (this.#missingBytes > 0) this.#body.add(piece);
    else {
      this.#state = "answering";
      // Most bodies come in one piece, and are read where it stands.
      if (this.#body.bytes === 0 && !this.#call!.keepsBody) {
        this.#body.count(piece.length);
        this.#run(piece);
      } else {
        this.#body.add(piece);
        this.#body.use(this.#call!.keepsBody, this.#run);
      }
    }
  }

  /** What there is no room for is read to its end and thrown away, so that the client gets to see the refusal. */
  #discard(piece: Buffer): void {
    const call = this.#call!;
    this.#refusal ??= this.#isStrangers ? new UnprovenBusyError() : new BusyError();
    if (this.#isStrangers) {
      for (const held of this.#body.pieces) call.discard(held);
      call.discard(piece);
    }
    this.#lane.service.budget.give(this.#body.bytes, this.#holder);
    this.#body.clear();
  }

  readonly #run = (body: Buffer): void => {
    this.#call!.run(body, this.#answer, this);
  };

  /** Not within the call: the next one may be there and be refused as well, and so on, and each would stand on the one before. */
  #refuse(why: HeadwaterError): void {
    this.#state = "answering";
    const call = this.#call!;
    queueMicrotask(() => call.refuse(why, this.#answer));
  }

  #send({ status, requestId, contentType, body, room }: LaneAnswer): boolean {
    const socket = this.#socket;
    const length = typeof body === "string" ? Buffer.byteLength(body) : body.length;
    const { keyId } = this.#call!;
    const isCounted = isLarge(length) && !socket.destroyed;
    if (isCounted && !this.#lane.service.unread.take(length, keyId, room)) {
      giveAnswer(body);
      return false;
    }
    this.#lookWhose(this.#call!);
    this.#release();
    if (socket.destroyed) {
      giveAnswer(body);
      return true;
    }
    const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nx-amzn-requestid: ${requestId}\r\ncontent-type: ${contentType}\r\ncontent-length: ${length}${this.#lane.headEnd()}`;
    this.#write(head, body, length, isCounted ? keyId : undefined);
    this.#state = "idle";
    this.#sinceMs = this.#lane.nowMs();
    // A stream that has read ahead, as TLS does, ends before all that came is answered.
    if (this.#lane.closing || (this.#ended && this.#behind === undefined)) this.#end();
    else if (socket.writableNeedDrain) socket.pause().once("drain", this.#goOn);
    else if (this.#behind !== undefined) this.#goOn();
    return true;
  }

  /** Of the request in hand. */
  #release(): void {
    this.#lane.service.budget.give(this.#body.bytes, this.#holder);
    this.#body.clear();
    this.#call = undefined;
    this.#refusal = undefined;
  }

  /** @param keyId by which it is counted until it is taken, if it is */
  #write(head: string, body: string | Buffer, length: number, keyId: string | undefined): void {
    const socket = this.#socket;
    const { unread } = this.#lane.service;
    // It is called in every case: when the kernel has taken the bytes, or the connection is gone.
    const onTaken =
      keyId === undefined && !isLent(body)
        ? undefined
        : (error?: Error | null): void => {
            if (keyId !== undefined) unread.give(length, keyId);
            // Of what was cut off, something may still be under way until the connection is closed.
            if (error == null || socket.closed) giveAnswer(body);
            else socket.once("close", () => giveAnswer(body));
          };
    if (typeof body === "string") {
      // Its characters are its bytes unless it is longer in UTF-8.
      socket.write(head + body, body.length === length ? "latin1" : "utf8", onTaken);
    } else if (length <= ONE_PIECE_BYTES) {
      const piece = Buffer.allocUnsafe(head.length + length);
      piece.write(head, 0, "latin1");
      piece.set(body, head.length);
      socket.write(piece);
    } else {
      socket.cork();
      socket.write(head, "latin1");
      socket.write(body, onTaken);
      socket.uncork();
    }
  }

  readonly #goOn = (): void => {
    const behind = this.#behind;
    this.#behind = undefined;
    this.#socket.resume();
    if (behind !== undefined && this.#state === "idle") this.#begin(behind);
  };

  /** To Node's HTTP server, which stays with the connection. */
  #leave(rest: Buffer): void {
    const socket = this.#socket;
    this.#lane.forget(this);
    this.#reading?.release();
    socket.removeListener("end", this.#onEnd);
    socket.removeListener("error", ignore);
    socket.removeListener("close", this.#onClose);
    socket.removeListener("timeout", this.#onTimeout);
    socket.setTimeout(0);
    this.#giveUp(Buffer.from(rest));
  }
}

const ignore = (): void => {};
