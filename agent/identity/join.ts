/**
 * How a device joins a gateway:
 *
 *   key made here → token and signing request to the gateway whose CA the token names
 *     → certificate, kept → a first record, and the gateway's word that it came
 *
 * Each step may be cut off: the same command then goes on with the same key.
 */
import { createHash } from "node:crypto";
import {
  JOIN_PATH,
  JOIN_VERSION,
  type JoinAnswer,
  type JoinRequest,
  type JoinToken,
  STATUS_PATH,
  type StatusAnswer,
} from "../../protocol/joining.ts";
import type { Clock } from "../../runtime/clock.ts";
import { Credentials, pendingKey, tlsOptions } from "./credentials.ts";
import { sendFirstRecord } from "./first-record.ts";
import type { GatewayAddress } from "./gateway-address.ts";
import { callGateway, GatewayUnreachableError } from "./gateway-call.ts";
import { makeKey, makeSigningRequest } from "./signing-request.ts";

/** Less than that is what clocks do. */
const CLOCK_OFF_MS = 60_000;

export interface GatewayUrls {
  readonly https: string;
  readonly mqtt: string;
  readonly rtsp: string;
}

export interface JoinOptions {
  readonly address: GatewayAddress;
  readonly token: JoinToken;
  /** The agent's; the key and the certificate go there. */
  readonly dataDir: string;
  readonly clock: Clock;
  /** Hears what was done, a line each. */
  readonly report: (line: string) => void;
  /** Called with the gateway's addresses once this device has its certificate, before the first record. */
  readonly configure: (device: string, urls: GatewayUrls) => Promise<void>;
}

/** @throws HeadwaterError, whose code says which step failed and whose hint says what to do */
export async function joinGateway(options: JoinOptions): Promise<void> {
  const { address, dataDir, clock, report } = options;
  const answer = await askToJoin(options);
  const { device } = answer;
  report(`joined as ${device}; certificate until ${day(answer.notAfterMs)}`);
  const offMs = clock.nowUs() / 1_000 - answer.nowMs;
  if (Math.abs(offMs) > CLOCK_OFF_MS)
    report(`this device's clock is ${span(offMs)} off; the gateway's is used where it matters for joining`);
  const { identity } = await Credentials.open(dataDir).then((credentials) => credentials!);
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  const urls = {
    https: `https://${host}:${address.port}`,
    mqtt: `mqtts://${host}:${answer.ports.mqtts}`,
    rtsp: `rtsps://${host}:${answer.ports.rtsps}`,
  };
  await options.configure(device, urls);
  // The gateway's own, such as headwater-gaps, are no place for it.
  const streams = answer.streams.filter((name) => !name.startsWith("headwater-"));
  const stream = streams.includes("sensors") ? "sensors" : streams[0];
  if (stream === undefined) return report("the gateway has no stream yet, so no first record was sent");
  await sendFirstRecord(identity, { url: urls.mqtt, stream, nowUs: Math.round(answer.nowMs * 1_000) });
  report(`first record sent to ${stream}, and acknowledged: it is on the gateway's disk`);
  const trust = { tls: tlsOptions(identity) };
  const status = (await callGateway(address, trust, "GET", STATUS_PATH)) as StatusAnswer;
  report(`the gateway counts ${status.records} record${status.records === 1 ? "" : "s"} of ${status.device}`);
}

/** Resolves when the certificate is kept. */
async function askToJoin({ address, token, dataDir, report }: JoinOptions): Promise<JoinAnswer> {
  const { device, secret, fingerprint } = token;
  // Kept before it is used: an answer that is lost can be asked for again.
  const key = await pendingKey(dataDir, createHash("sha256").update(secret).digest("hex"), makeKey);
  report("key made on this device; it stays here");
  const answer = await callGateway(address, { fingerprint }, "POST", JOIN_PATH, {
    version: JOIN_VERSION,
    secret: secret.toString("base64url"),
    request: makeSigningRequest(key, device).toString("base64"),
  } satisfies JoinRequest);
  if (!isJoinAnswer(answer) || answer.device !== device)
    throw new GatewayUnreachableError(address.host, "it answers as no gateway does");
  const { certificate, ca } = answer;
  await Credentials.store(dataDir, { device, key, certificate, ca });
  return answer;
}

function isJoinAnswer(value: unknown): value is JoinAnswer {
  const answer = (value ?? {}) as Partial<JoinAnswer>;
  return (
    [answer.device, answer.certificate, answer.ca].every((field) => typeof field === "string") &&
    [answer.nowMs, answer.notAfterMs, answer.ports?.mqtts, answer.ports?.rtsps].every(Number.isFinite) &&
    Array.isArray(answer.streams)
  );
}

function day(ms: number): string {
  return new Date(ms).toISOString().slice(0, 16).replace("T", " ");
}

function span(ms: number): string {
  const seconds = Math.abs(ms) / 1_000;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} minutes`;
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} hours` : `${Math.round(seconds / 86_400)} days`;
}
