/**
 * The gateway's own certificate authority. It signs two kinds of certificate: this gateway's, for
 * servers alone, and its devices', for clients alone; so no device can pass for the gateway.
 *
 *   ca.pem: key and certificate in one file, so that a crash leaves both or neither
 *
 * Certificates begin in 1970: a device without a battery believes that it is then.
 */
import "reflect-metadata";
import { createHash, randomBytes, webcrypto } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { isIP } from "node:net";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";
import type { Clock } from "../../runtime/clock.ts";
import { writeDurably } from "../../runtime/durable.ts";
import { HeadwaterError } from "../../runtime/errors.ts";

const KEY_KIND = { name: "ECDSA", namedCurve: "P-256" };
const SIGNED_WITH = { name: "ECDSA", hash: "SHA-256" };
const DAY_MS = 86_400_000;
const CA_DAYS = 20 * 365;
const SINCE = new Date(0);
/** It is later than this. A machine without a battery may believe 1970 at its first start, and the CA is made only once. */
const EARLIEST_NOW_MS = Date.UTC(2026, 0, 1);
/** RFC 5480 §2.1.1.1: the length of a P-256 key's SubjectPublicKeyInfo, uncompressed. */
const P256_KEY_BYTES = 91;

/** Its own files in the data folder were changed or damaged. Nothing was started. */
export class CertificateAuthorityError extends HeadwaterError {
  constructor(file: string, cause?: unknown) {
    super("CA_UNUSABLE", {
      message: `${file} does not hold a key and its certificate`,
      hint: "restore it from a backup; deleted, a new CA is made and every device must join again",
      cause,
    });
  }
}

/** A device sent something that is no signing request of a P-256 key. */
export class SigningRequestError extends HeadwaterError {
  constructor(why: string, cause?: unknown) {
    super("SIGNING_REQUEST_REFUSED", { message: `the signing request is refused: ${why}`, cause });
  }
}

export interface IssuedCertificate {
  readonly pem: string;
  /** As Node's X509Certificate shows it: hexadecimal, upper case. */
  readonly serial: string;
  readonly notAfterMs: number;
  /** SHA-256 of the public key. */
  readonly keyHash: string;
}

export class CertificateAuthority {
  readonly certificatePem: string;
  /** SHA-256 of the certificate: what a token pins. */
  readonly fingerprint: Buffer;
  readonly #certificate: x509.X509Certificate;
  readonly #key: webcrypto.CryptoKey;
  readonly #clock: Clock;

  /** Of what `open` read. */
  constructor(certificate: x509.X509Certificate, key: webcrypto.CryptoKey, clock: Clock) {
    this.#certificate = certificate;
    this.#key = key;
    this.#clock = clock;
    this.certificatePem = `${certificate.toString("pem")}\n`;
    this.fingerprint = createHash("sha256").update(Buffer.from(certificate.rawData)).digest();
  }

  /** Makes one at the first start. @param dir its own, this user's alone @throws CertificateAuthorityError */
  static async open(dir: string, clock: Clock): Promise<CertificateAuthority> {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const file = join(dir, "ca.pem");
    let text: string;
    try {
      text = await readFile(file, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT")
        throw new CertificateAuthorityError(file, error);
      text = await makeAuthority(clock);
      await writeDurably(file, text, 0o600);
    }
    const authority = await parseAuthority(file, text, clock);
    // For whoever wants to check us, such as `curl --cacert`; this one is no secret.
    await writeDurably(join(dir, "ca-certificate.pem"), authority.certificatePem);
    return authority;
  }

  /** A new key and its certificate. The key is kept in memory alone: the next start makes another. */
  async issueServer(
    names: readonly string[],
    days: number,
  ): Promise<{ keyPem: string; certificatePem: string; notAfterMs: number }> {
    const keys = await webcrypto.subtle.generateKey(KEY_KIND, true, ["sign", "verify"]);
    const notAfterMs = this.#nowMs() + days * DAY_MS;
    const subject = "CN=Headwater gateway";
    const certificate = await this.#issue(subject, keys.publicKey, notAfterMs, newSerial(), [
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth], true),
      new x509.SubjectAlternativeNameExtension(
        names.map((name) => ({ type: isIP(name) === 0 ? "dns" : "ip", value: name })),
      ),
    ]);
    const chain = `${certificate.toString("pem")}\n${this.certificatePem}`;
    return { keyPem: await keyPemOf(keys.privateKey), certificatePem: chain, notAfterMs };
  }

  /**
   * @param request PKCS #10 in DER; only its key is taken, the name is ours to give
   * @throws SigningRequestError
   */
  async issueDevice(device: string, request: Uint8Array, days: number): Promise<IssuedCertificate> {
    const key = await keyOfRequest(request);
    const notAfterMs = this.#nowMs() + days * DAY_MS;
    const serial = newSerial();
    const name = [{ CN: [device] }];
    const certificate = await this.#issue(name, key, notAfterMs, serial, [
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth], true),
    ]);
    return {
      pem: `${certificate.toString("pem")}\n`,
      serial: serial.toUpperCase(),
      notAfterMs,
      keyHash: keyHashOf(key),
    };
  }

  async #issue(
    subject: string | x509.JsonName,
    publicKey: webcrypto.CryptoKey | x509.PublicKey,
    notAfterMs: number,
    serialNumber: string,
    extensions: x509.Extension[],
  ): Promise<x509.X509Certificate> {
    return x509.X509CertificateGenerator.create({
      serialNumber,
      subject,
      issuer: this.#certificate.subject,
      notBefore: SINCE,
      notAfter: new Date(notAfterMs),
      publicKey: publicKey as x509.PublicKey,
      signingKey: this.#key,
      signingAlgorithm: SIGNED_WITH,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        // RFC 5280 §4.2.1.1: strict clients want to be led to the key that signed.
        await x509.AuthorityKeyIdentifierExtension.create(this.#certificate.publicKey),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        ...extensions,
      ],
    });
  }

  #nowMs(): number {
    return this.#clock.nowUs() / 1_000;
  }
}

