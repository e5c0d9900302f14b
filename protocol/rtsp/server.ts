/**
 * An RTSP server for publishers (ANNOUNCE, SETUP, RECORD) and readers (DESCRIBE, SETUP, PLAY), over
 * TCP with interleaved RTP only. It moves packets; what they mean is the handler's business.
 */
import { createServer, type Server, type Socket } from "node:net";
import type { Clock } from "../../runtime/clock.ts";
import { FairShares } from "../../runtime/fair-shares.ts";
import { listenOn } from "../../runtime/listen.ts";
import type { Log } from "../../runtime/log.ts";
import { SparingLog } from "../../runtime/sparing-log.ts";
import type { Authenticator, ProvenPeer, RtspHandler } from "./handler.ts";
import { ServerConnection } from "./server-connection.ts";

export type {
  Authenticator,
  Playback,
  Publication,
  PublisherSession,
  ReaderSession,
  RtspHandler,
  RtspSession,
} from "./handler.ts";
export { RtspError } from "./handler.ts";

/** Whose connection was ended because there were as many as there may be. */
export type WhoLeft = "oldest stranger" | "beyond its share" | "newest";

export interface RtspServerOptions {
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  readonly log: Log;
  readonly clock: Clock;
  readonly handler: RtspHandler;
  /** Absent: everybody may do everything. */
  readonly authenticate?: Authenticator;
  /** A connection without any traffic for so long is closed. 60 s unless told. */
  readonly idleTimeoutMs?: number;
  /** 1,024 unless told. */
  readonly maxConnections?: number;
  /** Of them those whose peers have not yet shown that they may do anything here; 256 unless told. */
  readonly maxStrangers?: number;
  /** Hears of each connection that is ended because there are too many. */
  onFull?(whose: WhoLeft): void;
  /** Bytes that may wait for a slow reader before further packets are dropped. 1 MiB unless told. */
  readonly maxReaderBacklogBytes?: number;
}

export class RtspServer {
  readonly #options: RtspServerOptions;
  readonly #server: Server;
  readonly #connections = new Set<ServerConnection>();
  readonly #warnings: SparingLog;
  #idleCheck: NodeJS.Timeout | undefined;
  /** Told in the log, once until there is room again. */
  #full = false;
  #closing: Promise<void> | undefined;

  constructor(options: RtspServerOptions) {
    this.#options = options;
    const { authenticate } = options;
    this.#warnings = new SparingLog(options.log);
    this.#server = createServer({ noDelay: true }, (socket) => this.#accept(socket, authenticate, undefined));
  }

  /** @throws PortBusyError, PortUnusableError */
  async start(): Promise<void> {
    const { host, port, log, idleTimeoutMs = 60_000 } = this.#options;
    await listenOn(this.#server, host, port);
    this.#server.on("error", (error) => log.error({ error: error.message }, "RTSP server"));
    this.#idleCheck = setInterval(() => this.#closeIdle(), Math.max(idleTimeoutMs / 4, 50));
    this.#idleCheck.unref();
  }

  /** Ends all sessions; their publications and playbacks are closed when this resolves. Safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= new Promise((resolve) => {
      clearInterval(this.#idleCheck);
      if (this.#server.listening) this.#server.close(() => resolve());
      else resolve();
      for (const connection of this.#connections) connection.close("the server closes");
    });
    return this.#closing;
  }

  /** Where it listens, after start. */
  get address(): { readonly host: string; readonly port: number } {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("the RTSP server is not started");
    return { host: address.address, port: address.port };
  }

  get port(): number {
    return this.address.port;
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** Takes a connection that came by another port, such as a TLS one, with a gate of its own. */
  adopt(socket: Socket, gate: { authenticate: Authenticator; proven?: ProvenPeer | undefined }): void {
    this.#accept(socket, gate.authenticate, gate.proven);
  }

  #accept(socket: Socket, authenticate: Authenticator | undefined, proven: ProvenPeer | undefined): void {
    const { handler, log, clock } = this.#options;
    if (this.#closing !== undefined || !this.#makeRoom(socket.remoteAddress)) {
      socket.destroy();
      return;
    }
    const connection = new ServerConnection({
      socket,
      handler,
      authenticate,
      proven,
      log,
      warnings: this.#warnings,
      clock,
      idleTimeoutMs: this.#options.idleTimeoutMs ?? 60_000,
      maxBacklogBytes: this.#options.maxReaderBacklogBytes ?? 1_048_576,
      onClose: () => this.#connections.delete(connection),
    });
    this.#connections.add(connection);
  }

  /**
   * To open many connections and keep them costs nothing, so whoever has shown nothing yet makes room, and so does what
   * is beyond the share of a user; the oldest first.
   * @returns false when all others keep their places
   */
  #makeRoom(from: string | undefined): boolean {
    const { maxConnections = 1_024, maxStrangers = 256, onFull } = this.#options;
    const shares = new FairShares(maxConnections);
    const yielding = [...this.#connections].filter(
      ({ isStranger, user }) => isStranger || (user !== undefined && !shares.take(user)),
    );
    if (this.#connections.size < maxConnections && yielding.length < maxStrangers) {
      this.#full = false;
      return true;
    }
    const [oldest] = yielding;
    const whose =
      oldest === undefined ? "newest" : oldest.isStranger ? "oldest stranger" : "beyond its share";
    if (!this.#full) {
      this.#options.log.warn(
        { from, maxConnections, maxStrangers, ended: whose },
        "too many RTSP connections",
      );
    }
    this.#full = true;
    onFull?.(whose);
    oldest?.close(
      `others came, and it was ${oldest.isStranger ? "a stranger's" : "beyond its user's share"}`,
    );
    return oldest !== undefined;
  }

  #closeIdle(): void {
    for (const connection of this.#connections) connection.closeIfIdle();
  }
}
