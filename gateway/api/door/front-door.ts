/**
 * One port for HTTP/1.1 and for HTTP/2 with prior knowledge (RFC 9113 §3.3). The first bytes of a
 * connection tell which it is: HTTP/2 clients begin with a preface that no HTTP/1.1 request can be.
 *
 *   socket ─"PRI * HTTP/2.0"→ http2 ─the unusual→         ┐
 *          └──────────→ lane ─the unusual→ http, upgrade ┴→ handler
 *                       lane, http2 ─AWS's calls as SDKs write them→ service
 */
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import type { Http2Server, IncomingHttpHeaders, ServerHttp2Session, ServerHttp2Stream } from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Clock } from "../../../runtime/clock.ts";
import { firstToGo } from "../../../runtime/fair-shares.ts";
import { listenOn } from "../../../runtime/listen.ts";
import type { BodyBudget } from "../bodies/body-budget.ts";
import { discardUnread } from "../bodies/unread-body.ts";
import type { IncomingRequest, OutgoingReply } from "../exchange.ts";
import { answerBadRequest } from "./bad-request.ts";
import { isWebSocket, withoutUpgrade } from "./declined-upgrade.ts";
import { handToNode } from "./hand-to-node.ts";
import { http2Server, MAX_HEADER_BYTES, WINDOW_BYTES } from "./http2-server.ts";
import { destroyWhenLeft, endWhenIdle } from "./idle-session.ts";
import type { LaneService } from "./lane-service.ts";
import { OpenReplies } from "./open-replies.ts";
import { RequestLane } from "./request-lane.ts";
import { StrangerRequests } from "./stranger-requests.ts";
import { StreamLane } from "./stream-lane.ts";

/** The first bytes of RFC 9113 §3.4's preface; enough to tell, as no HTTP method is named PRI. */
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n");
const SNIFF_DEADLINE_MS = 10_000;
const HEADERS_DEADLINE_MS = 20_000;
const REQUEST_DEADLINE_MS = 60_000;
/** Longer than the 60 s after which common proxies and SDKs drop an idle connection themselves. */
const KEEP_ALIVE_MS = 75_000;
/** A connection on which nothing moves for so long, such as one that does not read its answer, is let go. */
const STALLED_MS = 120_000;
export const MAX_CONNECTIONS = 2_048;
/** On all connections that nobody has proven to be theirs; a client that does not pipeline has one over HTTP/1.1. */
const MAX_STRANGERS_REQUESTS = MAX_CONNECTIONS;
/** How long a client may take to end its side of an HTTP/2 connection once we have ended ours. */
const LINGER_MS = 10_000;
const DRAIN_MS = 2_000;
/** Turns of the event loop before it closes: so many behind the last connection, and no more in all. */
const QUIET_TURNS = 4;
const MAX_LAST_TURNS = 256;
const SESSION_DEADLINES = { keepAliveMs: KEEP_ALIVE_MS, requestMs: REQUEST_DEADLINE_MS, pingMs: 10_000 };

const LANE_DEADLINES = {
  requestMs: REQUEST_DEADLINE_MS,
  keepAliveMs: KEEP_ALIVE_MS,
  stalledMs: STALLED_MS,
};

export type RequestHandler = (request: IncomingRequest, reply: OutgoingReply) => void;
/** Whose connection was ended because there were as many, or as many requests on them, as there may be. */
export type WhoLeft = "oldest stranger" | "busiest stranger" | "beyond its share" | "newest";
export type UpgradeHandler = (request: IncomingMessage, socket: Duplex, head: Buffer) => void;

export class FrontDoor {
  readonly #host: string;
  readonly #port: number;
  readonly #http: Server;
  /** Of `#http`. */
  readonly #replies: OpenReplies;
  readonly #http2: Http2Server;
  readonly #sockets = new Set<Socket>();
  /** Connections that have not yet told what they are. */
  readonly #undecided = new Set<Socket>();
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #sessionOf = new WeakMap<Socket, ServerHttp2Session>();
  readonly #proven: BodyBudget | undefined;
  /** By sockets and sessions: whose certificates were good. */
  readonly #admitted = new WeakMap<object, string>();
  readonly #onFull: (whoLeft: WhoLeft) => void;
  readonly #maxConnections: number;
  readonly #strangers: StrangerRequests;
  readonly #lane: RequestLane | undefined;
  readonly #streamLane: StreamLane | undefined;
  #closing: Promise<void> | undefined;
  /** Connections that ever were. */
  #came = 0;
  /** Nothing begins any more. */
  #isLast = false;

