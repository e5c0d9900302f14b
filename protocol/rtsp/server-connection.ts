/**
 * One connection of the RTSP server: requests and packets are handled strictly in the order in which they
 * came, what goes wrong with one peer ends that peer only, and a silent one is not kept.
 */
import type { Socket } from "node:net";
import type { Clock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Log, LogFields } from "../../runtime/log.ts";
import type { SparingLog } from "../../runtime/sparing-log.ts";
import { DigestGate } from "./digest-gate.ts";
import { type Authenticator, type ProvenPeer, RtspError, type RtspHandler } from "./handler.ts";
import { InterleavedWriter } from "./interleaved-writer.ts";
import {
  formatResponse,
  type HeaderFields,
  type RtspMessage,
  RtspParser,
  type RtspRequest,
} from "./messages.ts";
import { MalformedSdpError } from "./sdp.ts";
import { METHODS, ServerSession } from "./server-session.ts";

export interface ServerConnectionOptions {
  readonly socket: Socket;
  readonly handler: RtspHandler;
  readonly authenticate: Authenticator | undefined;
  readonly proven: ProvenPeer | undefined;
  readonly log: Log;
  /** Of all connections: what strangers do wrong. */
  readonly warnings: SparingLog;
  readonly clock: Clock;
  readonly idleTimeoutMs: number;
  readonly maxBacklogBytes: number;
  onClose(): void;
}

export class ServerConnection {
  readonly #options: ServerConnectionOptions;
  readonly #socket: Socket;
  readonly #remoteAddress: string;
  readonly #parser = new RtspParser((message) => this.#take(message));
  readonly #writer: InterleavedWriter;
  readonly #gate: DigestGate;
  readonly #session: ServerSession;
  readonly #queue: RtspMessage[] = [];
  #working = false;
  #held = false;
  #aliveMs: number;
  #takenBytes = 0;
  #closed = false;

  constructor(options: ServerConnectionOptions) {
    const { socket } = options;
    this.#options = options;
    this.#socket = socket;
    this.#remoteAddress = `${socket.remoteAddress}:${socket.remotePort}`;
    this.#writer = new InterleavedWriter(socket, options.maxBacklogBytes);
    this.#gate = new DigestGate(options.authenticate, options.proven);
    this.#session = new ServerSession(options.handler, {
      remoteAddress: this.#remoteAddress,
      writer: this.#writer,
      gate: this.#gate,
      hold: (held) => this.#hold(held),
      close: (reason) => this.close(reason),
      finish: (reason) => void socket.end(() => this.close(reason)),
    });
    this.#aliveMs = options.clock.monotonicMs();
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("error", (error) => this.close(error.message));
    socket.on("close", () => this.close("the peer closed the connection"));
  }

  /** Nobody has proved who it is or, where nobody is asked, it has no session yet. */
  get isStranger(): boolean {
    return this.#gate.isOpen ? !this.#session.isSetUp : !this.#gate.passed;
  }

  /** Who has proved to be behind it; undefined where nobody has, or is asked. */
  get user(): string | undefined {
    return this.#gate.user;
  }

  /** Safe to call twice. */
  close(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.destroy();
    this.#queue.length = 0;
    this.#guard(() => this.#session.end(reason));
    this.#options.onClose();
  }

  /**
   * A reader that takes what it is sent is alive, though it says nothing, and so is a publisher whom we do not
   * read. Before its first SETUP no talk keeps a connection.
   */
  closeIfIdle(): void {
    const nowMs = this.#options.clock.monotonicMs();
    const takenBytes = this.#socket.bytesWritten - this.#socket.writableLength;
    if ((takenBytes > this.#takenBytes && this.#session.isPlaying) || this.#held) this.#aliveMs = nowMs;
    this.#takenBytes = takenBytes;
    if (nowMs - this.#aliveMs >= this.#options.idleTimeoutMs) this.close("idle for too long");
  }

  #hold(held: boolean): void {
    this.#held = held;
    this.#aliveMs = this.#options.clock.monotonicMs();
    this.#steer();
  }

  /** While a request is in work nothing more is read, so that the queue holds at most one chunk's messages. */
  #steer(): void {
    if (this.#working || this.#held) this.#socket.pause();
    else this.#socket.resume();
  }

  #receive(chunk: Buffer): void {
    if (this.#session.isSetUp) this.#aliveMs = this.#options.clock.monotonicMs();
    this.#session.came(chunk.length);
    try {
      this.#parser.push(chunk);
    } catch (error) {
      this.#warn({ peer: this.#remoteAddress, error: describeError(error) }, "bad RTSP peer");
      this.close("it does not speak RTSP");
    }
    this.#steer();
  }

  #take(message: RtspMessage): void {
    if (this.#closed) return;
    // The common case: packets that nothing waits for are passed on without a promise.
    if (message.kind === "frame" && !this.#working) this.#guard(() => this.#session.frame(message));
    else {
      this.#queue.push(message);
      if (!this.#working) void this.#work();
    }
  }

  async #work(): Promise<void> {
    this.#working = true;
    for (let message = this.#queue.shift(); message !== undefined; message = this.#queue.shift()) {
      const current = message;
      if (current.kind === "frame") this.#guard(() => this.#session.frame(current));
      // We send no requests, so that a response answers nothing.
      else if (current.kind === "request") await this.#onRequest(current);
    }
    this.#working = false;
    this.#steer();
  }

  /** What a handler throws for one peer ends that peer only. */
  #guard(call: () => void): void {
    try {
      call();
    } catch (error) {
      this.#warn({ path: this.#session.path, error: describeError(error) }, "RTSP session failed");
      this.close("it cannot be handled");
    }
  }

  #warn(fields: LogFields, message: string): void {
    this.#options.warnings.warn(this.#options.clock.nowUs(), fields, message);
  }

  async #onRequest(request: RtspRequest): Promise<void> {
    try {
      const answer = await this.#session.answer(request);
      this.#respond(request, 200, "OK", answer.headers ?? {}, answer.body ?? "");
      if (!this.#closed) this.#guard(() => answer.after?.());
    } catch (error) {
      this.#respondError(request, error);
    }
    if (this.#writer.backlogBytes > Math.max(this.#options.maxBacklogBytes, 65_536) * 2) {
      this.close("it does not read its answers");
    }
  }

  #respondError(request: RtspRequest, error: unknown): void {
    if (error instanceof MalformedSdpError) this.#respond(request, 400, "Bad Session Description", {}, "");
    else if (error instanceof RtspError) {
      const challenge = error.status === 401 ? this.#gate.challenge : undefined;
      const allow = error.status === 405 || error.status === 455 ? METHODS : undefined;
      this.#respond(request, error.status, error.reason, { "WWW-Authenticate": challenge, Allow: allow }, "");
      if (this.#gate.exhausted) {
        this.#warn({ peer: this.#remoteAddress }, "too many wrong passwords");
        this.close("too many wrong passwords");
      }
    } else {
      const path = this.#session.path;
      this.#options.log.error({ path, error: describeError(error) }, "RTSP request failed");
      this.#respond(request, 500, "Internal Server Error", {}, "");
    }
  }

  #respond(request: RtspRequest, status: number, reason: string, headers: HeaderFields, body: string): void {
    if (this.#closed) return;
    const timeoutSeconds = Math.round(this.#options.idleTimeoutMs / 1_000);
    const session = this.#session.isSetUp ? `${this.#session.id};timeout=${timeoutSeconds}` : undefined;
    const fields = { CSeq: request.headers.get("cseq"), Session: session, ...headers };
    this.#socket.write(formatResponse(status, reason, fields, body));
  }
}
