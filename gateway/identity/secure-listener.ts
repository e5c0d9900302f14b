/**
 * One TLS port. It finds out which device is behind a connection, if any, and hands the socket to a door.
 *
 *   connection ─no certificate→ (socket, undefined): the door asks for a password or a key
 *              ├our CA's, good→ (socket, device)
 *              └any other────→ ended, and counted with the reason
 *
 * A connection ends with the certificate that it came with: a device that has renewed it in time comes
 * again with the new one.
 */
import type { X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import { createServer, type SecureContextOptions, type Server, type TLSSocket } from "node:tls";
import { listenOn } from "../../runtime/listen.ts";
import type { Log, LogFields } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import { SparingLog } from "../../runtime/sparing-log.ts";

const HANDSHAKE_MS = 10_000;
/** Handshakes under way; who takes long with theirs makes room for others. How many connections there are is the doors' to say. */
const MAX_HANDSHAKES = 2_000;
/** How often the clock is asked whether a certificate has ended: it may be set meanwhile. */
const LOOK_MS = 3_600_000;

/** Who takes the connections of a port. */
export interface SecureDoor {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** For ALPN (RFC 7301), the preferred one first; none when the protocol has no name there. */
  readonly protocols?: readonly string[];
  /** 2,000 unless given. */
  readonly maxHandshakes?: number;
  /** Also bounds how many it has. @param device what its certificate proves; undefined without one */
  take(socket: TLSSocket, peer: SecurePeer | undefined): void;
}

export interface SecurePeer {
  readonly device: string;
  /** Of the certificate that it came with. */
  readonly serial: string;
}

export interface SecureListenerOptions {
  readonly context: SecureContextOptions;
  /** PEM of the CA that signs devices. */
  readonly deviceCa: string;
  admits(device: string, serial: string): boolean;
  readonly nowMs: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
}

export class SecureListener {
  readonly #door: SecureDoor;
  readonly #options: SecureListenerOptions;
  readonly #server: Server;
  readonly #refused;
  readonly #log: SparingLog;
  /** By device, so that a revoked one can be cut off. */
  readonly #sockets = new Map<string, Set<TLSSocket>>();
  /** Connections whose handshake is not done, the oldest first. */
  readonly #undecided = new Map<string, Socket>();
  #closing = false;

  constructor(door: SecureDoor, options: SecureListenerOptions) {
    this.#door = door;
    this.#options = options;
    this.#log = new SparingLog(options.log);
    this.#refused = options.metrics.counter(
      "headwater_tls_refused_total",
      "TLS connections refused, by reason",
      ["reason"],
    );
    this.#server = createServer({
      ...this.#fixed,
      ...options.context,
      // Who shows none may have a password; who shows a bad one is told by the end of the connection.
      requestCert: true,
      rejectUnauthorized: false,
      handshakeTimeout: HANDSHAKE_MS,
      noDelay: true,
      ...(door.protocols !== undefined && { ALPNProtocols: [...door.protocols] }),
    });
    this.#server.on("connection", (socket: Socket) => {
      this.#makeRoom();
      const key = keyOf(socket);
      this.#undecided.set(key, socket);
      socket.once("close", () => this.#undecided.delete(key));
    });
    this.#server.on("secureConnection", (socket) => this.#secured(socket));
    this.#server.on("tlsClientError", (error: NodeJS.ErrnoException, socket) => {
      // Whoever just goes away is no news.
      if (error.code !== "ECONNRESET") this.#refused.inc({ reason: "handshake" });
      socket.destroy();
    });
  }

  /** Resolves with the port. @throws PortBusyError, PortUnusableError */
  start(): Promise<number> {
    return listenOn(this.#server, this.#door.host, this.#door.port);
  }

  /** Takes no more; the sockets are the door's. Safe to call twice. */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#server.listening) this.#server.close();
    for (const socket of this.#undecided.values()) socket.destroy();
  }

  /** For connections to come. */
  setContext(context: SecureContextOptions): void {
    this.#server.setSecureContext({ ...this.#fixed, ...context });
  }

  disconnect(device: string): void {
    for (const socket of this.#sockets.get(device) ?? []) socket.destroy();
  }

  /** Strangers who begin handshakes and do not end them keep nobody out. */
  #makeRoom(): void {
    if (this.#undecided.size < (this.#door.maxHandshakes ?? MAX_HANDSHAKES)) return;
    const [key, oldest] = this.#undecided.entries().next().value!;
    this.#undecided.delete(key);
    this.#refused.inc({ reason: "too many handshakes" });
    this.#warn({ peer: oldest.remoteAddress }, "TLS connection ended in its handshake: there are too many");
    oldest.destroy();
  }

  get #fixed(): SecureContextOptions {
    return { ca: this.#options.deviceCa, minVersion: "TLSv1.2" };
  }

  #secured(socket: TLSSocket): void {
    socket.on("error", () => {});
    this.#undecided.delete(keyOf(socket));
    if (this.#closing) return void socket.destroy();
    const shown = socket.getPeerX509Certificate?.();
    const peer = shown && this.#peerOf(socket, shown);
    if (typeof peer === "string") {
      this.#refused.inc({ reason: peer });
      const subject = shown?.subject?.slice(0, 80);
      // Of each reason by itself: strangers shall not hide a device that was revoked.
      this.#warn({ peer: socket.remoteAddress, subject }, `device refused: ${peer}`);
      socket.destroy();
      return;
    }
    if (shown !== undefined && peer !== undefined) {
      this.#remember(socket, peer.device);
      this.#endWith(socket, peer.device, Date.parse(shown.validTo));
    }
    this.#door.take(socket, peer);
  }

  #endWith(socket: TLSSocket, device: string, notAfterMs: number): void {
    const leftMs = notAfterMs - this.#options.nowMs();
    if (leftMs <= 0) {
      this.#refused.inc({ reason: "certificate ended" });
      this.#warn({ device }, "device disconnected: its certificate has ended");
      socket.destroy();
      return;
    }
    const timer = setTimeout(() => this.#endWith(socket, device, notAfterMs), Math.min(leftMs, LOOK_MS));
    timer.unref();
    socket.once("close", () => clearTimeout(timer));
  }

  #remember(socket: TLSSocket, device: string): void {
    const sockets = this.#sockets.get(device) ?? new Set();
    this.#sockets.set(device, sockets.add(socket));
    socket.once("close", () => {
      sockets.delete(socket);
      if (sockets.size === 0 && this.#sockets.get(device) === sockets) this.#sockets.delete(device);
    });
  }

  #warn(fields: LogFields, message: string): void {
    this.#log.warn(this.#options.nowMs() * 1_000, fields, message);
  }

  /** Or why it is refused. */
  #peerOf(socket: TLSSocket, shown: X509Certificate): SecurePeer | string {
    if (!socket.authorized) {
      const expired = String(socket.authorizationError) === "CERT_HAS_EXPIRED";
      return expired ? "certificate expired" : "certificate of another CA";
    }
    const device = /^CN=(.+)$/.exec(shown.subject)?.[1];
    if (device === undefined || !this.#options.admits(device, shown.serialNumber)) return "device revoked";
    return { device, serial: shown.serialNumber };
  }
}

/** The same for a plain socket and for the TLS socket that was made of it. */
function keyOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}
