/** Lets go of HTTP/2 connections on which nothing is going on, or whose client has gone. */
import type { ServerHttp2Session, ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";

export interface SessionDeadlines {
  /** How long a connection without a request may rest. */
  readonly keepAliveMs: number;
  /** How long a request, or its answer, may rest. */
  readonly requestMs: number;
  /** How long a client may take to say that it is there. */
  readonly pingMs: number;
}

/**
 * Watches a session to its end.
 * @param hasDeadline tells of a stream that has just begun whether somebody else lets go of it in time
 */
export function endWhenIdle(
  session: ServerHttp2Session,
  deadlines: SessionDeadlines,
  hasDeadline: (stream: ServerHttp2Stream) => boolean = () => false,
): void {
  const { keepAliveMs, requestMs, pingMs } = deadlines;
  let openStreams = 0;
  session.setTimeout(keepAliveMs);
  // Not as setTimeout's callback: that would hear of the first time only.
  session.on("timeout", () => {
    if (openStreams === 0) return session.close();
    // A subscription may rest while its client works; it has a deadline of its own.
    session.setTimeout(keepAliveMs);
    destroyUnlessAlive(session, pingMs);
  });
  session.on("stream", (stream) => {
    openStreams++;
    stream.once("close", () => {
      openStreams--;
    });
    stream.on("error", () => {});
    if (!hasDeadline(stream)) stream.setTimeout(requestMs, () => stream.close());
  });
}

/**
 * After some faults of a client, such as DATA for no stream, nghttp2 says GOAWAY and reads no more, and
 * node:http2 notices neither that nor that the client has gone: with a stream open the connection would
 * stay for ever. What lives answers a PING (RFC 9113 §6.7).
 */
function destroyUnlessAlive(session: ServerHttp2Session, pingMs: number): void {
  const deadline = setTimeout(() => session.destroy(), pingMs);
  // The end of the session also ends the wait. A ping that cannot even be sent is no answer.
  session.ping((error) => {
    if (error === null || session.destroyed) clearTimeout(deadline);
  });
}

/**
 * A session that closes in peace only ends its side of the connection, and then waits for the client's
 * end. That never comes from one that reads no more, such as an SDK whose program has left an event stream
 * without closing it: the connection would stay for ever.
 */
export function destroyWhenLeft(socket: Socket, lingerMs: number): void {
  socket.once("finish", () => {
    const deadline = setTimeout(() => socket.destroy(), lingerMs);
    socket.once("close", () => clearTimeout(deadline));
  });
}
