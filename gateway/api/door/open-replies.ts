/**
 * The replies of Node's HTTP server that are under way, so that it closes without cutting them. By itself it keeps
 * connections behind the answers that it still gives, takes further calls there, and ends connections at once whose
 * answers are written and have not left yet.
 */
import type { Server, ServerResponse } from "node:http";
import { Server as NetServer, type Socket } from "node:net";

interface UnderWay {
  count: number;
  newest: ServerResponse;
}

export class OpenReplies {
  readonly #server: Server;
  /** By connection; those without any are left out. */
  readonly #underWay = new Map<Socket, UnderWay>();
  /** Connections that end behind their newest reply. */
  readonly #ending = new WeakSet<Socket>();
  #isClosing = false;
  #idleMayGo = false;

  constructor(server: Server) {
    this.#server = server;
  }

  /** @returns false for what comes behind the last that its connection answers (RFC 9112 §9.6): it is not to be looked at */
  began(socket: Socket, reply: ServerResponse): boolean {
    if (this.#ending.has(socket)) return false;
    const underWay = this.#underWay.get(socket);
    if (underWay === undefined) this.#underWay.set(socket, { count: 1, newest: reply });
    else {
      underWay.count++;
      underWay.newest = reply;
    }
    if (this.#isClosing) this.#endBehind(socket, reply);
    // When its bytes have left. Of those that wait for another's none is told when their connection ends.
    reply.once("close", () => {
      const now = this.#underWay.get(socket);
      if (now !== undefined && --now.count === 0) this.closed(socket);
    });
    return true;
  }

  /** The connection, with all that was under way. */
  closed(socket: Socket): void {
    this.#underWay.delete(socket);
    this.#letIdleGo();
  }

  /**
   * Resolves when all connections have ended, those that the server did not make itself excepted.
   * @param taken until then new connections, and calls on idle ones, are taken; each is answered once
   */
  async close(taken: Promise<void>): Promise<void> {
    this.#isClosing = true;
    for (const [socket, { newest }] of this.#underWay) this.#endBehind(socket, newest);
    await taken;
    this.#idleMayGo = true;
    // The server's own `close` would also end connections whose answers are on their way.
    const closed = new Promise<void>((resolve) => {
      NetServer.prototype.close.call(this.#server, () => resolve());
    });
    this.#letIdleGo();
    await closed;
    // Ends its timer.
    this.#server.close();
  }

  /** Earlier replies of the connection are given as well. One whose head has gone cannot say so any more. */
  #endBehind(socket: Socket, reply: ServerResponse): void {
    if (reply.headersSent) return;
    reply.setHeader("connection", "close");
    this.#ending.add(socket);
  }

  #letIdleGo(): void {
    if (this.#idleMayGo && this.#underWay.size === 0) this.#server.closeIdleConnections();
  }
}
