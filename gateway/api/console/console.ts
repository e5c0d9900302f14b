/**
 * The console's part of the API: its page, its JSON, its live sockets, and /metrics and /healthz.
 * Everything but the page and the ways to sign in needs a session.
 *
 *   request → Host and Origin → session → route
 */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { isLoopback } from "../../../config/fields.ts";
import type { AccessKeyConfig } from "../../../config/gateway-config.ts";
import { epochName } from "../../../protocol/frame.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { describeError } from "../../../runtime/errors.ts";
import type { Log } from "../../../runtime/log.ts";
import type { Metrics } from "../../../runtime/metrics.ts";
import { Turnstile } from "../../../runtime/turnstile.ts";
import { StreamNotFoundError } from "../../streams/streams.ts";
import { UnreadAnswers } from "../answers/unread-answers.ts";
import { BodyBudget, BusyError } from "../bodies/body-budget.ts";
import {
  BodyCutOffError,
  BodyTooLargeError,
  connectionOf,
  type Exchange,
  header,
  send,
  withBody,
} from "../exchange.ts";
import {
  ConsoleError,
  SECURITY_HEADERS,
  sendJson,
  sendJsonText,
  sendNothing,
  sendRefusal,
  toJson,
} from "./console-reply.ts";
import { LiveSockets } from "./live.ts";
import { MetricsPage } from "./metrics-page.ts";
import { newestRecords } from "./newest-records.ts";
import { RecentReadings } from "./recent-readings.ts";
import { arrivalOf, checkOrigin, hostName } from "./same-origin.ts";
import { type Session, Sessions } from "./sessions.ts";
import { ConsoleState, type GatewayParts, healthOf } from "./state.ts";
import { notFound, StaticFiles } from "./static-files.ts";

const MAX_BODY_BYTES = 65_536;
const BODY_BUDGET_BYTES = 8 * 1_048_576;
/** Large answers that their readers have not taken yet; a connection may ask for 128 fragments of 8 MiB. */
const UNREAD_ANSWER_BYTES = 128 * 1_048_576;
/** Fragments that are read from the disk at once. */
const FOOTAGE_READS = 4;
const CAMERA_NAME = /^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}$/;
const HOUR_US = 3_600_000_000;

export interface ConsoleOptions {
  readonly parts: GatewayParts;
  readonly accessKeys: readonly AccessKeyConfig[];
  readonly consoleDir: string;
  /** What the gateway is bound to; /metrics and /healthz are open only on loopback. */
  readonly host: string;
  readonly hostNames: readonly string[];
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Hears of connections by which somebody came who is signed in, or has a key. */
  readonly onKnown?: (connection: object, accessKeyId: string) => void;
}

export class ConsoleApi {
  readonly sessions: Sessions;
  readonly #options: ConsoleOptions;
  readonly #files: StaticFiles;
  readonly #state: ConsoleState;
  readonly #readings: RecentReadings;
  readonly #live: LiveSockets;
  readonly #metrics: MetricsPage;
  readonly #budget = new BodyBudget(BODY_BUDGET_BYTES, true);
  readonly #unread = new UnreadAnswers(UNREAD_ANSWER_BYTES);
  readonly #footage = new Turnstile(FOOTAGE_READS);

  constructor(options: ConsoleOptions) {
    this.#options = options;
    this.sessions = new Sessions(options.accessKeys, options.clock);
    this.#files = new StaticFiles(options.consoleDir);
    this.#state = new ConsoleState(options.parts, options.clock);
    this.#readings = new RecentReadings(options.parts.streams, options.clock);
    this.#live = new LiveSockets(this.#readings, options.parts.video, options.parts.previews);
    this.#metrics = new MetricsPage(options.metrics, options.clock);
  }

