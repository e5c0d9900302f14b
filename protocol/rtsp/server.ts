/**
 * An RTSP server for publishers (ANNOUNCE, SETUP, RECORD) and readers (DESCRIBE, SETUP, PLAY), over
 * TCP with interleaved RTP only. It moves packets; what they mean is the handler's business.
 */
import { createServer, type Server, type Socket } from "node:net";
import type { Clock } from "../../runtime/clock.ts";
import { listenOn } from "../../runtime/listen.ts";
import type { Log } from "../../runtime/log.ts";
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

export interface RtspServerOptions {
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  readonly log: Log;
  readonly clock: Clock;
  readonly handler: RtspHandler;
  /** Absent: everybody may do everything. */
  readonly authenticate?: Authenticator;
  readonly realm?: string;
  /** A connection without any traffic for so long is closed. 60 s unless told. */
  readonly idleTimeoutMs?: number;
  /** 256 unless told. */
  readonly maxConnections?: number;
  /** Bytes that may wait for a slow reader before further packets are dropped. 1 MiB unless told. */
  readonly maxReaderBacklogBytes?: number;
}

export class RtspServer {
  readonly #options: RtspServerOptions;
  readonly #server: Server;
  readonly #connections = new Set<ServerConnection>();
  #idleCheck: NodeJS.Timeout | undefined;
  /** Told in the log, once until there is room again. */
  #full = false;
  #closing: Promise<void> | undefined;

  constructor(options: RtspServerOptions) {
    this.#options = options;
    const { authenticate } = options;
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
    const { handler, log, clock, maxConnections = 256 } = this.#options;
    if (this.#closing !== undefined || this.#connections.size >= maxConnections) {
      if (!this.#full && this.#closing === undefined) {
        log.warn(
          { from: socket.remoteAddress, maxConnections },
          "too many RTSP connections; more are refused",
        );
      }
      this.#full = true;
      socket.destroy();
      return;
    }
    this.#full = false;
    const connection = new ServerConnection({
      socket,
      handler,
      authenticate,
      proven,
      realm: this.#options.realm ?? "Headwater",
      log,
      clock,
      idleTimeoutMs: this.#options.idleTimeoutMs ?? 60_000,
      maxBacklogBytes: this.#options.maxReaderBacklogBytes ?? 1_048_576,
      onClose: () => this.#connections.delete(connection),
    });
    this.#connections.add(connection);
  }

  #closeIdle(): void {
    for (const connection of this.#connections) connection.closeIfIdle();
  }
}
