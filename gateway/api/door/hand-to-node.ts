/** Gives a connection, of which something has been read, to Node's HTTP server. */
import type { Server } from "node:http";
import type { Socket } from "node:net";

/**
 * @param rest what was read of it and belongs to the server
 * @param listeners the server's own, for connections
 */
export function handToNode(
  socket: Socket,
  rest: Buffer,
  server: Server,
  listeners: readonly ((socket: Socket) => void)[],
): void {
  const hasEnded = socket.readableEnded;
  socket.pause();
  // A stream that has told its end takes nothing back.
  if (!hasEnded) socket.unshift(rest);
  for (const take of listeners) take.call(server, socket);
  if ("encrypted" in socket) readAsStream(socket);
  socket.resume();
  if (!hasEnded) return;
  // Then it is told again, to the server: a lane had the client's end while it answered the call before.
  socket.emit("data", rest);
  socket.emit("end");
}

/**
 * Node's parser takes bytes from below the stream. There TLS goes on with all that it has decrypted when it is paused, which
 * ends a connection of many pipelined requests (HPE_PAUSED). A listener for "data" makes the parser take them from the stream.
 */
function readAsStream(socket: Socket): void {
  const listener = (): void => {};
  socket.on("data", listener).removeListener("data", listener);
}
