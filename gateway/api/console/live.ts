/**
 * What the console watches live, over websockets: a sensor's readings as they are stored, and a
 * camera's pictures. Who opens one has been checked; whoever falls too far behind is let go.
 */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { type WebSocket, WebSocketServer } from "ws";
import type { CameraPreviews, Video } from "../../video/video.ts";
import type { RecentReadings } from "./recent-readings.ts";

const MAX_SOCKETS = 256;
/** What a client may send us; we expect nothing. */
const MAX_MESSAGE_BYTES = 1_024;
const PING_MS = 20_000;
/** A reader of text that is so far behind starts again from history. */
const MAX_TEXT_BACKLOG_BYTES = 1_048_576;
/** Video skips to a key frame long before; a socket that gets here has stopped reading. */
const MAX_VIDEO_BACKLOG_BYTES = 16 * 1_048_576;

/** RFC 6455 §7.4.1: try again later; and of the private range: sign in again. */
const TRY_AGAIN = 1013;
const SIGNED_OUT = 4401;
const GONE = 4404;

export interface Admission {
  /** Asked again at every ping: a session may end while a socket is open. */
  stillSignedIn(): boolean;
}

export class LiveSockets {
  readonly #server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    maxPayload: MAX_MESSAGE_BYTES,
    perMessageDeflate: false,
  });
  readonly #readings: RecentReadings;
  readonly #video: Video;
  readonly #previews: CameraPreviews;
  readonly #sockets = new Set<WebSocket>();

  constructor(readings: RecentReadings, video: Video, previews: CameraPreviews) {
    this.#readings = readings;
    this.#video = video;
    this.#previews = previews;
  }

  get full(): boolean {
    return this.#sockets.size >= MAX_SOCKETS;
  }

  readings(
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    admission: Admission,
    of: { stream: string; key: string },
  ): void {
    this.#server.handleUpgrade(request, socket, head, (client) => {
      this.#adopt(client, admission);
      let stop: (() => void) | undefined;
      client.once("close", () => stop?.());
      this.#readings
        .follow(of.stream, of.key, (readings) => {
          if (readings === undefined) return client.close(GONE, "the stream is gone");
          if (client.bufferedAmount > MAX_TEXT_BACKLOG_BYTES) return client.close(TRY_AGAIN, "too slow");
          client.send(JSON.stringify(readings));
        })
        .then(
          (end) => {
            if (client.readyState === client.OPEN) stop = end;
            else end();
          },
          () => client.close(GONE, "there is no such stream"),
        );
    });
  }

  camera(request: IncomingMessage, socket: Duplex, head: Buffer, admission: Admission, name: string): void {
    this.#server.handleUpgrade(request, socket, head, (client) => {
      this.#adopt(client, admission);
      let stop: () => void;
      try {
        stop = this.#video.watch(name, {
          init(mimeType, segment) {
            client.send(JSON.stringify({ type: "init", mimeType }));
            client.send(segment);
          },
          media(segment, producerUs) {
            if (client.bufferedAmount > MAX_VIDEO_BACKLOG_BYTES) return client.terminate();
            const message = Buffer.allocUnsafe(8 + segment.length);
            message.writeBigUInt64BE(BigInt(Math.max(0, Math.round(producerUs))), 0);
            message.set(segment, 8);
            client.send(message);
          },
          backlogBytes: () => client.bufferedAmount,
        });
      } catch {
        return client.close(GONE, "there is no such camera");
      }
      if (client.readyState === client.OPEN) client.once("close", stop);
      else stop();
    });
  }

  /** MPEG-1 in MPEG-TS, as jsmpeg players read it. Only cameras that publish can be watched. */
  preview(request: IncomingMessage, socket: Duplex, head: Buffer, admission: Admission, name: string): void {
    this.#server.handleUpgrade(request, socket, head, (client) => {
      this.#adopt(client, admission);
      if (!this.#video.cameras().some(({ camera, live }) => camera === name && live)) {
        return client.close(GONE, "there is no such camera, or it is not live");
      }
      const stop = this.#previews.watch(name, {
        data: (chunk) => client.send(chunk),
        backlogBytes: () => client.bufferedAmount,
      });
      client.once("close", stop);
    });
  }

  close(): void {
    // RFC 6455 §7.4.1: 1001, the server is going down.
    for (const client of this.#sockets) {
      client.close(1001, "the gateway is closing");
      client.terminate();
    }
    this.#server.close();
  }

  #adopt(client: WebSocket, admission: Admission): void {
    this.#sockets.add(client);
    let answered = true;
    const ping = setInterval(() => {
      if (!admission.stillSignedIn()) return client.close(SIGNED_OUT, "signed out");
      if (!answered) return client.terminate();
      answered = false;
      client.ping();
    }, PING_MS).unref();
    client.on("pong", () => {
      answered = true;
    });
    // An error is followed by a close, which cleans up.
    client.on("error", () => {});
    client.once("close", () => {
      clearInterval(ping);
      this.#sockets.delete(client);
    });
  }
}
