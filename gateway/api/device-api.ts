/**
 * What devices ask over HTTPS: to join with a token, and from then on, with their certificates, what the
 * gateway knows of them and for the next certificate. protocol/joining.ts has the messages.
 *
 * What operators ask about devices comes by the control socket (control-socket.ts) instead.
 */
import type { TLSSocket } from "node:tls";
import {
  CERTIFICATE_PATH,
  type CertificateAnswer,
  JOIN_PATH,
  type JoinAnswer,
  MAX_JOIN_BYTES,
  parseJoinRequest,
  parseRenewal,
  STATUS_PATH,
  type StatusAnswer,
} from "../../protocol/joining.ts";
import { describeError, HeadwaterError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { Identity, SecurePeer } from "../identity/identity.ts";
import type { Ingest } from "../ingest/ingest.ts";
import type { Streams } from "../streams/streams.ts";
import { BodyBudget } from "./bodies/body-budget.ts";
import { ConsoleError, sendJson, sendRefusal } from "./console/console-reply.ts";
import { BodyCutOffError, BodyTooLargeError, type Exchange, withBody } from "./exchange.ts";

/** For those that join, and again for those that have joined: whoever may reach the port can fill the former. */
const BUDGET_BYTES = 1_048_576;
/** Enough to find one for the first record. */
const MAX_STREAMS = 100;
/** Codes of refusals, and the HTTP status that each is answered with. */
const STATUS_OF: Readonly<Record<string, number>> = {
  TOKEN_UNKNOWN: 403,
  TOKEN_EXPIRED: 403,
  TOKEN_USED: 403,
  SIGNING_REQUEST_REFUSED: 400,
  DEVICE_UNKNOWN: 403,
  CERTIFICATE_NOT_DUE: 409,
  RENEWALS_TOO_MANY: 429,
};

/** Under which a TLS socket carries what its certificate proved. */
const PEER = Symbol("peer");

export interface DeviceApiOptions {
  readonly identity: Identity;
  readonly ingest: Ingest;
  readonly streams: Streams;
  /** Where the other TLS ports are, once they are open. */
  readonly ports: () => { readonly mqtts: number; readonly rtsps: number };
  readonly log: Log;
}

export function rememberPeer(socket: TLSSocket, peer: SecurePeer | undefined): void {
  (socket as { [PEER]?: SecurePeer | undefined })[PEER] = peer;
}

function peerOf(exchange: Exchange): SecurePeer | undefined {
  return (exchange.request.socket as { [PEER]?: SecurePeer | undefined } | undefined)?.[PEER];
}

export function isDeviceCall({ path }: Exchange): boolean {
  return path.startsWith("/device/");
}

export class DeviceApi {
  readonly #options: DeviceApiOptions;
  readonly #joining = new BodyBudget(BUDGET_BYTES, true);
  readonly #renewing = new BodyBudget(BUDGET_BYTES, true);

  constructor(options: DeviceApiOptions) {
    this.#options = options;
  }

  /** Answers in every case; never rejects. */
  async handle(exchange: Exchange): Promise<void> {
    try {
      sendJson(exchange, await this.#answer(exchange));
    } catch (error) {
      if (error instanceof BodyCutOffError) exchange.reply.destroy();
      else sendRefusal(exchange, this.#refusalOf(error));
    }
  }

  #answer(exchange: Exchange): Promise<unknown> {
    // A token, and what is pinned by it, are worth nothing to whoever can listen.
    if ((exchange.request.socket as Partial<TLSSocket> | undefined)?.encrypted !== true)
      throw new ConsoleError(403, "TLS_NEEDED", "devices join over HTTPS alone", "use the TLS port");
    const { method, path } = exchange;
    if (path === JOIN_PATH && method === "POST")
      return withBody(exchange, MAX_JOIN_BYTES, this.#joining, (body) => this.#join(body));
    const peer = peerOf(exchange);
    if (peer === undefined)
      throw new ConsoleError(401, "CERTIFICATE_NEEDED", "this needs a device's certificate");
    if (path === STATUS_PATH && method === "GET") return Promise.resolve(this.#status(peer));
    if (path === CERTIFICATE_PATH && method === "POST")
      return withBody(exchange, MAX_JOIN_BYTES, this.#renewing, (body) => this.#renew(peer, body));
    throw new ConsoleError(404, "NOT_FOUND", "there is nothing here");
  }

  async #join(body: Buffer): Promise<JoinAnswer> {
    const { identity, streams, ports } = this.#options;
    const asked = parseJoinRequest(body);
    if (asked === undefined) throw new ConsoleError(400, "BAD_REQUEST", "this is no request to join");
    const joined = await identity.join(asked.secret, asked.request);
    return {
      ...joined,
      ca: identity.caPem,
      ports: ports(),
      streams: streams.listStreams().slice(0, MAX_STREAMS),
      nowMs: identity.nowMs,
    };
  }

  async #renew({ device, serial }: SecurePeer, body: Buffer): Promise<CertificateAnswer> {
    const { identity } = this.#options;
    const request = parseRenewal(body);
    if (request === undefined) throw new ConsoleError(400, "BAD_REQUEST", "this is no signing request");
    return { ...(await identity.renew(device, serial, request)), nowMs: identity.nowMs };
  }

  #status({ device, serial }: SecurePeer): StatusAnswer {
    const { identity, ingest } = this.#options;
    const { notAfterMs, isDue } = identity.certificate(device, serial);
    const records = ingest.devices().find((one) => one.device === device)?.records ?? 0;
    return { device, nowMs: identity.nowMs, notAfterMs, renew: isDue, records };
  }

  #refusalOf(error: unknown): ConsoleError {
    if (error instanceof ConsoleError) return error;
    if (error instanceof BodyTooLargeError) return new ConsoleError(413, error.code, error.message);
    if (error instanceof HeadwaterError)
      return new ConsoleError(STATUS_OF[error.code] ?? 503, error.code, error.message, error.hint);
    this.#options.log.error({ error: describeError(error) }, "a call of a device failed");
    return new ConsoleError(500, "INTERNAL", "the gateway failed; its log says how");
  }
}
