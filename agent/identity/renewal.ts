/**
 * Keeps this device's certificate alive: asks the gateway now and then whether it is time, which the
 * gateway tells by its own clock, and then has a new key certified over a connection that the old
 * certificate proves.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import {
  CERTIFICATE_PATH,
  type CertificateAnswer,
  JOIN_VERSION,
  STATUS_PATH,
  type StatusAnswer,
} from "../../protocol/joining.ts";
import { pause } from "../../runtime/backoff.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { Credentials } from "./credentials.ts";
import type { GatewayAddress } from "./gateway-address.ts";
import { callGateway, GatewayUnreachableError } from "./gateway-call.ts";
import { makeKey, makeSigningRequest } from "./signing-request.ts";

const MAX_WAIT_MS = 6 * 3_600_000;
const MIN_WAIT_MS = 200;
/** Of what is left of the certificate's life, so that many tries are left when it is due. */
const WAITS_IN_LIFE = 24;
/** After a failure, twice as long after each further one: a device may be online for a minute a day. */
const FIRST_RETRY_MS = 2_000;
const MAX_RETRY_MS = 600_000;

export interface RenewalOptions {
  readonly address: GatewayAddress;
  readonly credentials: Credentials;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly random?: () => number;
}

export class Renewal {
  readonly #options: RenewalOptions;
  readonly #closing = new AbortController();
  readonly #renewals;
  #running: Promise<void> | undefined;
  #notAfterMs = 0;

  constructor(options: RenewalOptions) {
    this.#options = options;
    const { metrics } = options;
    this.#renewals = metrics.counter(
      "headwater_identity_renewals_total",
      "Certificates renewed, by outcome",
      ["outcome"],
    );
    const notAfterMs = (): number => this.#notAfterMs;
    metrics.gauge(
      "headwater_identity_certificate_end_seconds",
      "When this device's certificate ends, by the gateway's word; 0 until it is asked",
      [],
      function () {
        this.set(notAfterMs() / 1_000);
      },
    );
  }

  async start(): Promise<void> {
    this.#running ??= this.#run();
  }

  /** Safe to call twice. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }

  /** Renews when it is due. @returns how long to wait before asking again */
  async renewIfDue(): Promise<number> {
    const { address, credentials } = this.#options;
    const trust = { tls: credentials.tls(), signal: this.#closing.signal };
    const status = (await callGateway(address, trust, "GET", STATUS_PATH)) as StatusAnswer;
    if (![status?.notAfterMs, status?.nowMs].every(Number.isFinite)) throw this.#noGateway();
    this.#notAfterMs = status.notAfterMs;
    const leftMs = Math.max(0, status.notAfterMs - status.nowMs);
    if (!status.renew) return Math.min(MAX_WAIT_MS, Math.max(MIN_WAIT_MS, leftMs / WAITS_IN_LIFE));
    const { device, ca } = credentials.identity;
    const key = makeKey();
    const answer = (await callGateway(address, trust, "POST", CERTIFICATE_PATH, {
      version: JOIN_VERSION,
      request: makeSigningRequest(key, device).toString("base64"),
    })) as CertificateAnswer;
    // What proves nothing must not take the place of what does: nobody would let this device in any more.
    const isSound = isCertificateOf(answer?.certificate, key) && Number.isFinite(answer.notAfterMs);
    if (!isSound) throw this.#noGateway();
    // Until here the old one counts; the gateway takes both until the new one is renewed in turn.
    await credentials.replace({ device, key, certificate: answer.certificate, ca });
    this.#notAfterMs = answer.notAfterMs;
    this.#renewals.inc({ outcome: "renewed" });
    this.#options.log.info({ until: new Date(answer.notAfterMs).toISOString() }, "certificate renewed");
    return MIN_WAIT_MS;
  }

  #noGateway(): GatewayUnreachableError {
    return new GatewayUnreachableError(this.#options.address.host, "it answers as no gateway does");
  }

  async #run(): Promise<void> {
    const { log, random = Math.random } = this.#options;
    const { signal } = this.#closing;
    let retryMs = FIRST_RETRY_MS;
    while (!signal.aborted) {
      let waitMs: number;
      try {
        waitMs = await this.renewIfDue();
        retryMs = FIRST_RETRY_MS;
      } catch (error) {
        if (signal.aborted) return;
        this.#renewals.inc({ outcome: "failed" });
        waitMs = retryMs;
        retryMs = Math.min(MAX_RETRY_MS, 2 * retryMs);
        log.warn(
          { error: describeError(error) },
          "the gateway could not be asked about this device's certificate",
        );
      }
      // So that devices that were started together do not ask together.
      await pause(waitMs * (0.75 + random() / 2), signal);
    }
  }
}

function isCertificateOf(certificate: unknown, key: string): boolean {
  try {
    return new X509Certificate(String(certificate)).checkPrivateKey(createPrivateKey(key));
  } catch {
    return false;
  }
}
