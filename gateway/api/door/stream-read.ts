/**
 * Reads the bodies of HTTP/2 streams into one buffer that all of them share, as `runtime/shared-read.ts`
 * reads sockets. By itself node:http2 makes the memory of each read, up to 64 KiB, an object of V8's, which
 * counts it against its heap: under a load of large bodies it collects for their sake, at times the whole
 * heap ten times a second. Read so, that memory is freed at once, and V8 never hears of it.
 *
 * A stream has the method behind it as a socket has, but no option that leads to it. So it and the fields
 * are found by their names; where one is missing, the stream is read by its `data` events, the plain way.
 */
import type { ServerHttp2Stream } from "node:http2";
import { Socket } from "node:net";

/** node:http2 reads so much from a socket at once, and hands on no more. */
const SHARED_BYTES = 65_536;

interface Handle {
  useUserBuffer?(buffer: Buffer): void;
}

interface Fields {
  readonly buffer: symbol;
  readonly callback: symbol;
  readonly generator: symbol;
}

let shared: Buffer | undefined;
let fields: Fields | "unknown" | undefined;
/** The same for all streams. */
let handleName: symbol | undefined;

/**
 * To the stream's end; it flows from now on.
 * @param taken hears what comes; the bytes are another's after the call
 * @param room where the next bytes are to be put, asked before each read; they are the stream's until its end, or its
 *   close. Undefined for memory that all streams share.
 */
export function readStream(
  stream: ServerHttp2Stream,
  taken: (chunk: Buffer) => void,
  room?: () => Buffer | undefined,
): "shared" | "plain" {
  const handle = handleOf(stream);
  fields ??= fieldsOfSockets() ?? "unknown";
  if (fields === "unknown" || stream.readableLength > 0 || typeof handle?.useUserBuffer !== "function") {
    return readStreamPlain(stream, taken);
  }
  const memory = room?.() ?? sharedMemory();
  const own = stream as unknown as Record<symbol, unknown>;
  own[fields.buffer] = memory;
  own[fields.generator] = room === undefined ? null : () => room() ?? sharedMemory();
  own[fields.callback] = (bytes: number, into: Buffer): boolean => {
    taken(into.subarray(0, bytes));
    return true;
  };
  handle.useUserBuffer(memory);
  // Flowing, so that the end is heard of.
  stream.resume();
  return "shared";
}

function sharedMemory(): Buffer {
  shared ??= Buffer.allocUnsafeSlow(SHARED_BYTES);
  return shared;
}

/** The plain way. */
export function readStreamPlain(stream: ServerHttp2Stream, taken: (chunk: Buffer) => void): "plain" {
  stream.on("data", taken);
  return "plain";
}

function handleOf(stream: ServerHttp2Stream): Handle | undefined {
  const own = stream as unknown as Record<symbol, Handle | undefined>;
  handleName ??= Object.getOwnPropertySymbols(stream).find((symbol) => symbol.description === "kHandle");
  return handleName && own[handleName];
}

/** Streams and sockets are read by the same function, which asks for these; only sockets have them from the start. */
function fieldsOfSockets(): Fields | undefined {
  const symbols = Object.getOwnPropertySymbols(new Socket());
  const named = (name: string) => symbols.find((symbol) => symbol.description === name);
  const [buffer, callback, generator] = [named("kBuffer"), named("kBufferCb"), named("kBufferGen")];
  return buffer && callback && generator && { buffer, callback, generator };
}
