/**
 * An RTSP client over TCP with interleaved RTP: a reader (describe, setup, play) or a publisher
 * (announce, setup, record). Digest credentials never show in errors or logs.
 *
 *   const client = new RtspClient({ url, onRtp, onRtcp, onClose });
 *   await client.connect();
 *   const { description } = await client.describe();
 *   await client.setup("play");
 *   await client.play();
 */
import { connect, isIP, type Socket } from "node:net";
import { type ConnectionOptions, connect as connectSecurely } from "node:tls";
import { RtspAddressError, RtspConnectError, RtspStatusError, RtspTimeoutError } from "./client-errors.ts";
import { answerChallenge, type Credentials, type DigestChallenge, parseChallenge } from "./digest.ts";
import { InterleavedWriter } from "./interleaved-writer.ts";
import {
  formatRequest,
  formatResponse,
  type HeaderFields,
  type RtspMessage,
  RtspParser,
  type RtspResponse,
} from "./messages.ts";
import { controlUrl, parseSdp, type SessionDescription } from "./sdp.ts";
import { TrackChannels } from "./track-channels.ts";
import { formatClockRange, formatTransport, parseSession, parseTransport } from "./transport.ts";

export interface RtspClientOptions {
  /** rtsp://host[:port]/path, or rtsps:// over TLS; user and password in it count as credentials. */
  readonly url: string;
  readonly credentials?: Credentials;
  /** For rtsps://. */
  readonly tls?: ConnectionOptions | undefined;
  /** For the answer to any request; 10 s unless told. */
  readonly requestTimeoutMs?: number;
  /** The most that may wait in memory to be sent before sendRtp returns false; 1 MiB unless told. */
  readonly highWaterBytes?: number;
  onRtp?(track: number, rtp: Buffer): void;
  onRtcp?(track: number, bytes: Buffer): void;
  /** Whenever bytes come, whatever they are. */
  onHeard?(): void;
  /** Once: the connection ended. Undefined after close(). */
  onClose?(error: Error | undefined): void;
}

interface Pending {
  resolve(response: RtspResponse): void;
  reject(error: Error): void;
  readonly timer: NodeJS.Timeout;
}

/** RFC 7826 §20.5 registers it for RTSP over TLS. */
const RTSPS_PORT = 322;
const CONNECT_TIMEOUT_MS = 5_000;
const TEARDOWN_WAIT_MS = 1_000;
const USER_AGENT = "Headwater";

export class RtspClient {
  /** Without user and password; for logs. */
  readonly url: string;
  readonly #options: RtspClientOptions;
  readonly #host: string;
  readonly #port: number;
  readonly #isSecure: boolean;
  readonly #credentials: Credentials | undefined;
  readonly #requestTimeoutMs: number;
  readonly #pending = new Map<number, Pending>();
  readonly #channels = new TrackChannels();
  readonly #waitingForRoom = new Set<{ resolve(): void; reject(error: Error): void }>();
  #socket: Socket | undefined;
  #writer: InterleavedWriter | undefined;
  #sequence = 0;
  #challenge: DigestChallenge | undefined;
  #nonceCount = 0;
  #session: { readonly id: string; readonly timeoutSeconds: number } | undefined;
  #baseUrl: string;
  #description: SessionDescription | undefined;
  #keepAliveTimer: NodeJS.Timeout | undefined;
  #keepAliveMethod = "GET_PARAMETER";
  #closing = false;
  #ended: Error | undefined;

