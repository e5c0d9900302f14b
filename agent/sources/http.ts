/**
 * A port to which programs post readings: `POST /records` or `POST /records/<sensor>` with JSON, an
 * array, lines of JSON or SenML. 200 means on disk. A full buffer is answered 429 with Retry-After,
 * and what is wrong 400 with the reason; then nothing of the request was stored.
 *
 * A request with an `Idempotency-Key` may be sent again as often as one likes and is stored once.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { TextDecoder } from "node:util";
import { isLoopback } from "../../config/fields.ts";
import type { HttpSourceConfig } from "../../config/source-config.ts";
import { pause } from "../../runtime/backoff.ts";
import { ConnectionPlaces } from "../../runtime/connection-places.ts";
import { describeError } from "../../runtime/errors.ts";
import { listenOn } from "../../runtime/listen.ts";
import { BufferFullError, type BufferRecord, RecordInvalidError } from "../buffer/record-buffer.ts";
import { Assembly } from "./assembly.ts";
import { type BatchKind, decodeJsonBatch } from "./decode/json-batch.ts";
import { BodyRoom } from "./http/body-room.ts";
import { bodyKind, busy, RETRY_AFTER_SECONDS, RequestRefusal, readBody } from "./http/http-body.ts";
import { RequestMemory } from "./http/request-memory.ts";
import type { SensorReading, Source, SourceParts, SourceReport } from "./source.ts";
import type { Life } from "./supervisor.ts";

export interface HttpSourceOptions extends SourceParts {
  readonly config: HttpSourceConfig;
  /** The buffer's policy: where it pauses, a request is answered instead of left waiting. */
  readonly whenFull: "pause" | "reject" | "drop-oldest";
}

/** Whole bodies held in memory at once; more are told to come again. As many may gather beside them. */
const MAX_IN_FLIGHT = 16;
const MAX_CONNECTIONS = 200;
const REQUEST_TIMEOUT_MS = 30_000;
/** Also of connections on which nothing comes at all. */
const HEAD_TIMEOUT_MS = 10_000;
/** How often both are looked at. */
const LOOK_EVERY_MS = 5_000;
/** What a record costs in the buffer beside its payload, about. */
const RECORD_BYTES = 64;
const MAX_KEY_CHARACTERS = 255;
const CLOSE_WAIT_MS = 2_000;
const utf8 = new TextDecoder("utf-8", { fatal: true });

export class HttpSource implements Source {
  readonly #options: HttpSourceOptions;
  readonly #assembly: Assembly;
  readonly #tokens: readonly Buffer[];
  readonly #room: BodyRoom;
  #memory = new RequestMemory();
  #server: Server | undefined;
  #inFlight = 0;

  constructor(options: HttpSourceOptions) {
    this.#options = options;
    const { config } = options;
    this.#tokens = config.tokens.map(digest);
    this.#room = new BodyRoom(MAX_IN_FLIGHT * config.maxBodyBytes, options.clock);
    this.#assembly = new Assembly(options, (life) => this.#live(life));
  }

  get name(): string {
    return this.#options.config.name;
  }