  /** Answers in every case; never rejects. */
  async handle(exchange: Exchange): Promise<void> {
    try {
      const { host, localAddress } = exchange;
      const origin = exchange.request.headers.origin as string | undefined;
      checkOrigin({ host, origin, localAddress }, this.#options.hostNames);
      await this.#route(exchange);
    } catch (error) {
      if (error instanceof BodyCutOffError) exchange.reply.destroy();
      else sendRefusal(exchange, this.#refusalOf(error, exchange.path));
    }
  }

  /** Takes a websocket, or answers why not; never throws. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on("error", () => socket.destroy());
    try {
      checkOrigin(arrivalOf(request), this.#options.hostNames);
      const cookie = request.headers.cookie;
      const { accessKeyId } = this.#signedIn(cookie);
      if (this.#live.full) throw new ConsoleError(503, "TOO_MANY_SOCKETS", "too many live views are open");
      const url = new URL(request.url ?? "/", "http://localhost");
      const admission = { stillSignedIn: () => this.sessions.find(cookie) !== undefined };
      const camera = /^\/api\/live\/(camera|preview)\/([^/]{1,400})$/.exec(url.pathname);
      if (url.pathname === "/api/live/readings") {
        const of = { stream: required(url.searchParams, "stream"), key: required(url.searchParams, "key") };
        this.#options.parts.streams.describe(of.stream);
        this.#live.readings(request, socket, head, admission, of);
      } else if (camera !== null) {
        const name = safeName(camera[2]!);
        if (camera[1] === "camera") this.#live.camera(request, socket, head, admission, name);
        else this.#live.preview(request, socket, head, admission, name);
      } else throw notFound();
      this.#options.onKnown?.(socket, accessKeyId);
    } catch (error) {
      const { status, code } = this.#refusalOf(error, "websocket");
      const body = JSON.stringify({ error: { code } });
      socket.end(
        `HTTP/1.1 ${status} Refused\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
      );
    }
  }

  close(): void {
    this.#live.close();
    this.#readings.close();
  }

  async #route(exchange: Exchange): Promise<void> {
    const { path, method } = exchange;
    if (path === "/healthz" || path === "/metrics") return this.#operate(exchange);
    if (path === "/open") return this.#openLink(exchange);
    if (path === "/api/session") return this.#session(exchange);
    if (!path.startsWith("/api/")) return this.#files.serve(exchange);
    const { accessKeyId } = this.#signedIn(header(exchange, "cookie"));
    this.#isKnown(exchange, accessKeyId);
    if (method !== "GET" && method !== "HEAD") throw methodNotAllowed("GET, HEAD");
    const query = new URLSearchParams(exchange.query);
    const answer = await this.#read(path, query);
    if (answer !== undefined) {
      const json = toJson(answer);
      this.#unread.hold(exchange.reply, json.length, accessKeyId);
      return sendJsonText(exchange, json);
    }
    const footage = /^\/api\/footage\/([^/]{1,400})\/([^/]{1,400})\.mp4$/.exec(path);
    if (footage === null) throw notFound();
    await this.#sendFootage(exchange, accessKeyId, safeName(footage[1]!), safeName(footage[2]!));
  }

  /** Undefined when no JSON stands at that path. */
  async #read(path: string, query: URLSearchParams): Promise<unknown> {
    const { streams, analytics, video } = this.#options.parts;
    switch (path) {
      case "/api/state":
        return this.#state.read();
      case "/api/sensors":
        return this.#readings.sensors(required(query, "stream"));
      case "/api/readings": {
        const seconds = numberOf(query, "seconds", 300, 1, 86_400);
        return this.#readings.readings(required(query, "stream"), required(query, "key"), seconds);
      }
      case "/api/windows": {
        const name = required(query, "statement");
        const statement = analytics.status().find((candidate) => candidate.name === name);
        if (statement === undefined)
          throw new ConsoleError(404, "STATEMENT_NOT_FOUND", "there is no such statement");
        return newestRecords(streams, statement.output, numberOf(query, "limit", 50, 1, 1_000));
      }
      case "/api/footage": {
        const nowUs = this.#options.clock.nowUs();
        const max = Number.MAX_SAFE_INTEGER;
        const toUs = numberOf(query, "toUs", nowUs + 60_000_000, 0, max);
        const fromUs = numberOf(query, "fromUs", Math.max(0, toUs - HOUR_US), 0, max);
        const camera = safeName(encodeURIComponent(required(query, "camera")));
        const found = await video.fragments(camera, fromUs, toUs, numberOf(query, "limit", 100, 1, 1_000));
        return {
          fragments: found.map(({ id, epoch, sequence, producerUs, durationUs, bytes, state }) => ({
            id,
            epoch: epochName(epoch),
            sequence: String(sequence),
            producerUs,
            durationUs,
            bytes,
            state,
          })),
        };
      }
      default:
        return undefined;
    }
  }

  async #sendFootage(exchange: Exchange, accessKeyId: string, camera: string, id: string): Promise<void> {
    const { video } = this.#options.parts;
    const bytes = await this.#footage.run(1, () => video.readFragment(camera, id));
    if (bytes === undefined) throw notFound();
    this.#unread.hold(exchange.reply, bytes.length, accessKeyId);
    // A fragment never changes once it is whole, but a truncated one may be replaced.
    send(
      exchange,
      200,
      { ...SECURITY_HEADERS, "content-type": "video/mp4", "cache-control": "private, no-cache" },
      bytes,
    );
  }

