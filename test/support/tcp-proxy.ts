/**
 * A bad network between two programs: a TCP proxy on a port of loopback that delays, throttles, stalls, cuts and
 * forgets connections, at any moment.
 *
 *   client ─up→ TcpProxy ─up→ target
 *          ←down─        ←down─
 *
 * Nothing is ever changed or reordered within a direction, as TCP promises; what a fault does is said at
 * its method. `restore()` makes the network good again; connections that `blackhole()` forgot stay dead.
 */
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { type Direction, Lane, type Network, type Quality } from "./tcp-proxy-lane.ts";

export interface TcpProxyOptions {
  readonly targetPort: number;
  readonly targetHost?: string;
  /** 0, as unless given, for any free one. */
  readonly port?: number;
  /** For the jitter. */
  readonly random?: () => number;
}

export interface ProxyCounts {
  /** Accepted so far. */
  readonly connections: number;
  /** Open now, at either side, those that were forgotten left out. */
  readonly open: number;
  readonly upBytes: number;
  readonly downBytes: number;
  /** Connections that a fault ended or forgot. */
  readonly harmed: number;
}

export class TcpProxy {
  readonly #options: TcpProxyOptions;
  readonly #server: Server;
  readonly #links = new Set<Link>();
  readonly #network: Network;
  #port = 0;
  #connections = 0;
  #harmed = 0;
  #refusing = false;
  #forgetting = false;
  #closing: Promise<void> | undefined;

  constructor(options: TcpProxyOptions) {
    this.#options = options;
    this.#network = { quality: {}, stalled: new Set(), bytes: { up: 0, down: 0 }, cutAt: undefined };
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => this.#accept(client));
  }

  async start(): Promise<void> {
    this.#server.listen(this.#options.port ?? 0, "127.0.0.1");
    await once(this.#server, "listening");
    this.#port = (this.#server.address() as { port: number }).port;
  }

  /** It keeps its number after `close`. */
  get port(): number {
    return this.#port;
  }

  counts(): ProxyCounts {
    return {
      connections: this.#connections,
      open: [...this.#links].filter((link) => !link.forgotten).length,
      upBytes: this.#network.bytes.up,
      downBytes: this.#network.bytes.down,
      harmed: this.#harmed,
    };
  }

  /** For what is sent from now on; unless named, a value is that of a perfect network. */
  setQuality(quality: Quality): void {
    this.#network.quality = quality;
  }

  /** From now on nothing gets through in these directions, and nothing is lost either: it waits for `restore()`. */
  stall(directions: readonly Direction[] = ["up", "down"]): void {
    this.#network.stalled = new Set(directions);
  }

  /** Both ends of every connection get an RST. */
  cut(): void {
    for (const link of this.#living()) {
      this.#harmed++;
      link.reset();
    }
  }

  /**
   * The connection that carries the `bytes`-th byte from now on in that direction gets through with it, not with
   * the next, and is then reset at both ends: within a packet, wherever that is.
   */
  cutAfter(bytes: number, direction: Direction = "up"): void {
    this.#network.cutAt = { direction, left: Math.max(1, Math.floor(bytes)), onCut: () => this.#harmed++ };
  }

  /** Connections of now get a FIN in one direction, as if its sender had no more to say; the other direction lives. */
  halfClose(direction: Direction): void {
    for (const link of this.#living()) {
      this.#harmed++;
      link.halfClose(direction);
    }
  }

  /**
   * Connections of now are forgotten as by a router that was restarted: neither end hears of the other
   * any more, not even of its end, also after `restore()`. New ones are taken and forgotten at once.
   */
  blackhole(): void {
    this.#forgetting = true;
    for (const link of this.#living()) {
      this.#harmed++;
      link.forget();
    }
  }

  /** New connections are reset at once. Those of now live. */
  refuse(): void {
    this.#refusing = true;
  }

  restore(): void {
    const network = this.#network;
    network.quality = {};
    network.stalled = new Set();
    network.cutAt = undefined;
    this.#refusing = false;
    this.#forgetting = false;
    for (const link of this.#links) link.wake();
  }

  /** Ends every connection. Safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      const closed = new Promise((resolve) => this.#server.close(resolve));
      for (const link of this.#links) link.reset();
      await closed;
    })();
    return this.#closing;
  }

  #living(): Link[] {
    return [...this.#links].filter((link) => !link.forgotten);
  }

  #accept(client: Socket): void {
    this.#connections++;
    if (this.#refusing) {
      this.#harmed++;
      client.on("error", () => {});
      client.resetAndDestroy();
      return;
    }
    const { targetPort, targetHost = "127.0.0.1", random = Math.random } = this.#options;
    const target = this.#forgetting
      ? undefined
      : connect({ port: targetPort, host: targetHost, allowHalfOpen: true, noDelay: true });
    const link = new Link(client, target, this.#network, random, () => this.#links.delete(link));
    this.#links.add(link);
    if (target === undefined) {
      this.#harmed++;
      link.forget();
    }
  }
}

/** One connection of a client and the one to the target that belongs to it. */
class Link {
  readonly #sockets: readonly Socket[];
  readonly #lanes: readonly Lane[];
  readonly #onEnd: () => void;
  #forgotten = false;
  #ended = false;

  constructor(
    client: Socket,
    target: Socket | undefined,
    network: Network,
    random: () => number,
    onEnd: () => void,
  ) {
    this.#onEnd = onEnd;
    this.#sockets = target === undefined ? [client] : [client, target];
    const lane = (from: Socket, to: Socket, direction: Direction): Lane =>
      new Lane({ from, to, direction, network, random, reset: () => this.reset() });
    this.#lanes = target === undefined ? [] : [lane(client, target, "up"), lane(target, client, "down")];
    for (const socket of this.#sockets) {
      // An end that breaks off breaks the other, unless nobody is left to tell of it.
      socket.on("error", () => this.#forgotten || this.reset());
      socket.on("close", () => this.#sockets.every(({ destroyed }) => destroyed) && this.#end());
    }
  }

  get forgotten(): boolean {
    return this.#forgotten;
  }

  reset(): void {
    for (const lane of this.#lanes) lane.stop();
    for (const socket of this.#sockets) socket.resetAndDestroy();
    this.#end();
  }

  halfClose(direction: Direction): void {
    for (const lane of this.#lanes) if (lane.direction === direction) lane.finish();
  }

  forget(): void {
    this.#forgotten = true;
    for (const lane of this.#lanes) lane.stop();
    for (const socket of this.#sockets) socket.pause();
  }

  wake(): void {
    for (const lane of this.#lanes) lane.pump();
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#onEnd();
  }
}
