/**
 * How the commands of `headwater-gateway` reach the one that runs: HTTP over a socket file in the data
 * folder. Whoever may open that file, which is the gateway's own user and root alone, may do what it
 * offers; there is no key that could leak, and no port that others could find.
 *
 *   GET  /devices          → {devices}
 *   POST /devices/token    {device, seconds} → {token, expiresMs}
 *   POST /devices/revoke   {device} → {}
 *   POST /devices/give     {device, camera} → {}
 */
import { rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { DEVICE_NAME } from "../../protocol/topics.ts";
import { describeError, HeadwaterError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { Identity } from "../identity/identity.ts";
import type { Ingest } from "../ingest/ingest.ts";
import type { CameraOwners } from "../video/video.ts";
import { BodyBudget } from "./bodies/body-budget.ts";
import { ConsoleError, sendJson, sendRefusal } from "./console/console-reply.ts";
import { type Exchange, openExchange, withBody } from "./exchange.ts";

const MAX_BODY_BYTES = 4_096;
const MAX_TOKEN_SECONDS = 30 * 86_400;
/** unix(7): sun_path has 108 bytes, with a zero at the end. */
const MAX_PATH_BYTES = 107;

/** The data folder's path leaves no room for the socket's name. Nothing was started. */
export class ControlSocketError extends HeadwaterError {
  constructor(path: string, why: string, cause?: unknown) {
    super("CONTROL_SOCKET", {
      message: `${path} cannot be listened on: ${why}`,
      hint: "choose a dataDir with a shorter path, on a local file system",
      cause,
    });
  }
}

/** Where it is. */
export function controlSocketPath(dataDir: string): string {
  return join(dataDir, "control.sock");
}

export interface ControlSocketOptions {
  readonly dataDir: string;
  readonly identity: Identity;
  readonly ingest: Ingest;
  readonly cameras: CameraOwners;
  readonly log: Log;
}

export class ControlSocket {
  readonly #options: ControlSocketOptions;
  readonly #path: string;
  readonly #server: Server;
  readonly #budget = new BodyBudget(64 * MAX_BODY_BYTES);

  constructor(options: ControlSocketOptions) {
    this.#options = options;
    this.#path = controlSocketPath(options.dataDir);
    this.#server = createServer((request, reply) => void this.#handle(openExchange(request, reply)));
  }

  /** @throws ControlSocketError */
  async start(): Promise<void> {
    if (Buffer.byteLength(this.#path) > MAX_PATH_BYTES)
      throw new ControlSocketError(this.#path, "the path is too long");
    // Left by a gateway that was killed; the folder is ours alone, as its database is locked.
    await rm(this.#path, { force: true });
    await new Promise<void>((resolve, reject) => {
      const failed = (error: Error) => reject(new ControlSocketError(this.#path, error.message, error));
      this.#server.once("error", failed);
      // The folder is this user's alone already; so is the file from its first moment on, as `listen`
      // makes it before it returns.
      const before = process.umask(0o177);
      try {
        this.#server.listen(this.#path, () => {
          this.#server.off("error", failed);
          resolve();
        });
      } finally {
        process.umask(before);
      }
    });
  }

  /** Safe to call twice. */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  async #handle(exchange: Exchange): Promise<void> {
    try {
      sendJson(exchange, await this.#answer(exchange));
    } catch (error) {
      if (error instanceof ConsoleError) sendRefusal(exchange, error);
      else if (error instanceof HeadwaterError)
        sendRefusal(exchange, new ConsoleError(400, error.code, error.message, error.hint));
      else {
        this.#options.log.error({ error: describeError(error) }, "a command failed");
        sendRefusal(exchange, new ConsoleError(500, "INTERNAL", "the gateway failed; its log says how"));
      }
    }
  }

  async #answer(exchange: Exchange): Promise<unknown> {
    const { identity } = this.#options;
    const { method, path } = exchange;
    if (method === "GET" && path === "/devices") return { devices: this.#devices() };
    const asked = await withBody(exchange, MAX_BODY_BYTES, this.#budget, async (body) => fieldsOf(body));
    if (method !== "POST") throw new ConsoleError(405, "METHOD_NOT_ALLOWED", "use POST");
    if (path === "/devices/revoke") {
      await identity.revoke(asked.device);
      return {};
    }
    if (path === "/devices/give") {
      if (asked.camera === undefined) throw new ConsoleError(400, "BAD_REQUEST", "which camera?");
      await this.#options.cameras.giveCamera(asked.camera, asked.device);
      return {};
    }
    if (path !== "/devices/token") throw new ConsoleError(404, "NOT_FOUND", "there is nothing here");
    if (!(asked.seconds >= 1 && asked.seconds <= MAX_TOKEN_SECONDS))
      throw new ConsoleError(400, "BAD_REQUEST", `a token lives 1 to ${MAX_TOKEN_SECONDS} seconds`);
    const lifeMs = asked.seconds * 1_000;
    const expiresMs = identity.nowMs + lifeMs;
    return { token: await identity.makeToken(asked.device, lifeMs), expiresMs };
  }

  /** Those that joined, and whether they are here now. */
  #devices(): object[] {
    const seen = new Map(this.#options.ingest.devices().map((status) => [status.device, status]));
    return this.#options.identity.devices().map((device) => {
      const status = seen.get(device.device);
      return { ...device, connected: status?.connected ?? false, lastSeenMs: status?.lastSeenMs ?? 0 };
    });
  }
}

interface Fields {
  readonly device: string;
  readonly camera: string | undefined;
  readonly seconds: number;
}

function fieldsOf(body: Buffer): Fields {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body.toString("utf8"));
  } catch {
    throw new ConsoleError(400, "NOT_JSON", "the body is not JSON");
  }
  const { device, camera, seconds } = (parsed ?? {}) as Record<string, unknown>;
  if (typeof device !== "string" || !DEVICE_NAME.test(device))
    throw new ConsoleError(400, "BAD_REQUEST", "a device's name is 1 to 64 letters, digits, _, - or .");
  return {
    device,
    camera: typeof camera === "string" ? camera : undefined,
    seconds: typeof seconds === "number" ? seconds : Number.NaN,
  };
}