  async #session(exchange: Exchange): Promise<void> {
    const cookie = header(exchange, "cookie");
    switch (exchange.method) {
      case "GET":
        return sendJson(exchange, { accessKeyId: this.#signedIn(cookie).accessKeyId });
      case "DELETE":
        return sendNothing(exchange, { "set-cookie": this.sessions.signOut(cookie) });
      case "POST": {
        // A form of another site can send text, but not this type, without asking first.
        if (!/^application\/json\b/i.test(header(exchange, "content-type")))
          throw new ConsoleError(415, "NOT_JSON", "send application/json");
        const made = await withBody(exchange, MAX_BODY_BYTES, this.#budget, async (body) => {
          const { accessKeyId, secretAccessKey } = credentialsOf(body);
          const cookie = this.sessions.signIn(accessKeyId, secretAccessKey, exchange.remoteAddress);
          this.#isKnown(exchange, accessKeyId);
          return cookie;
        });
        return sendNothing(exchange, { "set-cookie": forThisWay(exchange, made) });
      }
      default:
        throw methodNotAllowed("GET, POST, DELETE");
    }
  }

  #openLink(exchange: Exchange): void {
    // A HEAD, as chat programs send it for a preview, must not use the link up.
    if (exchange.method !== "GET") throw methodNotAllowed("GET");
    const token = new URLSearchParams(exchange.query).get("token") ?? "";
    const made = this.sessions.redeemLink(token);
    send(exchange, 303, {
      ...SECURITY_HEADERS,
      "cache-control": "no-store",
      location: made === undefined ? "/#link-expired" : "/",
      ...(made !== undefined && { "set-cookie": forThisWay(exchange, made) }),
    });
  }

  async #operate(exchange: Exchange): Promise<void> {
    if (exchange.method !== "GET" && exchange.method !== "HEAD") throw methodNotAllowed("GET, HEAD");
    this.#mayOperate(exchange);
    if (exchange.path === "/healthz") {
      const health = healthOf(this.#options.parts);
      return sendJson(exchange, health, health.status === "ok" ? 200 : 503);
    }
    const { contentType } = this.#metrics;
    const headers = { ...SECURITY_HEADERS, "content-type": contentType, "cache-control": "no-store" };
    send(exchange, 200, headers, await this.#metrics.text());
  }

  /** On loopback anybody on this machine may; elsewhere a session or HTTP Basic with an access key is needed. */
  #mayOperate(exchange: Exchange): void {
    // The TLS port may be bound beyond it.
    if (isLoopback(this.#options.host) && isLoopback(exchange.remoteAddress)) {
      // A proxy on this machine, which has another name, brings others; it may want to know whether we are well.
      if (exchange.path === "/healthz" || isLoopback(hostName(exchange.host) ?? "")) return;
    }
    if (this.sessions.find(header(exchange, "cookie")) !== undefined) return;
    const basic = /^Basic ([A-Za-z0-9+/=]{1,1024})$/i.exec(header(exchange, "authorization"));
    if (basic === null) {
      throw new ConsoleError(
        401,
        "NOT_SIGNED_IN",
        "sign in, or send an access key by HTTP Basic",
        undefined,
        {
          "www-authenticate": 'Basic realm="headwater", charset="UTF-8"',
        },
      );
    }
    const text = Buffer.from(basic[1]!, "base64").toString("utf8");
    const colon = text.indexOf(":");
    const { remoteAddress } = exchange;
    const { id } = this.sessions.authenticate(text.slice(0, colon), text.slice(colon + 1), remoteAddress);
    this.#isKnown(exchange, id);
  }

  #isKnown(exchange: Exchange, accessKeyId: string): void {
    this.#options.onKnown?.(connectionOf(exchange), accessKeyId);
  }

  #signedIn(cookie: string | undefined): Session {
    const session = this.sessions.find(cookie);
    if (session === undefined) throw new ConsoleError(401, "NOT_SIGNED_IN", "sign in first");
    return session;
  }

  #refusalOf(error: unknown, path: string): ConsoleError {
    if (error instanceof ConsoleError) return error;
    if (error instanceof StreamNotFoundError)
      return new ConsoleError(404, error.code, error.message, error.hint);
    if (error instanceof BodyTooLargeError) return new ConsoleError(413, error.code, error.message);
    if (error instanceof BusyError) return new ConsoleError(503, error.code, error.message);
    this.#options.log.error({ path, error: describeError(error) }, "a call of the console failed");
    return new ConsoleError(500, "INTERNAL", "the gateway failed; its log says how");
  }
}

