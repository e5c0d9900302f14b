/**
 * How a device joins a gateway and stays: what is asked over HTTPS, and the token that begins it.
 * docs/design/0020-joining.md says why it is so.
 *
 *   POST /device/join         token, signing request → certificate     no client certificate yet
 *   GET  /device/status       what the gateway knows of the device     from here on with the certificate
 *   POST /device/certificate  signing request → certificate            when the status says that it is due
 */
import { HeadwaterError } from "../runtime/errors.ts";
import { DEVICE_NAME } from "./topics.ts";

export const JOIN_PATH = "/device/join";
export const STATUS_PATH = "/device/status";
export const CERTIFICATE_PATH = "/device/certificate";
export const DEFAULT_HTTPS_PORT = 8443;
/** A request of a P-256 key is about 250 bytes; a certificate chain about 2,000. */
export const MAX_JOIN_BYTES = 8_192;
/** The base64 of a signing request, at most. */
export const MAX_REQUEST_CHARACTERS = 4_096;
export const JOIN_VERSION = 1;

const SECRET_BYTES = 20;
const FINGERPRINT_BYTES = 32;
const MAX_TOKEN_CHARACTERS = 256;

/** What an operator carries from the gateway to the device, once. */
export interface JoinToken {
  readonly device: string;
  readonly secret: Buffer;
  /** SHA-256 of the gateway's own CA; undefined where its certificate comes from a CA that every system trusts. */
  readonly fingerprint: Buffer | undefined;
}

export interface JoinRequest {
  readonly version: number;
  /** base64url of the token's secret. */
  readonly secret: string;
  /** base64 of a PKCS #10 request in DER (RFC 2986). */
  readonly request: string;
}

export interface CertificateAnswer {
  readonly device: string;
  /** PEM of the device's certificate. */
  readonly certificate: string;
  readonly nowMs: number;
  readonly notAfterMs: number;
}

export interface JoinAnswer extends CertificateAnswer {
  /** PEM of the CA to trust; empty where the system's are. */
  readonly ca: string;
  readonly ports: { readonly mqtts: number; readonly rtsps: number };
  /** Those that there are; the first record goes to one of them. */
  readonly streams: readonly string[];
}

export interface StatusAnswer {
  readonly device: string;
  readonly nowMs: number;
  readonly notAfterMs: number;
  /** Two thirds of the certificate's life are over, by the gateway's clock. */
  readonly renew: boolean;
  /** Records of this device that the gateway has stored since it started. */
  readonly records: number;
}

/** It was cut while copying, or is no token at all. Nothing was sent. */
export class JoinTokenError extends HeadwaterError {
  constructor(why: string) {
    super("JOIN_TOKEN_MALFORMED", {
      message: `this is no token: ${why}`,
      hint: "copy the whole line that `headwater-gateway devices token NAME` printed",
    });
  }
}

/** `hw1.<device>.<secret>.<fingerprint>`; a device's name may hold dots, the others cannot. */
export function formatToken({ device, secret, fingerprint }: JoinToken): string {
  const pin = fingerprint?.toString("base64url") ?? "";
  return `hw1.${device}.${secret.toString("base64url")}.${pin}`;
}

/** @throws JoinTokenError, which never holds the token */
export function parseToken(text: string): JoinToken {
  if (text.length > MAX_TOKEN_CHARACTERS) throw new JoinTokenError("too long");
  const match = /^hw1\.(.+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)$/.exec(text.trim());
  if (match === null) throw new JoinTokenError("it does not read hw1.NAME.SECRET.FINGERPRINT");
  const [, device, secretText, pin] = match as unknown as [string, string, string, string];
  if (!DEVICE_NAME.test(device)) throw new JoinTokenError("its device has no usable name");
  const secret = Buffer.from(secretText, "base64url");
  if (secret.length !== SECRET_BYTES) throw new JoinTokenError("its secret is cut off");
  const fingerprint = pin === "" ? undefined : Buffer.from(pin, "base64url");
  if (fingerprint !== undefined && fingerprint.length !== FINGERPRINT_BYTES)
    throw new JoinTokenError("its fingerprint is cut off");
  return { device, secret, fingerprint };
}

/** What came over the wire as a join request; undefined when it is none. */
export function parseJoinRequest(body: Uint8Array): { secret: Buffer; request: Buffer } | undefined {
  const fields = objectIn(body);
  if (fields === undefined || fields.version !== JOIN_VERSION || typeof fields.secret !== "string")
    return undefined;
  const secret = Buffer.from(fields.secret.slice(0, MAX_TOKEN_CHARACTERS), "base64url");
  const request = requestIn(fields);
  return secret.length !== SECRET_BYTES || request === undefined ? undefined : { secret, request };
}

/** The signing request of a renewal; undefined when there is none. */
export function parseRenewal(body: Uint8Array): Buffer | undefined {
  const fields = objectIn(body);
  return fields === undefined || fields.version !== JOIN_VERSION ? undefined : requestIn(fields);
}

function requestIn({ request }: Record<string, unknown>): Buffer | undefined {
  if (typeof request !== "string" || request.length > MAX_REQUEST_CHARACTERS) return undefined;
  if (request.length % 4 !== 0 || !/^[A-Za-z0-9+/]+={0,2}$/.test(request)) return undefined;
  return Buffer.from(request, "base64");
}

function objectIn(body: Uint8Array): Record<string, unknown> | undefined {
  if (body.length > MAX_JOIN_BYTES) return undefined;
  try {
    const value: unknown = JSON.parse(Buffer.from(body).toString("utf8"));
    return value !== null && typeof value === "object" ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
