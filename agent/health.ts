/**
 * What the agent shows of itself over HTTP, on a loopback address: a page at /, /status.json,
 * /metrics (Prometheus), /healthz. It changes nothing, so it has no sign-in.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { ConnectionPlaces } from "../runtime/connection-places.ts";
import { listenOn } from "../runtime/listen.ts";
import type { Metrics } from "../runtime/metrics.ts";
import type { AgentStatus } from "./status/agent-status.ts";

export type { AgentStatus } from "./status/agent-status.ts";

export interface HealthOptions {
  readonly host: string;
  readonly port: number;
  readonly metrics: Metrics;
  readonly status: () => AgentStatus;
}

interface Answer {
  readonly type: string;
  readonly body: string;
  /** 200 unless given. */
  readonly code?: number;
}

const MAX_CONNECTIONS = 100;
const LOOK_EVERY_MS = 5_000;

const HEADERS = {
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
};

export class HealthServer {
  readonly #options: HealthOptions;
  readonly #server: Server;

  constructor(options: HealthOptions) {
    this.#options = options;
    // Idle ones must not take the descriptors that the buffer needs, nor keep others out.
    const places = new ConnectionPlaces(MAX_CONNECTIONS, () => {});
    this.#server = createServer({ connectionsCheckingInterval: LOOK_EVERY_MS }, (request, response) => {
      places.release(request.socket);
      this.#answer(request, response).catch((error: unknown) => {
        response.writeHead(500).end(error instanceof Error ? error.message : "failed");
      });
    });
    this.#server.requestTimeout = 10_000;
    this.#server.on("connection", (socket) => places.admit(socket));
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
    const { code = 200, type, body } = await this.#content((request.url ?? "/").replace(/\?.*$/s, ""));
    response.writeHead(code, { ...HEADERS, "content-type": type }).end(body);
  }

  async #content(path: string): Promise<Answer> {
    const { metrics, status } = this.#options;
    switch (path) {
      case "/metrics":
        return { type: metrics.contentType, body: await metrics.render() };
      case "/status.json":
      case "/status":
        return json(status());
      case "/healthz": {
        const { state, reasons, warnings } = status().health;
        const failing = state === "failing";
        return json({ status: failing ? "failing" : "ok", reasons, warnings }, failing ? 503 : 200);
      }
      // The page is loaded when somebody looks at it: most agents are never looked at.
      case "/presentation.json":
        return json((await import("./status/presentation.ts")).present(status()));
      case "/":
        return { type: "text/html; charset=utf-8", body: (await import("./status/page.ts")).PAGE_HTML };
      case "/page.css":
        return { type: "text/css; charset=utf-8", body: (await import("./status/page.ts")).PAGE_CSS };
      case "/page.js":
        return { type: "text/javascript; charset=utf-8", body: (await import("./status/page.ts")).PAGE_JS };
      case "/icon.svg":
        return { type: "image/svg+xml", body: (await import("./status/page.ts")).ICON_SVG };
      default:
        return json({ error: "try /, /status.json, /metrics or /healthz" }, 404);
    }
  }

  /** A web page elsewhere whose name resolves to this machine must not read from us. Who names no host (HTTP/1.0, as many probes) is no browser. */
  #isOurHost(host = ""): boolean {
    const name = host.replace(/:\d+$/, "");
    return ["", "localhost", "127.0.0.1", "[::1]", this.#options.host].includes(name);
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }
}

function json(value: unknown, code = 200): Answer {
  return { code, type: "application/json", body: `${JSON.stringify(value)}\n` };
}
