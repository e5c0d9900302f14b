/**
 * One HTTPS call to the gateway. The first one, of a device that joins, trusts the fingerprint in its
 * token and nothing else: not the device's clock, which may be years off, and not the system's CAs.
 */
import { createHash, type X509Certificate } from "node:crypto";
import { request } from "node:http";
import { isIP } from "node:net";
import { type ConnectionOptions, connect, type TLSSocket } from "node:tls";
import { HeadwaterError } from "../../runtime/errors.ts";
import type { GatewayAddress } from "./gateway-address.ts";

const MAX_ANSWER_BYTES = 65_536;
const TIMEOUT_MS = 15_000;
/** RFC 5280 §4.2.1.12: id-kp-serverAuth. */
const SERVER_PURPOSE = "1.3.6.1.5.5.7.3.1";

/** Nothing answers there, or not as a gateway would. */
export class GatewayUnreachableError extends HeadwaterError {
  constructor(where: string, why: string, cause?: unknown) {
    super("GATEWAY_UNREACHABLE", {
      retryable: true,
      message: `no gateway answers at ${where}: ${why}`,
      hint: "check the address, the port (8443 unless tls.https says otherwise) and firewalls between",
      cause,
    });
  }
}

/** Whoever answers is not the gateway that made the token. Nothing was sent to it. */
export class GatewayNotTrustedError extends HeadwaterError {
  constructor(where: string, why: string) {
    super("GATEWAY_NOT_TRUSTED", {
      message: `${where} is not the gateway that made the token: ${why}`,
      hint: "someone may be between, or the token is of another gateway; the token was not sent",
    });
  }
}

/** The gateway said no. */
export class GatewayRefusedError extends HeadwaterError {
  constructor(status: number, code: string, message: string, hint: string | undefined) {
    super(code, { message, ...(hint !== undefined && { hint }), retryable: status >= 500 });
  }
}

export interface GatewayTrust {
  /** SHA-256 of the CA's certificate that must be at the end of the server's chain. */
  readonly fingerprint?: Buffer | undefined;
  readonly tls?: ConnectionOptions;
  /** Ends the call. */
  readonly signal?: AbortSignal;
}

/** @throws GatewayUnreachableError, GatewayNotTrustedError, GatewayRefusedError */
export async function callGateway(
  address: GatewayAddress,
  trust: GatewayTrust,
  method: "GET" | "POST",
  path: string,
  body?: object,
): Promise<unknown> {
  const where = nameOf(address);
  const socket = openSocket(address, trust);
  const end = (): void => void socket.destroy();
  trust.signal?.addEventListener("abort", end, { once: true });
  try {
    await trusted(socket, trust.fingerprint, where);
    const { status, text } = await ask(socket, where, method, path, body);
    return answerOf(where, status, text);
  } finally {
    trust.signal?.removeEventListener("abort", end);
    socket.destroy();
  }
}

function openSocket({ host, port }: GatewayAddress, { fingerprint, tls }: GatewayTrust): TLSSocket {
  const socket = connect({
    minVersion: "TLSv1.2",
    ...tls,
    host,
    port,
    ...(isIP(host) === 0 && { servername: host }),
    ALPNProtocols: ["http/1.1"],
    // The pin is checked by `trusted`, before anything is sent.
    ...(fingerprint !== undefined && { rejectUnauthorized: false }),
  });
  socket.setTimeout(TIMEOUT_MS, () => socket.destroy(new Error(`no answer within ${TIMEOUT_MS} ms`)));
  return socket;
}

/** Resolves when it is known who is there. @throws GatewayUnreachableError, GatewayNotTrustedError */
function trusted(socket: TLSSocket, fingerprint: Buffer | undefined, where: string): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once("error", (error: NodeJS.ErrnoException) => {
      const why = error.code === undefined ? error.message : `${error.code}, ${error.message}`;
      reject(new GatewayUnreachableError(where, why, error));
    });
    socket.once("close", () => reject(new GatewayUnreachableError(where, "the connection was closed")));
    socket.once("secureConnect", () => {
      const fault = fingerprint && faultOf(socket, fingerprint);
      if (fault === undefined) resolve();
      else reject(new GatewayNotTrustedError(where, fault));
    });
  });
}

/** Why the chain that the server showed does not lead to the pinned CA; its times are not looked at. */
function faultOf(socket: TLSSocket, fingerprint: Buffer): string | undefined {
  const leaf = socket.getPeerX509Certificate();
  const ca = leaf?.issuerCertificate;
  if (leaf === undefined || ca === undefined) return "it shows no CA";
  if (!createHash("sha256").update(ca.raw).digest().equals(fingerprint))
    return "its CA has another fingerprint";
  if (!ca.ca || !leaf.checkIssued(ca) || !leaf.verify(ca.publicKey))
    return "its CA has not signed its certificate";
  if (!purposesOf(leaf).includes(SERVER_PURPOSE)) return "its certificate is not a server's";
  return undefined;
}

/** Node's types lack it: the extended key usage, as OIDs. */
function purposesOf(certificate: X509Certificate): readonly string[] {
  return (certificate as unknown as { keyUsage?: readonly string[] }).keyUsage ?? [];
}

function ask(
  socket: TLSSocket,
  where: string,
  method: string,
  path: string,
  body: object | undefined,
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const failed = (why: string, cause?: unknown): void =>
      reject(new GatewayUnreachableError(where, why, cause));
    const bytes = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    const asked = request({
      createConnection: () => socket,
      method,
      path,
      headers: {
        host: where,
        connection: "close",
        ...(bytes && { "content-type": "application/json", "content-length": bytes.length }),
      },
    });
    asked.on("error", (error) => failed(error.message, error));
    asked.on("response", (answer) => {
      const chunks: Buffer[] = [];
      let total = 0;
      answer.on("data", (chunk: Buffer) => {
        total += chunk.length;
        if (total > MAX_ANSWER_BYTES) socket.destroy();
        else chunks.push(chunk);
      });
      answer.on("error", (error) => failed(error.message, error));
      answer.on("end", () =>
        resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(chunks).toString("utf8") }),
      );
      answer.on("close", () => failed("its answer was cut off, or too long"));
    });
    asked.end(bytes);
  });
}

function answerOf(where: string, status: number, text: string): unknown {
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new GatewayUnreachableError(where, `it answers ${status} and no JSON; is it a Headwater gateway?`);
  }
  if (status === 200) return answer;
  const { error } = (answer ?? {}) as { error?: Record<string, unknown> };
  const { code, message, hint } = error ?? {};
  throw new GatewayRefusedError(
    status,
    // It goes to a terminal.
    printable(code) ?? "GATEWAY_REFUSED",
    printable(message) ?? `the gateway answered ${status}`,
    printable(hint),
  );
}

function printable(text: unknown): string | undefined {
  return typeof text === "string" ? text.slice(0, 400).replace(/[^\x20-\x7e]/g, "?") : undefined;
}

function nameOf({ host, port }: GatewayAddress): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}
