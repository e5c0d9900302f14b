/**
 * The gateway's HTTP port: AWS's protocols for programs, JSON and live sockets for the console, and
 * /metrics and /healthz for whoever operates it. It holds nothing that must survive a restart.
 *
 *   port ─HTTP/1.1, h2c→ front door ─X-Amz-Target→ kinesis ─→ streams
 *                                   ├─/device/────→ device-api → identity
 *                                   └─────────────→ console → all faces
 */
import type { TLSSocket } from "node:tls";
import type { AccessKeyConfig } from "../../config/gateway-config.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import { SparingLog } from "../../runtime/sparing-log.ts";
import type { Analytics } from "../analytics/analytics.ts";
import type { Delivery } from "../delivery/delivery.ts";
import type { SecurePeer } from "../identity/identity.ts";
import type { Ingest } from "../ingest/ingest.ts";
import type { Streams } from "../streams/streams.ts";
import type { CameraPreviews, Video } from "../video/video.ts";
import { ConsoleApi } from "./console/console.ts";
import { DeviceApi, type DeviceApiOptions, isDeviceCall, rememberPeer } from "./device-api.ts";
import { FrontDoor } from "./door/front-door.ts";
import { type Exchange, openExchange } from "./exchange.ts";
import { KinesisApi } from "./kinesis/kinesis.ts";

export interface ApiOptions {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Who may call; at least one. */
  readonly accessKeys: readonly AccessKeyConfig[];
  readonly streams: Streams;
  readonly ingest: Ingest;
  readonly delivery: Delivery;
  readonly analytics: Analytics;
  readonly video: Video;
  readonly previews: CameraPreviews;
  /** The folder with the console's page. */
  readonly consoleDir: string;
  /** Names beside the bound address and localhost under which browsers may call. */
  readonly hostNames?: readonly string[];
  /** 2,048 unless given. */
  readonly maxConnections?: number;
  /** Who joins, and how; absent where there is no TLS. */
  readonly joining?: Pick<DeviceApiOptions, "identity" | "ports"> | undefined;
}

export class Api {
  readonly #door: FrontDoor;
  readonly #kinesis: KinesisApi;
  readonly #console: ConsoleApi;
  readonly #devices: DeviceApi | undefined;

  constructor(options: ApiOptions) {
    const { host, port, clock, log, metrics, accessKeys, streams } = options;
    this.#kinesis = new KinesisApi({ streams, accessKeys, clock, log, metrics });
    this.#console = new ConsoleApi({
      parts: options,
      accessKeys,
      consoleDir: options.consoleDir,
      host,
      hostNames: (options.hostNames ?? []).map((name) => name.toLowerCase()),
      clock,
      log,
      metrics,
      onKnown: (connection, keyId) => void this.#kinesis.budget.prove(connection, keyId),
    });
    const { joining } = options;
    this.#devices = joining && new DeviceApi({ ...joining, streams, ingest: options.ingest, log });
    const full = metrics.counter(
      "headwater_api_connections_ended_total",
      "Connections of the HTTP port that were ended because there were too many, or too many requests on them, by whose",
      ["whose"],
    );
    const sparing = new SparingLog(log);
    this.#door = new FrontDoor(
      host,
      port,
      (request, reply) => {
        // What a client does to its connection meanwhile is seen when we write.
        reply.on("error", () => {});
        const exchange = openExchange(request, reply);
        if (isAwsCall(exchange)) this.#kinesis.handle(exchange);
        else if (this.#devices !== undefined && isDeviceCall(exchange)) void this.#devices.handle(exchange);
        else void this.#console.handle(exchange);
      },
      (request, socket, head) => this.#console.upgrade(request, socket, head),
      { service: this.#kinesis, clock },
      (whose) => {
        full.inc({ whose });
        sparing.warn(clock.nowUs(), { whose }, "connection of the HTTP port ended: there are too many");
      },
      options.maxConnections,
    );
    const door = this.#door;
    metrics.gauge("headwater_api_connections", "Open connections of the HTTP port", [], function () {
      this.set(door.connections);
    });
  }

  /** @throws PortBusyError, PortUnusableError */
  start(): Promise<void> {
    return this.#door.start();
  }

  /** Answers what has begun, for at most two seconds; live sockets are closed at once. Safe to call twice. */
  async close(): Promise<void> {
    this.#console.close();
    this.#kinesis.close();
    await this.#door.close();
  }

  /** A connection of the TLS port; whoever is behind it is not let in by that alone. */
  adopt(socket: TLSSocket, peer: SecurePeer | undefined): void {
    rememberPeer(socket, peer);
    this.#door.adopt(socket, peer?.device);
  }

  get address(): { host: string; port: number } {
    return this.#door.address;
  }

  /** For `/open?token=…`: signs its first user in at the console, once, within ten minutes. @throws NoConsoleKeyError */
  signInToken(): string {
    return this.#console.sessions.makeLinkToken();
  }
}

/** AWS calls name their operation in a header and go to `/`; the console posts only below `/api`. */
function isAwsCall(exchange: Exchange): boolean {
  const { headers } = exchange.request;
  if (headers["x-amz-target"] !== undefined || (exchange.method === "POST" && exchange.path === "/"))
    return true;
  return headers.authorization?.startsWith("AWS4-") ?? false;
}
