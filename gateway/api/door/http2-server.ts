/** Node's HTTP/2 server as the front door has it: its limits, and where it knows the standard less well than clients do. */
import { createServer, type Http2Server } from "node:http2";
import type { IncomingRequest, OutgoingReply } from "../exchange.ts";

/** Of HTTP/1.1, too. */
export const MAX_HEADER_BYTES = 16_384;
const MAX_STREAMS_PER_SESSION = 128;
/**
 * Lets a client send a PutRecords of 500 records without waiting for window updates; of a stream, and of
 * a connection, which would have 64 KiB otherwise.
 */
export const WINDOW_BYTES = 1_048_576;
/**
 * Such a PutRecords may come as one frame, which costs less than ten. It is handed on as it comes, 64 KiB at
 * the most, so nobody's half a frame is held. A larger one ends the connection (RFC 9113 §4.2).
 */
const MAX_FRAME_BYTES = 262_144;
/**
 * node:http2 counts answers that wait, 10 MB of them otherwise, and never again takes off those that were
 * cut: two large pages, or a few cut ones, would have a connection refused all further calls. What waits is
 * bounded by `unread-answers.ts`, and otherwise by the number of streams.
 */
const MAX_SESSION_MB = 2 ** 20;

/** @param onRequest gets the requests of all its sessions, but for those whose expectation is not met: 417 */
export function http2Server(
  onRequest: (request: IncomingRequest, reply: OutgoingReply) => void,
): Http2Server {
  const server = createServer(
    {
      settings: {
        maxConcurrentStreams: MAX_STREAMS_PER_SESSION,
        initialWindowSize: WINDOW_BYTES,
        maxFrameSize: MAX_FRAME_BYTES,
        maxHeaderListSize: MAX_HEADER_BYTES,
        enablePush: false,
      },
      maxSessionMemory: MAX_SESSION_MB,
      // One for each stream whose answer was large, and one that asks whether the client is there.
      maxOutstandingPings: 2 * MAX_STREAMS_PER_SESSION,
      maxSessionInvalidFrames: 16,
      maxSessionRejectedStreams: 64,
    },
    onRequest,
  );
  // Of what Node has not recognised: it looks for lower case, but case does not matter (RFC 9110 §10.1.1).
  server.on("checkExpectation", (request, reply) => {
    if (request.headers.expect?.toLowerCase() === "100-continue") {
      reply.writeContinue();
      onRequest(request, reply);
    } else {
      reply.statusCode = 417;
      reply.end();
    }
  });
  return server;
}
