/**
 * Reads a server's sockets into one buffer that all of them share. By itself each read takes fresh memory of
 * 64 KiB, cuts it to what came and hands it through a stream's queue; for a chunk of a few hundred
 * bytes that costs a fifth of all that a door does, and for a large frame the copies cost more.
 *
 * Node offers this as `onread`, but only to sockets that connect, not to those that a server accepts.
 * So the fields behind that option are set here by their names; where one is missing, the socket is
 * read by its `data` events, which is the plain way: both obey `pause` and `resume`, and a chunk is
 * good for the call only.
 */
import type { Socket } from "node:net";

/** Room for a few frames of usual size; one read of the kernel fills it at most. */
const SHARED_BYTES = 256 * 1_024;
let shared: Buffer | undefined;

interface Handle {
  useUserBuffer?(buffer: Buffer): void;
}

/** How a socket is read. */
export interface Reading {
  readonly way: "shared" | "plain";
  /** What comes from now on is the stream's own again, for whoever listens to it. */
  release(): void;
}

/** @param taken hears what came; the bytes are another's after the call */
export function readShared(socket: Socket, taken: (chunk: Buffer) => void): Reading {
  const handle = (socket as unknown as { _handle: Handle | null })._handle;
  const buffer = fieldOf(socket, "kBuffer");
  const callback = fieldOf(socket, "kBufferCb");
  const generator = fieldOf(socket, "kBufferGen");
  const fits =
    buffer !== undefined &&
    callback !== undefined &&
    generator !== undefined &&
    socket.readableLength === 0 &&
    typeof handle?.useUserBuffer === "function";
  if (!fits) return readPlain(socket, taken);
  shared ??= Buffer.allocUnsafeSlow(SHARED_BYTES);
  const memory = shared;
  const fields = socket as unknown as Record<symbol, unknown>;
  let isReleased = false;
  fields[buffer] = memory;
  fields[callback] = (bytes: number): boolean => {
    const chunk = memory.subarray(0, bytes);
    if (isReleased) return socket.push(Buffer.from(chunk));
    taken(chunk);
    return true;
  };
  handle.useUserBuffer?.(memory);
  // Flowing, so that the end is heard of.
  socket.resume();
  return {
    way: "shared",
    release: () => {
      isReleased = true;
    },
  };
}

/** The plain way. */
export function readPlain(socket: Socket, taken: (chunk: Buffer) => void): Reading {
  socket.on("data", taken);
  socket.resume();
  return { way: "plain", release: () => void socket.removeListener("data", taken) };
}

/** Where the constructor left one of its own fields, unused. */
function fieldOf(socket: Socket, name: string): symbol | undefined {
  const fields = socket as unknown as Record<symbol, unknown>;
  return Object.getOwnPropertySymbols(socket).find(
    (symbol) => symbol.description === name && fields[symbol] === null,
  );
}