  /** @throws RtspAddressError */
  constructor(options: RtspClientOptions) {
    const match = /^rtsps?:\/\/(?:([^@/]*)@)?(\[[0-9a-f:.]+\]|[^:/?#@[\]]+)(?::(\d{1,5}))?([/?].*)?$/i.exec(
      options.url,
    );
    if (match === null || Number(match[3] ?? 554) > 65_535) throw new RtspAddressError();
    const [, user, host, port, rest] = match;
    this.#options = options;
    this.#host = host!.replace(/^\[|\]$/g, "");
    this.#isSecure = /^rtsps:/i.test(options.url);
    this.#port = Number(port ?? (this.#isSecure ? RTSPS_PORT : 554));
    this.#credentials = options.credentials ?? credentialsIn(user);
    this.#requestTimeoutMs = options.requestTimeoutMs ?? 10_000;
    this.url = `${this.#isSecure ? "rtsps" : "rtsp"}://${host}${port === undefined ? "" : `:${port}`}${rest ?? "/"}`;
    this.#baseUrl = this.url;
  }

  /** @throws RtspConnectError */
  connect(): Promise<void> {
    return new Promise((resolve, reject) => {
      const where = { host: this.#host, port: this.#port, noDelay: true };
      const name = isIP(this.#host) === 0 ? { servername: this.#host } : {};
      const socket = this.#isSecure
        ? connectSecurely({ ...this.#options.tls, ...where, ...name } as ConnectionOptions)
        : connect(where);
      this.#socket = socket;
      this.#writer = new InterleavedWriter(socket, this.#options.highWaterBytes ?? 1_048_576);
      const parser = new RtspParser((message) => this.#take(message));
      const timer = setTimeout(
        () => this.#end(new RtspConnectError(this.url, "no connection in time")),
        CONNECT_TIMEOUT_MS,
      );
      let connected = false;
      socket.once(this.#isSecure ? "secureConnect" : "connect", () => {
        connected = true;
        clearTimeout(timer);
        resolve();
      });
      socket.on("data", (chunk: Buffer) => {
        this.#options.onHeard?.();
        try {
          parser.push(chunk);
        } catch (error) {
          this.#end(error as Error);
        }
      });
      socket.on("error", (error) => this.#end(new RtspConnectError(this.url, error.message, error)));
      socket.on("close", () => {
        clearTimeout(timer);
        const error = this.#ended ?? new RtspConnectError(this.url, "the connection was closed");
        this.#end(error);
        if (!connected) reject(error);
        this.#options.onClose?.(this.#closing ? undefined : error);
      });
    });
  }

  /** @throws RtspStatusError, RtspTimeoutError, RtspConnectError, as all that follow */
  async options(): Promise<string[]> {
    const response = await this.#request("OPTIONS", this.#baseUrl, {});
    return (response.headers.get("public") ?? "").split(",").map((method) => method.trim());
  }

  async describe(): Promise<{ readonly sdp: string; readonly description: SessionDescription }> {
    const response = await this.#request("DESCRIBE", this.url, { Accept: "application/sdp" });
    const sdp = response.body.toString();
    const description = parseSdp(sdp);
    const { headers } = response;
    const base = headers.get("content-base") ?? headers.get("content-location") ?? this.url;
    // Cameras behind a port forwarding describe themselves with an address that is not ours; relative ones happen too.
    this.#baseUrl = controlUrl(
      /^rtsps?:\/\//i.test(base) ? withoutUser(base) : this.url,
      description.control,
    );
    this.#description = description;
    return { sdp, description };
  }

  async announce(sdp: string): Promise<void> {
    this.#description = parseSdp(sdp);
    await this.#request("ANNOUNCE", this.url, { "Content-Type": "application/sdp" }, sdp);
  }

  /** Sets up all tracks of the description, or those given. */
  async setup(mode: "play" | "record", tracks?: readonly number[]): Promise<void> {
    const media = this.#description?.media ?? [];
    for (const track of tracks ?? media.keys()) {
      const url = controlUrl(this.#baseUrl, media[track]?.control);
      const wanted = { rtp: track * 2, rtcp: track * 2 + 1 };
      const response = await this.#request("SETUP", url, { Transport: formatTransport(wanted, mode) });
      const pair = parseTransport(response.headers.get("transport") ?? "")?.channels ?? wanted;
      this.#channels.assign(track, pair);
    }
  }

  async play(): Promise<void> {
    await this.#request("PLAY", this.#baseUrl, { Range: "npt=0.000-" });
    this.#startKeepAlive();
  }

  /** @param clockUs producer time of the first packet, sent as `Range: clock=`; absent: now. */
  async record(clockUs?: number): Promise<void> {
    const range = clockUs === undefined ? "npt=0.000-" : formatClockRange(clockUs);
    await this.#request("RECORD", this.#baseUrl, { Range: range });
    this.#startKeepAlive();
  }

  /** Undefined when the server does not know the parameter (451). */
  async getParameter(name: string): Promise<string | undefined> {
    const headers = { "Content-Type": "text/parameters" };
    try {
      const response = await this.#request("GET_PARAMETER", this.#baseUrl, headers, `${name}\r\n`);
      for (const line of response.body.toString().split(/\r?\n/)) {
        const colon = line.indexOf(":");
        if (colon !== -1 && line.slice(0, colon).trim() === name) return line.slice(colon + 1).trim();
      }
      return undefined;
    } catch (error) {
      if (error instanceof RtspStatusError && error.status === 451) return undefined;
      throw error;
    }
  }

  /** An empty GET_PARAMETER, or OPTIONS where that is unknown. Sent by itself at half of the session's timeout. */
  async keepAlive(): Promise<void> {
    try {
      await this.#request(this.#keepAliveMethod, this.#baseUrl, {});
    } catch (error) {
      if (!(error instanceof RtspStatusError) || this.#keepAliveMethod === "OPTIONS") throw error;
      this.#keepAliveMethod = "OPTIONS";
      await this.#request("OPTIONS", this.#baseUrl, {});
    }
  }

  /** Never drops. @returns false when more than highWaterBytes wait: await drained() before the next. */
  sendRtp(track: number, rtp: Buffer): boolean {
    return this.#send(this.#channels.pairOf(track)?.rtp, rtp);
  }

  sendRtcp(track: number, bytes: Buffer): boolean {
    return this.#send(this.#channels.pairOf(track)?.rtcp, bytes);
  }

  /** Resolves when there is room again. @throws RtspConnectError when the connection ends first. */
  drained(): Promise<void> {
    const writer = this.#writer;
    if (this.#ended !== undefined || writer === undefined)
      return Promise.reject(this.#ended ?? this.#unconnected());
    return new Promise((resolve, reject) => {
      const waiter = { resolve, reject };
      this.#waitingForRoom.add(waiter);
      writer.whenDrained(() => {
        this.#waitingForRoom.delete(waiter);
        resolve();
      });
    });
  }

  /** For those who ask the system about it; undefined before connect(). */
  get socket(): Socket | undefined {
    return this.#socket;
  }

  backlogBytes(): number {
    return this.#writer?.backlogBytes ?? 0;
  }

  /** TEARDOWN, as far as the server still answers, then the socket is closed. Safe to call twice. */
  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    clearTimeout(this.#keepAliveTimer);
    if (this.#session !== undefined && this.#ended === undefined) {
      await this.#request("TEARDOWN", this.#baseUrl, {}, "", TEARDOWN_WAIT_MS).catch(() => undefined);
    }
    this.#end(new RtspConnectError(this.url, "closed"));
  }

  #unconnected(): Error {
    return new RtspConnectError(this.url, "not connected");
  }

  #send(channel: number | undefined, bytes: Buffer): boolean {
    if (this.#writer === undefined || channel === undefined || this.#ended !== undefined) return false;
    this.#writer.write(channel, bytes);
    return !this.#writer.full;
  }

  #end(error: Error): void {
    this.#ended ??= error;
    clearTimeout(this.#keepAliveTimer);
    this.#socket?.destroy();
    for (const { timer, reject } of this.#pending.values()) {
      clearTimeout(timer);
      reject(this.#ended);
    }
    this.#pending.clear();
    for (const { reject } of this.#waitingForRoom) reject(this.#ended);
    this.#waitingForRoom.clear();
  }

  #take(message: RtspMessage): void {
    if (message.kind === "frame") {
      const channel = this.#channels.useOf(message.channel);
      if (channel === undefined) return;
      if (channel.isRtcp) this.#options.onRtcp?.(channel.track, message.payload);
      else this.#options.onRtp?.(channel.track, message.payload);
    } else if (message.kind === "response") {
      const sequence = Number(message.headers.get("cseq"));
      const pending = this.#pending.get(sequence);
      if (pending === undefined) return;
      this.#pending.delete(sequence);
      clearTimeout(pending.timer);
      pending.resolve(message);
    } else {
      // RFC 2326 §10: a server may ask as well; OPTIONS and GET_PARAMETER are its ways to see whether we live.
      const known = message.method === "OPTIONS" || message.method === "GET_PARAMETER";
      const headers = { CSeq: message.headers.get("cseq") };
      this.#socket?.write(formatResponse(known ? 200 : 501, known ? "OK" : "Not Implemented", headers, ""));
    }
  }

  async #request(
    method: string,
    url: string,
    headers: HeaderFields,
    body = "",
    timeoutMs = this.#requestTimeoutMs,
  ): Promise<RtspResponse> {
    let response = await this.#ask(method, url, headers, body, timeoutMs);
    if (response.status === 401 && this.#credentials !== undefined) {
      const challenge = parseChallenge(response.headers.get("www-authenticate") ?? "");
      // The same challenge again, and not because it grew old, means that the password is wrong.
      if (challenge !== undefined && (challenge.stale || challenge.nonce !== this.#challenge?.nonce)) {
        this.#challenge = challenge;
        this.#nonceCount = 0;
        response = await this.#ask(method, url, headers, body, timeoutMs);
      }
    }
    if (response.status !== 200)
      throw new RtspStatusError(this.url, method, response.status, response.reason);
    const session = response.headers.get("session");
    if (session !== undefined) this.#session = parseSession(session);
    return response;
  }

  #ask(
    method: string,
    url: string,
    headers: HeaderFields,
    body: string,
    timeoutMs: number,
  ): Promise<RtspResponse> {
    const socket = this.#socket;
    if (this.#ended !== undefined || socket === undefined)
      return Promise.reject(this.#ended ?? this.#unconnected());
    const sequence = ++this.#sequence;
    const authorization =
      this.#challenge === undefined || this.#credentials === undefined
        ? undefined
        : answerChallenge(this.#challenge, this.#credentials, method, url, ++this.#nonceCount);
    const fields = {
      CSeq: String(sequence),
      "User-Agent": USER_AGENT,
      Session: this.#session?.id,
      Authorization: authorization,
      ...headers,
    };
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#end(new RtspTimeoutError(this.url, method, timeoutMs)), timeoutMs);
      this.#pending.set(sequence, { resolve, reject, timer });
      socket.write(formatRequest(method, url, fields, body));
    });
  }

  #startKeepAlive(): void {
    clearTimeout(this.#keepAliveTimer);
    const waitMs = Math.min((this.#session?.timeoutSeconds ?? 60) * 500, 30_000);
    this.#keepAliveTimer = setTimeout(() => {
      this.keepAlive().then(
        () => this.#startKeepAlive(),
        (error: Error) => this.#end(error),
      );
    }, waitMs);
  }
}

function credentialsIn(user: string | undefined): Credentials | undefined {
  if (user === undefined) return undefined;
  const colon = user.indexOf(":");
  const [name, password] = colon === -1 ? [user, ""] : [user.slice(0, colon), user.slice(colon + 1)];
  try {
    return { username: decodeURIComponent(name), password: decodeURIComponent(password) };
  } catch {
    throw new RtspAddressError();
  }
}

/** Some cameras send the user and password of the address back in Content-Base. */
function withoutUser(url: string): string {
  return url.replace(/^(rtsps?:\/\/)[^@/]*@/i, "$1");
}