function credentialsOf(body: Buffer): { accessKeyId: string; secretAccessKey: string } {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body.toString("utf8"));
  } catch {
    throw new ConsoleError(400, "NOT_JSON", "the body is not JSON");
  }
  const { accessKeyId, secretAccessKey } = (parsed ?? {}) as Record<string, unknown>;
  if (typeof accessKeyId !== "string" || typeof secretAccessKey !== "string")
    throw new ConsoleError(400, "BAD_REQUEST", "accessKeyId and secretAccessKey are needed");
  return { accessKeyId, secretAccessKey };
}

/** A cookie that came over TLS never leaves by the plain port: RFC 6265 §4.1.2.5. */
function forThisWay(exchange: Exchange, cookie: string): string {
  const { socket } = exchange.request;
  return (socket as { encrypted?: boolean } | undefined)?.encrypted === true ? `${cookie}; Secure` : cookie;
}

function methodNotAllowed(allow: string): ConsoleError {
  return new ConsoleError(405, "METHOD_NOT_ALLOWED", `use ${allow}`, undefined, { allow });
}

function required(query: URLSearchParams, name: string): string {
  const value = query.get(name);
  if (value !== null && value !== "" && value.length <= 1_024) return value;
  throw new ConsoleError(400, "BAD_REQUEST", `${name} is missing or too long`);
}

function numberOf(query: URLSearchParams, name: string, fallback: number, min: number, max: number): number {
  const text = query.get(name);
  if (text === null || text === "") return fallback;
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new ConsoleError(400, "BAD_REQUEST", `${name} is a whole number from ${min} to ${max}`);
}

/** A name out of a path, decoded; one that could mean another folder is no name. */
function safeName(encoded: string): string {
  let name = "";
  try {
    name = decodeURIComponent(encoded);
  } catch {
    // Falls through: what cannot be decoded is no name either.
  }
  if (!CAMERA_NAME.test(name)) throw notFound();
  return name;
}
