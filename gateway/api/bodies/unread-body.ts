/**
 * Bodies over HTTP/2 that nobody reads, such as those of requests that are refused by their heads. node:http2
 * keeps them, a window of each stream, for as long as the client does not take the answer: 128 MiB on one
 * connection. HTTP/1.1 needs none of this, as Node stops reading the socket.
 */
import type { ServerHttp2Stream } from "node:http2";

/** For a stream that has just begun: whoever wants the body has asked for it before the event loop comes round. */
export function discardUnread(stream: ServerHttp2Stream): void {
  setImmediate(() => {
    if (stream.destroyed || stream.closed || stream.readableFlowing !== null) return;
    stream.resume();
    // RFC 9113 §8.1: with NO_ERROR, once the answer has gone, it asks the client to stop. node:http2 does so by
    // itself for streams that were never read.
    const stop = (): void => void setImmediate(() => stream.close());
    if (stream.writableFinished) stop();
    else stream.once("finish", stop);
  });
}
