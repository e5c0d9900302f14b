/**
 * What the agent shows of itself over HTTP, on a loopback address: /metrics (Prometheus), /healthz,
 * /status (JSON). It changes nothing.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { StatusMessage } from "../protocol/topics.ts";
import { listenOn } from "../runtime/listen.ts";
import type { Metrics } from "../runtime/metrics.ts";

export interface HealthOptions {
  readonly host: string;
  readonly port: number;
  readonly metrics: Metrics;
  readonly status: () => AgentStatus;
}

export interface AgentStatus extends StatusMessage {
  readonly device: string;
  readonly uplinkConnected: boolean;
  /** What makes the agent unfit to go on; empty when nothing does. */
  readonly faults: readonly string[];
}

export class HealthServer {
  readonly #options: HealthOptions;
  readonly #server: Server;

  constructor(options: HealthOptions) {
    this.#options = options;
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error: unknown) => {
        response.writeHead(500).end(error instanceof Error ? error.message : "failed");
      });
    });
    this.#server.requestTimeout = 10_000;
    this.#server.maxConnections = 100;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo | null)?.port ?? 0;
  }

  /** @throws PortBusyError, PortUnusableError */
  async start(): Promise<void> {
    const { host, port } = this.#options;
    await listenOn(this.#server, host, port);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (!this.#isOurHost(request.headers.host)) {
      response.writeHead(403).end("ask by the address that this server is bound to\n");
      return;
    }
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.writeHead(405, { allow: "GET, HEAD" }).end();
      return;
    }
    const path = new URL(request.url ?? "/", "http://localhost").pathname;
    const headers = { "cache-control": "no-store", "x-content-type-options": "nosniff" };
    if (path === "/metrics") {
      const text = await this.#options.metrics.render();
      response.writeHead(200, { ...headers, "content-type": this.#options.metrics.contentType }).end(text);
      return;
    }
    const status = this.#options.status();
    const json = { ...headers, "content-type": "application/json" };
    if (path === "/status" || path === "/") response.writeHead(200, json).end(`${JSON.stringify(status)}\n`);
    else if (path === "/healthz") {
      const healthy = status.faults.length === 0;
      const body = { status: healthy ? "ok" : "failing", faults: status.faults };
      response.writeHead(healthy ? 200 : 503, json).end(`${JSON.stringify(body)}\n`);
    } else response.writeHead(404, json).end('{"error":"try /status, /metrics or /healthz"}\n');
  }

  /** A web page elsewhere whose name resolves to this machine must not read from us. */
  #isOurHost(host = ""): boolean {
    const name = host.replace(/:\d+$/, "");
    return ["localhost", "127.0.0.1", "[::1]", this.#options.host].includes(name);
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }
}