/** SHA-256 of the key that a request is for; it proves that the sender has the private one. @throws SigningRequestError */
export async function requestKeyHash(request: Uint8Array): Promise<string> {
  return keyHashOf(await keyOfRequest(request));
}

async function keyOfRequest(bytes: Uint8Array): Promise<x509.PublicKey> {
  let request: x509.Pkcs10CertificateRequest;
  let proven: boolean;
  try {
    request = new x509.Pkcs10CertificateRequest(Uint8Array.from(bytes));
    if (request.publicKey.rawData.byteLength !== P256_KEY_BYTES) throw new Error("no P-256 key");
    await request.publicKey.export(KEY_KIND, ["verify"]);
    proven = await request.verify();
  } catch (error) {
    throw new SigningRequestError("it is no PKCS #10 request of a P-256 key", error);
  }
  if (!proven) throw new SigningRequestError("it is not signed by its own key");
  return request.publicKey;
}

function keyHashOf(key: x509.PublicKey): string {
  return createHash("sha256").update(Buffer.from(key.rawData)).digest("hex");
}

/** RFC 5280 §4.1.2.2: positive, at most 20 bytes; never led by a zero, so that it reads the same everywhere. */
function newSerial(): string {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0]! & 0x3f) | 0x40;
  return bytes.toString("hex");
}

async function makeAuthority(clock: Clock): Promise<string> {
  const keys = await webcrypto.subtle.generateKey(KEY_KIND, true, ["sign", "verify"]);
  // A name of its own, so that two gateways' are told apart.
  const name = `CN=Headwater CA ${randomBytes(4).toString("hex")}`;
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: newSerial(),
    subject: name,
    issuer: name,
    notBefore: SINCE,
    notAfter: new Date(Math.max(clock.nowUs() / 1_000, EARLIEST_NOW_MS) + CA_DAYS * DAY_MS),
    publicKey: keys.publicKey,
    signingKey: keys.privateKey,
    signingAlgorithm: SIGNED_WITH,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
    ],
  });
  return `${await keyPemOf(keys.privateKey)}${certificate.toString("pem")}\n`;
}

async function parseAuthority(file: string, text: string, clock: Clock): Promise<CertificateAuthority> {
  const key = /-----BEGIN PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END PRIVATE KEY-----/.exec(text);
  const certificate = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/.exec(text);
  if (key === null || certificate === null) throw new CertificateAuthorityError(file);
  try {
    const der = Buffer.from(key[1]!, "base64");
    const signer = await webcrypto.subtle.importKey("pkcs8", der, KEY_KIND, false, ["sign"]);
    return new CertificateAuthority(new x509.X509Certificate(certificate[0]), signer, clock);
  } catch (error) {
    throw new CertificateAuthorityError(file, error);
  }
}

async function keyPemOf(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", key));
  const lines = der.toString("base64").replace(/.{64}(?=.)/g, "$&\n");
  return `-----BEGIN PRIVATE KEY-----\n${lines}\n-----END PRIVATE KEY-----\n`;
}