  get #markName(): string {
    return `http/${this.name}`;
  }

  /** The port it listens on; 0 while it does not. */
  get port(): number {
    return (this.#server?.address() as AddressInfo | null)?.port ?? 0;
  }

  async start(): Promise<void> {
    await this.#assembly.start();
  }

  async #live(life: Life): Promise<void> {
    const { config, log, buffer } = this.#options;
    this.#memory = new RequestMemory(await buffer.mark(this.#markName));
    const places = new ConnectionPlaces(MAX_CONNECTIONS, (reason) => this.#assembly.meters.fault(reason));
    const server = createServer({ connectionsCheckingInterval: LOOK_EVERY_MS }, (request, response) => {
      this.#handle(request, response, places).catch(() => response.destroy());
    });
    server.on("connection", (socket) => places.admit(socket));
    server.requestTimeout = REQUEST_TIMEOUT_MS;
    server.headersTimeout = HEAD_TIMEOUT_MS;
    await listenOn(server, config.host, config.port);
    this.#server = server;
    life.running();
    log.info({ host: config.host, port: this.port }, "posts are taken");
    const failed = new Promise<never>((_, reject) => server.once("error", reject));
    let end = (): void => {};
    const aborted = new Promise<void>((resolve) => {
      end = resolve;
      life.signal.addEventListener("abort", end, { once: true });
      if (life.signal.aborted) end();
    });
    try {
      await Promise.race([failed, aborted]);
    } finally {
      life.signal.removeEventListener("abort", end);
      await this.#drain(server);
      this.#server = undefined;
    }
  }

  /** Whoever is being stored gets an answer. */
  async #drain(server: Server): Promise<void> {
    const closed = once(server, "close");
    server.close();
    const untilMs = this.#options.clock.monotonicMs() + CLOSE_WAIT_MS;
    while (this.#inFlight > 0 && this.#options.clock.monotonicMs() < untilMs) await pause(10);
    server.closeAllConnections();
    await closed;
  }

  async #handle(request: IncomingMessage, response: ServerResponse, places: ConnectionPlaces): Promise<void> {
    let counted = false;
    try {
      const sensor = this.#admit(request);
      const kind = bodyKind(request);
      const body = await readBody(request, this.#options.config.maxBodyBytes, this.#room);
      if (this.#inFlight >= MAX_IN_FLIGHT) throw busy("too many requests at once");
      counted = true;
      this.#inFlight++;
      places.keep(request.socket);
      await answer(response, 200, await this.#store(request, sensor, kind, body));
    } catch (error) {
      const { status, message, headers } = error instanceof RequestRefusal ? error : this.#failure(error);
      if (status === 400) this.#assembly.meters.rejected(message);
      else this.#assembly.meters.fault(message);
      await answer(response, status, { error: message }, headers);
      // What is left of its body is of no use.
      request.resume();
    } finally {
      if (counted) this.#inFlight--;
      places.release(request.socket);
    }
  }

  #failure(error: unknown): RequestRefusal {
    if (error instanceof BufferFullError) return busy(error.message);
    // As it is it can never be stored.
    if (error instanceof RecordInvalidError) return new RequestRefusal(400, error.message);
    return new RequestRefusal(503, describeError(error), { "retry-after": String(RETRY_AFTER_SECONDS) });
  }

  /** @returns the sensor of the path @throws RequestRefusal */
  #admit(request: IncomingMessage): string {
    const { host } = this.#options.config;
    // A page in a browser must not post to this machine, whatever name it found for it.
    if (request.headers.origin !== undefined) throw new RequestRefusal(403, "not from a web page");
    if (isLoopback(host) && !isLocalName(request.headers.host, host))
      throw new RequestRefusal(403, "ask by the address that this port is bound to");
    const token = /^Bearer (.{1,1000})$/i.exec(request.headers.authorization ?? "")?.[1];
    if (this.#tokens.length > 0 && !this.#isToken(token ?? ""))
      throw new RequestRefusal(401, "a bearer token is needed", { "www-authenticate": "Bearer" });
    const path = (request.url ?? "/").split("?")[0]!;
    const match = /^\/records(?:\/(.*))?$/.exec(path);
    if (match === null) throw new RequestRefusal(404, "post to /records or /records/<sensor>");
    if (request.method !== "POST") throw new RequestRefusal(405, "POST alone is served", { allow: "POST" });
    try {
      return decodeURIComponent(match[1] ?? "") || this.name;
    } catch {
      throw new RequestRefusal(400, "the sensor in the path is not encoded as it should be");
    }
  }

  #isToken(given: string): boolean {
    const hash = digest(given);
    // All are compared, so that the time says nothing of which was right.
    return this.#tokens.map((token) => timingSafeEqual(token, hash)).includes(true);
  }

  async #store(
    request: IncomingMessage,
    sensor: string,
    kind: BatchKind,
    body: Buffer,
  ): Promise<{ stored: number; repeated?: true }> {
    const arrivalUs = this.#options.clock.nowUs();
    const { readings, reason } = decodeJsonBatch(kind, textOf(body), sensor, arrivalUs);
    if (reason !== undefined) throw new RequestRefusal(400, reason);
    const key = request.headers["idempotency-key"];
    if (key === undefined) return this.#append(readings, arrivalUs);
    // An empty one would make all that bear it one request.
    if (typeof key !== "string" || key.length === 0 || key.length > MAX_KEY_CHARACTERS)
      throw new RequestRefusal(400, `an Idempotency-Key has 1 to ${MAX_KEY_CHARACTERS} characters`);
    const hash = RequestMemory.hash(`${sensor}\0${key}`);
    const before = this.#memory.known(hash);
    if (before === undefined) return this.#append(readings, arrivalUs, hash);
    await before;
    this.#assembly.meters.repeated();
    return { stored: readings.length, repeated: true };
  }

  async #append(
    readings: readonly SensorReading[],
    arrivalUs: number,
    hash?: string,
  ): Promise<{ stored: number }> {
    const shaping = this.#assembly.intake.records(readings.map((reading) => ({ reading, arrivalUs })));
    const storing = Promise.resolve(shaping).then((records) => this.#appendRecords(records, hash));
    // Known from here on: the same request that comes meanwhile waits for this one.
    if (hash !== undefined)
      this.#memory.add(
        hash,
        storing.then(() => {}),
      );
    try {
      return { stored: await storing };
    } catch (error) {
      this.#assembly.intake.notStored();
      throw error;
    }
  }

  async #appendRecords(records: readonly BufferRecord[], hash: string | undefined): Promise<number> {
    const { buffer, whenFull } = this.#options;
    if (records.length === 0) return 0;
    if (buffer.refuses(records) || (whenFull === "pause" && !this.#fits(records)))
      throw busy("the buffer is full");
    const marked = [...records];
    if (hash !== undefined) {
      const mark = { source: this.#markName, value: this.#memory.accept(hash) };
      marked.push({ ...marked.pop()!, mark });
    }
    await buffer.append(marked);
    this.#assembly.meters.stored(marked.length);
    return marked.length;
  }

  #fits(records: readonly BufferRecord[]): boolean {
    const { waitingBytes, maxBytes } = this.#options.buffer.usage();
    const bytes = records.reduce((sum, { payload }) => sum + payload.length + RECORD_BYTES, 0);
    return waitingBytes + bytes <= maxBytes;
  }

  status(): SourceReport {
    return this.#assembly.report();
  }

  async close(): Promise<void> {
    await this.#assembly.close();
  }
}

/** Resolves when the system has taken it, or the client is gone. */
function answer(
  response: ServerResponse,
  status: number,
  body: object,
  headers: Readonly<Record<string, string>> = {},
): Promise<void> {
  return new Promise((resolve) => {
    if (response.destroyed || response.headersSent) return resolve();
    response.once("close", resolve);
    response
      .writeHead(status, { ...headers, "content-type": "application/json", "cache-control": "no-store" })
      .end(`${JSON.stringify(body)}\n`, () => resolve());
  });
}

/** RFC 8259 §8.1: JSON is UTF-8. @throws RequestRefusal */
function textOf(body: Buffer): string {
  try {
    return utf8.decode(body);
  } catch {
    throw new RequestRefusal(400, "not UTF-8");
  }
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function isLocalName(header: string | undefined, host: string): boolean {
  const name = (header ?? "").replace(/:\d+$/, "");
  return ["localhost", "127.0.0.1", "[::1]", host].includes(name);
}