  /**
   * @param short whose calls go by the lanes; none do without it. Its budget knows whose connections are known
   * @param onFull hears of each connection that is ended because there are too many
   */
  constructor(
    host: string,
    port: number,
    onRequest: RequestHandler,
    onUpgrade: UpgradeHandler,
    short?: { readonly service: LaneService; readonly clock: Clock },
    onFull: (whoLeft: WhoLeft) => void = () => {},
    maxConnections = MAX_CONNECTIONS,
  ) {
    this.#maxConnections = maxConnections;
    this.#proven = short?.service.budget;
    this.#onFull = onFull;
    this.#strangers = new StrangerRequests(
      MAX_STRANGERS_REQUESTS,
      (connection) => this.#whose(connection) !== undefined,
      () => onFull("busiest stranger"),
    );
    this.#host = host;
    this.#port = port;
    this.#lane = short && new RequestLane(short.service, LANE_DEADLINES, short.clock);
    this.#streamLane = short && new StreamLane(short.service, REQUEST_DEADLINE_MS, short.clock);
    this.#http = createHttpServer(
      {
        maxHeaderSize: MAX_HEADER_BYTES,
        headersTimeout: HEADERS_DEADLINE_MS,
        requestTimeout: REQUEST_DEADLINE_MS,
        keepAliveTimeout: KEEP_ALIVE_MS,
        connectionsCheckingInterval: 5_000,
        noDelay: true,
      },
      (request, reply) => {
        if (this.#isTaken(request.socket, reply)) onRequest(request, reply);
      },
    );
    this.#replies = new OpenReplies(this.#http);
    this.#http.timeout = STALLED_MS;
    // As in the lane: who has said all may still hear. Node's types do not know it.
    Object.assign(this.#http, { httpAllowHalfOpen: true });
    this.#http.on("upgrade", (request, socket, head) => {
      if (isWebSocket(request)) return onUpgrade(request, socket, head);
      socket.unshift(withoutUpgrade(request, head));
      this.#http.emit("connection", socket);
    });
    this.#http.on("clientError", answerBadRequest);
    this.#http2 = http2Server(onRequest);
    this.#http2.on("session", (session) => this.#adoptSession(session));
    // A session that breaks the protocol has been closed by the time that we hear of it.
    this.#http2.on("sessionError", () => {});
    if (this.#streamLane !== undefined) this.#takeBeforeHttp2(this.#streamLane);
    this.#sniffBeforeHttp();
  }

  /** @throws PortBusyError, PortUnusableError */
  async start(): Promise<void> {
    await listenOn(this.#http, this.#host, this.#port);
  }

  get address(): { host: string; port: number } {
    const bound = this.#http.address() as AddressInfo | null;
    return { host: this.#host, port: bound?.port ?? this.#port };
  }

  /**
   * Takes a connection that came by another port, such as a TLS one.
   * @param device whose it is, where that is known; that is no reason to take more of its bodies than of others'
   */
  adopt(socket: Socket, device?: string): void {
    if (this.#isLast) return void socket.destroy();
    if (device !== undefined) this.#admitted.set(socket, `device ${device}`);
    // As the server's own are: TLS also carries answers to who has said all (RFC 8446 §6.1).
    socket.allowHalfOpen = true;
    this.#http.emit("connection", socket);
  }

  get connections(): number {
    return this.#sockets.size;
  }

  /** Lets go of what is in the lanes and past its deadline; it happens by itself every few seconds. */
  sweep(): void {
    this.#lane?.sweep();
    this.#streamLane?.sweep();
  }

  /** Answers what had come, for at most two seconds. Safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= this.#drain();
    return this.#closing;
  }

  async #drain(): Promise<void> {
    if (!this.#http.listening) return;
    const force = setTimeout(() => {
      this.#isLast = true;
      for (const socket of this.#sockets) socket.destroy();
    }, DRAIN_MS);
    const taken = this.#takeWaiting();
    const closed = this.#replies.close(taken);
    this.#lane?.close();
    await taken;
    this.#isLast = true;
    for (const socket of this.#undecided) socket.destroy();
    this.#lane?.closeIdle();
    this.#streamLane?.close();
    for (const session of this.#sessions) session.close();
    await closed;
    // Those of other ports are not the server's to wait for.
    await Promise.all([...this.#sockets].map(closeOf));
    clearTimeout(force);
  }

  /**
   * What the kernel has had in full while we were busy, such as with pages, would otherwise be answered by a reset. libuv
   * accepts one connection in a turn; its call is read in the next ones.
   */
  async #takeWaiting(): Promise<void> {
    let quiet = 0;
    for (let turns = 0; quiet < QUIET_TURNS && turns < MAX_LAST_TURNS && !this.#isLast; turns++) {
      const before = this.#came;
      await new Promise((resolve) => setImmediate(resolve));
      quiet = this.#came === before ? quiet + 1 : 0;
    }
  }

  /** The HTTP server keeps its listening and its timeouts; only what it does first with a socket is replaced. */
  #sniffBeforeHttp(): void {
    const toHttp = this.#http.listeners("connection") as ((socket: Socket) => void)[];
    this.#http.removeAllListeners("connection");
    this.#http.on("connection", (socket: Socket) => {
      // One whose offer was declined comes again.
      if (!this.#sockets.has(socket) && !this.#makeRoom()) {
        socket.destroy();
        return;
      }
      this.#sockets.add(socket);
      this.#came++;
      socket.once("close", () => {
        this.#sockets.delete(socket);
        this.#strangers.closed(socket);
        this.#replies.closed(socket);
      });
      const toNode = (rest: Buffer): void => handToNode(socket, rest, this.#http, toHttp);
      this.#sniff(socket, (isHttp2, seen) => {
        if (isHttp2) {
          socket.pause();
          socket.unshift(seen);
          // Unlike an HTTP/1.1 client, one that closes its side of an HTTP/2 connection wants no more.
          socket.allowHalfOpen = false;
          destroyWhenLeft(socket, LINGER_MS);
          const remember = (session: ServerHttp2Session): void => {
            this.#sessionOf.set(socket, session);
            const device = this.#admitted.get(socket);
            if (device !== undefined) this.#admitted.set(session, device);
          };
          this.#http2.once("session", remember);
          this.#http2.emit("connection", socket);
          // It was made within the call, or never will be.
          this.#http2.removeListener("session", remember);
        } else if (this.#lane !== undefined) this.#lane.adopt(socket, seen, toNode);
        else toNode(seen);
      });
    });
  }

  /**
   * Of all connections there are, those that nobody has proven to be theirs make room, and those beyond the share of
   * whose they are, the oldest first: to open many and keep them costs nothing, and would keep everybody out otherwise.
   * @returns false when all others keep their places
   */
  #makeRoom(): boolean {
    if (this.#sockets.size < this.#maxConnections) return true;
    const whoseOf = (socket: Socket) => this.#whose(socket) ?? this.#whose(this.#sessionOf.get(socket));
    const leaving = firstToGo(this.#sockets, this.#maxConnections, whoseOf);
    const whose = leaving !== undefined && whoseOf(leaving);
    this.#onFull(whose === false ? "newest" : whose === undefined ? "oldest stranger" : "beyond its share");
    if (leaving === undefined) return false;
    this.#sockets.delete(leaving);
    leaving.destroy();
    return true;
  }

  #whose(connection: object | undefined): string | undefined {
    if (connection === undefined) return undefined;
    return this.#proven?.holderOf(connection).keyId ?? this.#admitted.get(connection);
  }

  /** Of HTTP/1.1, by Node's server. What was pipelined behind the request that ended its connection still comes. */
  #isTaken(socket: Socket, reply: ServerResponse): boolean {
    if (socket.destroyed || !this.#replies.began(socket, reply)) return false;
    if (this.#strangers.began(socket, () => socket.destroy()))
      reply.once("close", () => this.#strangers.done(socket));
    return !socket.destroyed;
  }

  /** What makes a request and a reply of a stream is still there, for what is unusual. */
  #takeBeforeHttp2(lane: StreamLane): void {
    type OnStream = (
      stream: ServerHttp2Stream,
      headers: IncomingHttpHeaders,
      flags: number,
      raw: string[],
    ) => void;
    const toNode = this.#http2.listeners("stream") as OnStream[];
    this.#http2.removeAllListeners("stream");
    const onStream: OnStream = (stream, headers, flags, raw) => {
      if (lane.take(stream, headers, raw)) return;
      for (const take of toNode) take.call(this.#http2, stream, headers, flags, raw);
    };
    this.#http2.on("stream", onStream as (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void);
  }

  #sniff(socket: Socket, decide: (isHttp2: boolean, seen: Buffer) => void): void {
    this.#undecided.add(socket);
    const deadline = setTimeout(() => socket.destroy(), SNIFF_DEADLINE_MS);
    const ignore = (): void => {};
    // Half of a preface and then the end: nobody waits for an answer.
    const leave = (): void => void socket.destroy();
    let seen: Buffer = Buffer.alloc(0);
    const onData = (chunk: Buffer): void => {
      seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk]);
      const length = Math.min(seen.length, PREFACE.length);
      const alike = seen.subarray(0, length).equals(PREFACE.subarray(0, length));
      if (alike && length < PREFACE.length) return;
      clearTimeout(deadline);
      this.#undecided.delete(socket);
      socket.removeListener("data", onData);
      socket.removeListener("error", ignore);
      socket.removeListener("end", leave);
      const first = seen;
      // The listener for "close" would hold it for as long as the connection lives.
      seen = Buffer.alloc(0);
      decide(alike, first);
    };
    socket.on("data", onData);
    socket.on("error", ignore);
    socket.on("end", leave);
    socket.once("close", () => {
      clearTimeout(deadline);
      this.#undecided.delete(socket);
    });
  }

  #adoptSession(session: ServerHttp2Session): void {
    this.#sessions.add(session);
    session.once("close", () => {
      this.#sessions.delete(session);
      this.#strangers.closed(session);
    });
    session.on("error", () => {});
    session.setLocalWindowSize(WINDOW_BYTES);
    const isInLane = (stream: ServerHttp2Stream): boolean => this.#streamLane?.took(stream) ?? false;
    endWhenIdle(session, SESSION_DEADLINES, isInLane);
    const end = (): void => session.destroy();
    session.on("stream", (stream) => {
      if (!stream.destroyed && this.#strangers.began(session, end))
        stream.once("close", () => this.#strangers.done(session));
      if (!stream.endAfterHeaders && !isInLane(stream)) discardUnread(stream);
    });
    if (this.#isLast) session.close();
  }
}

/** Resolves when it is closed, whatever goes wrong with it until then. */
function closeOf(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket.once("close", () => resolve());
  });
}
