/**
 * A small HTTP server that speaks the console's API with prepared data: real sockets, real footage
 * made by ffmpeg, and names as hostile as strangers can make them.
 */
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { extname, join } from "node:path";
import { type WebSocket, WebSocketServer } from "ws";
import { freePorts } from "../../support/program.ts";
import { type Footage, FPS } from "./prepared-footage.ts";

export const KEY_ID = "AKIATEST";
export const SECRET = "a-secret-of-enough-letters";
export const HOSTILE = `<img src=x onerror="window.injected=1"><script>window.injected=2</script>"'&`;
const COOKIE = "headwater_session=prepared";
const CONTENT_TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};
const DEVICE = "barn-pi";
const SENSORS = ["air-barn", "board", "soil-dairy", "water-silo", HOSTILE];

export class PreparedGateway {
  /** Where the bundled page is. */
  readonly #folder: string;
  readonly #footage: Footage | undefined;
  readonly #server: Server;
  readonly #sockets = new WebSocketServer({ noServer: true });
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #startedMs = Date.now();
  #port = 0;
  empty = false;
  /** Its first stream is damaged, and its disk full. */
  ill = false;
  /** Why its store cannot be reached. */
  unreachable: string | null = null;
  cameraLive = true;
  /** Requests for the state so far. */
  polls = 0;

