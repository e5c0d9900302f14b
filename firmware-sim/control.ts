/**
 * The simulator's HTTP door, for tests, demos and people with curl: what was sent so far, and faults
 * on request. It has no sign-in, so it opens on loopback only.
 *
 *   GET  /status        counters, as JSON
 *   POST /faults        {"fault": "unplug-board", …}
 *   POST /stop-sending  nothing new is made; what is unacknowledged is still delivered
 *   GET  /idle?seconds=60  answers when nothing is in flight any more, or 503 after that time
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { z } from "zod";
import { describeError, HeadwaterError } from "../runtime/errors.ts";
import { listenOn } from "../runtime/listen.ts";

const MAX_BODY_BYTES = 16_384;

const seconds = z.number().min(0.1).max(86_400).default(30);
const sensor = z.string().min(1).max(128);
const fault = z.discriminatedUnion("fault", [
  z.strictObject({ fault: z.literal("unplug-board") }),
  z.strictObject({ fault: z.literal("plug-board") }),
  z.strictObject({
    fault: z.literal("garbage-board"),
    bytes: z.number().int().min(1).max(65_536).default(256),
  }),
  z.strictObject({ fault: z.literal("silence-sensor"), sensor, seconds }),
  z.strictObject({ fault: z.literal("stall-camera") }),
  z.strictObject({ fault: z.literal("resume-camera") }),
]);
export type Fault = z.infer<typeof fault>;

/** What the door opens to. */
export interface Controlled {
  status(): object;
  /** @throws UnknownPartError */
  fault(fault: Fault): Promise<void>;
  stopSending(): void;
  /** False when `signal` aborted first. */
  idle(signal: AbortSignal): Promise<boolean>;
}

/** The fault is for a part that this simulator does not run. */
export class UnknownPartError extends HeadwaterError {
  constructor(part: string, hint: string) {
    super("SIM_UNKNOWN_PART", { message: `there is no ${part} here`, hint });
  }
}

class BadRequestError extends HeadwaterError {
  constructor(message: string) {
    super("SIM_BAD_REQUEST", { message, hint: "see the head of firmware-sim/control.ts" });
  }
}

export class ControlServer {
  readonly #host: string;
  readonly #port: number;
  readonly #controlled: Controlled;
  #server: Server | undefined;
  readonly #closing = new AbortController();

  constructor(options: { host: string; port: number; controlled: Controlled }) {
    this.#host = options.host;
    this.#port = options.port;
    this.#controlled = options.controlled;
  }

  /** Rejects when the port is taken. */
  async start(): Promise<void> {
    const server = createServer((request, response) => {
      this.#answer(request, response).catch((error: unknown) => reply(response, 500, errorBody(error)));
    });
    server.requestTimeout = 10_000;
    await listenOn(server, this.#host, this.#port);
    this.#server = server;
  }

  get port(): number {
    return (this.#server?.address() as AddressInfo | undefined)?.port ?? 0;
  }

  /** Safe to call twice. */
  async close(): Promise<void> {
    this.#closing.abort();
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    const closed = once(server, "close");
    server.close();
    server.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // A page in a browser must not be able to pull plugs: it cannot leave out its Origin on a POST.
    if (request.headers.origin !== undefined) return reply(response, 403, { error: "not for browsers" });
    const url = new URL(request.url ?? "/", "http://sim");
    const route = `${request.method} ${url.pathname}`;
    try {
      if (route === "GET /status") return reply(response, 200, this.#controlled.status());
      if (route === "GET /idle") return await this.#idle(url, response);
      if (route === "POST /stop-sending") {
        this.#controlled.stopSending();
        return reply(response, 200, this.#controlled.status());
      }
      if (route === "POST /faults") {
        await this.#controlled.fault(parseFault(await readBody(request)));
        return reply(response, 200, this.#controlled.status());
      }
    } catch (error) {
      if (error instanceof HeadwaterError) return reply(response, 400, errorBody(error));
      throw error;
    }
    reply(response, 404, { error: `there is no ${route}` });
  }

  async #idle(url: URL, response: ServerResponse): Promise<void> {
    const waitSeconds = Number(url.searchParams.get("seconds") ?? 60);
    if (!(waitSeconds >= 0 && waitSeconds <= 3_600)) throw new BadRequestError("seconds: 0 to 3600");
    const signal = AbortSignal.any([AbortSignal.timeout(waitSeconds * 1_000), this.#closing.signal]);
    const idle = await this.#controlled.idle(signal);
    reply(response, idle ? 200 : 503, this.#controlled.status());
  }
}

function parseFault(text: string): Fault {
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch {
    throw new BadRequestError("the body is no JSON");
  }
  const result = fault.safeParse(raw);
  if (result.success) return result.data;
  throw new BadRequestError(result.error.issues.map((i) => `${i.path.join(".")}: ${i.message}`).join("; "));
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) throw new BadRequestError(`the body is larger than ${MAX_BODY_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function errorBody(error: unknown): object {
  return { error: describeError(error) };
}

function reply(response: ServerResponse, status: number, body: object): void {
  if (response.headersSent) return;
  response.writeHead(status, { "content-type": "application/json", "cache-control": "no-store" });
  response.end(`${JSON.stringify(body)}\n`);
}