  constructor(folder: string, footage?: Footage) {
    this.#folder = folder;
    this.#footage = footage;
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error: unknown) =>
        json(response, 500, { error: String(error) }),
      );
    });
    this.#server.on("upgrade", (request, socket, head) => {
      if (request.headers.cookie !== COOKIE) return socket.destroy();
      this.#sockets.handleUpgrade(request, socket, head, (client) => this.#live(request, client));
    });
  }

  /** Again on the same port after `close`. */
  async start(): Promise<void> {
    // None that another program's connection could be given while nobody listens.
    this.#port ||= (await freePorts(1))[0]!;
    this.#server.listen(this.#port, "127.0.0.1");
    await once(this.#server, "listening");
  }

  get address(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    for (const client of this.#sockets.clients) client.terminate();
    if (!this.#server.listening) return;
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", this.address);
    if (!url.pathname.startsWith("/api/")) return this.#file(url.pathname, response);
    if (url.pathname === "/api/session" && request.method === "POST") return signIn(request, response);
    if (request.headers.cookie !== COOKIE) {
      return json(response, 401, { error: { code: "SIGNED_OUT", message: "sign in first" } });
    }
    if (url.pathname === "/api/session" && request.method === "DELETE") {
      response.setHeader("set-cookie", `${COOKIE}; Max-Age=0; Path=/`);
      return void response.writeHead(204).end();
    }
    if (url.pathname === "/api/state") {
      this.polls++;
      return json(response, 200, this.#state());
    }
    if (url.pathname === "/api/sensors") return json(response, 200, this.#sensors());
    if (url.pathname === "/api/readings") return json(response, 200, { rows: this.#history(url) });
    if (url.pathname === "/api/windows") return json(response, 200, { rows: this.#windows() });
    if (url.pathname === "/api/footage") return json(response, 200, { fragments: this.#fragments() });
    json(response, 404, { error: { code: "NOT_FOUND", message: "there is nothing here" } });
  }

  async #file(path: string, response: ServerResponse): Promise<void> {
    const name = path === "/" ? "index.html" : path.slice(1);
    const type = CONTENT_TYPES[extname(name)];
    const bytes = type && (await readFile(join(this.#folder, name)).catch(() => undefined));
    if (!bytes) return json(response, 404, {});
    response.writeHead(200, {
      "content-type": type,
      "content-security-policy": "default-src 'self'; media-src 'self' blob:",
      "x-content-type-options": "nosniff",
    });
    response.end(bytes);
  }

  #state(): object {
    const nowMs = Date.now();
    const seconds = Math.floor((nowMs - this.#startedMs) / 1_000);
    const none = { nowMs, version: "0.1.0", quarantine: { publishes: 0, keptBytes: 0 }, unreachable: null };
    if (this.empty) {
      return { ...none, devices: [], streams: [], deliveries: [], objects: [], statements: [], cameras: [] };
    }
    const records = 48_210 + seconds * 30;
    return {
      ...none,
      unreachable: this.unreachable,
      devices: [
        {
          device: DEVICE,
          connected: true,
          lastSeenMs: nowMs - 120,
          frames: 3_120,
          records,
          duplicateFrames: 4,
          missedFrames: 0,
          status: {
            version: "0.1.0",
            buffer: {
              waitingRecords: 12 + (seconds % 9),
              waitingBytes: 2_310,
              maxBytes: 1_073_741_824,
              oldestAgeMs: 140,
              droppedRecords: 0,
            },
            footage: {
              waitingRecords: 1,
              waitingBytes: 1_830_000_000,
              maxBytes: 8_589_934_592,
              oldestAgeMs: 3_900,
              droppedRecords: 0,
            },
            residentBytes: 98_000_000,
            sources: [
              {
                name: "board",
                type: "serial",
                state: "running",
                records: 21_000 + seconds * 10,
                rejected: 3,
                lastError: "line is no JSON",
              },
              {
                name: "sensors",
                type: "mqtt",
                state: "running",
                records: 27_000 + seconds * 20,
                rejected: 0,
              },
              { name: "yard", type: "camera", state: "running", records: 1_800, rejected: 0 },
            ],
          },
        },
        {
          device: HOSTILE,
          connected: true,
          lastSeenMs: nowMs - 4_000,
          frames: 0,
          records: 310,
          duplicateFrames: 0,
          missedFrames: 0,
        },
      ],
      streams: [
        {
          name: "sensors",
          damagedBytes: this.ill ? 4_096 : 0,
          refusing: this.ill ? "stream sensors cannot be written: no space left" : null,
          retentionHours: 24,
          shards: [0, 1].map((i) => ({
            shardId: `shardId-00000000000${i}`,
            latest: String(Math.floor(records / 2)),
            trimHorizon: "0",
            storedBytes: 5_200_000 + i * 320_000,
            recordsPerSecond: 14 + i * 2 + Math.sin(seconds / 3 + i) * 2,
          })),
          consumers: [
            { name: "delivery/archive", behind: 310 },
            { name: "analytics/by-minute", behind: 12 },
          ],
        },
        {
          name: "by-minute",
          damagedBytes: 0,
          refusing: null,
          retentionHours: 48,
          shards: [
            {
              shardId: "shardId-000000000000",
              latest: 1_240,
              trimHorizon: 0,
              storedBytes: 210_000,
              recordsPerSecond: 0.4,
            },
          ],
          consumers: [],
        },
      ],
      deliveries: [
        {
          name: "archive",
          stream: "sensors",
          destination: "files /srv/headwater/archive",
          deliveredObjects: 131,
          deliveredRecords: records - 340,
          failedRecords: 0,
          waitingMs: 8_400,
        },
      ],
      objects: Array.from({ length: 20 }, (_, i) => ({
        delivery: "archive",
        name:
          i === 3 ? HOSTILE : `sensors/2026/11/21/10/archive-${String(131 - i).padStart(12, "0")}.ndjson.gz`,
        records: 590 + ((i * 37) % 40),
        bytes: 21_400 + i * 113,
        deliveredMs: nowMs - (i * 20 + (seconds % 20)) * 1_000,
      })),
      statements: [
        {
          name: "by-minute",
          input: "sensors",
          output: "by-minute",
          state: "running",
          records: records - 40,
          late: 0,
          rejected: 0,
          results: 1_240 + Math.floor(seconds / 5),
          watermarkUs: (nowMs - 10_000) * 1_000,
          sql: "INSERT INTO …",
        },
      ],
      cameras: [
        {
          camera: `${DEVICE}/yard`,
          live: this.cameraLive,
          codec: "avc1.42c01f",
          width: 1_280,
          height: 720,
          fragments: 912,
          storedBytes: 641_000_000,
          oldestUs: (nowMs - 1_824_000) * 1_000,
          newestUs: nowMs * 1_000,
          quarantined: 0,
          viewers: 1,
        },
      ],
    };
  }

  #sensors(): object {
    if (this.empty) return [];
    return SENSORS.map((name) => ({
      key: `${DEVICE}/${name}`,
      fields: ["humidity", "temperature", HOSTILE],
      lastUs: Date.now() * 1_000,
      lastValues: {},
    }));
  }

  #history(url: URL): object[] {
    const seconds = Number(url.searchParams.get("seconds"));
    const nowMs = Date.now();
    return Array.from({ length: seconds }, (_, i) => reading(nowMs - (seconds - i) * 1_000)).filter(
      (_, i) => i < 140 || i > 160,
    );
  }

  #windows(): object[] {
    const startMs = Math.floor(Date.now() / 10_000) * 10_000 - 20_000;
    return Array.from({ length: 12 }, (_, i) => ({
      sensor: SENSORS[i % SENSORS.length],
      window_start: new Date(startMs).toISOString(),
      window_end: new Date(startMs + 10_000).toISOString(),
      n: 10 + (i % 3),
      avg_temperature: 18.2 + i / 7,
      max_temperature: i === 4 ? null : 19.4 + i / 5,
    }));
  }

  #fragments(): object[] {
    const nowMs = Date.now();
    return Array.from({ length: 6 }, (_, i) => ({
      id: `00ab-${i}`,
      producerUs: (nowMs - (6 - i) * 2_000) * 1_000,
      durationUs: 2_000_000,
      bytes: 702_000 + i * 1_024,
      state: "whole",
    }));
  }

  #live(request: IncomingMessage, client: WebSocket): void {
    const isCamera = request.url?.startsWith("/api/live/camera/") ?? false;
    if (isCamera) this.#showCamera(client);
    else this.#repeat(client, 500, () => client.send(JSON.stringify([reading(Date.now())])));
  }

  #showCamera(client: WebSocket): void {
    const footage = this.#footage;
    if (footage === undefined) return;
    client.send(JSON.stringify({ type: "init", mimeType: 'video/mp4; codecs="avc1.42c01f"' }));
    client.send(footage.init);
    let next = 0;
    this.#repeat(client, 1_000 / FPS, () => {
      const picture = footage.pictures[next++];
      if (picture === undefined) return;
      const head = Buffer.alloc(8);
      // The camera took it a little before it comes out of the gateway.
      head.writeBigUInt64BE(BigInt(Date.now() - 100) * 1_000n);
      client.send(Buffer.concat([head, picture]));
    });
  }

  #repeat(client: WebSocket, everyMs: number, act: () => void): void {
    const timer = setInterval(act, everyMs);
    this.#timers.add(timer);
    client.once("close", () => {
      clearInterval(timer);
      this.#timers.delete(timer);
    });
  }
}

function reading(ms: number): object {
  const seconds = ms / 1_000;
  const temperature =
    18 + 2 * Math.sin(seconds / 70) + 0.4 * Math.sin(seconds / 9) + 0.05 * Math.sin(seconds * 7);
  return {
    timeUs: Math.round(ms * 1_000),
    values: { temperature: Number(temperature.toFixed(2)), humidity: 55, [HOSTILE]: 1 },
  };
}

async function signIn(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let text = "";
  for await (const chunk of request) text += chunk;
  const { accessKeyId, secretAccessKey } = JSON.parse(text) as Record<string, string>;
  if (accessKeyId !== KEY_ID || secretAccessKey !== SECRET) {
    return json(response, 401, { error: { code: "BAD_KEY", message: "no such key" } });
  }
  response.setHeader("set-cookie", `${COOKIE}; HttpOnly; SameSite=Strict; Path=/`);
  response.writeHead(204).end();
}

function json(response: ServerResponse, status: number, body: unknown): void {
  if (response.headersSent) return;
  response.writeHead(status, { "content-type": "application/json", "cache-control": "no-store" });
  response.end(JSON.stringify(body));
}
