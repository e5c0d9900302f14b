/**
 * A certificate of another CA that the gateway was given (`tls.certFile`, `tls.keyFile`): read, and looked
 * through for what would keep it, or its clients, from using it.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { isIP } from "node:net";
import { createSecureContext } from "node:tls";
import { describeError, HeadwaterError } from "../../runtime/errors.ts";

export interface GivenFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

/** Both as in their files. */
export interface GivenCertificate {
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** `tls.certFile` and `tls.keyFile` cannot be used. Nothing was started. */
export class ServerCertificateError extends HeadwaterError {
  /** Which of the two is at fault. */
  readonly option: keyof GivenFiles;
  /** This program's user may not read it; another one may. */
  readonly isForbidden: boolean;

  constructor(option: keyof GivenFiles, file: string, reason: string, cause?: unknown) {
    super("SERVER_CERTIFICATE", {
      message: `${file} ${reason}`,
      hint: "tls.certFile holds the certificate and its chain, tls.keyFile its key, both in PEM",
      cause,
    });
    this.option = option;
    this.isForbidden = codeOf(cause) === "EACCES" || codeOf(cause) === "EPERM";
  }
}

/** @throws ServerCertificateError when a file cannot be read, or the two are no pair that TLS can use */
export async function readGiven(files: GivenFiles): Promise<GivenCertificate> {
  const cert = await read("certFile", files.certFile);
  const key = await read("keyFile", files.keyFile);
  const certificate = certificateOf(cert, files.certFile);
  if (!certificate.checkPrivateKey(keyOf(key, files.keyFile)))
    throw new ServerCertificateError("keyFile", files.keyFile, `is not the key of ${files.certFile}`);
  try {
    createSecureContext({ cert, key });
  } catch (error) {
    throw new ServerCertificateError(
      "certFile",
      files.certFile,
      `cannot be used: ${describeError(error)}`,
      error,
    );
  }
  return { cert, key };
}

/**
 * Why clients would not trust it, though it can be used.
 * @param names under which the gateway is said to be reached
 */
export function certificateDoubts(
  { cert }: GivenCertificate,
  names: readonly string[],
  nowMs: number,
): string[] {
  const certificate = new X509Certificate(cert);
  const doubts: string[] = [];
  if (Date.parse(certificate.validTo) < nowMs)
    doubts.push(`the certificate has expired (${certificate.validTo}); clients refuse it: renew it`);
  if (Date.parse(certificate.validFrom) > nowMs)
    doubts.push(
      `the certificate is good only from ${certificate.validFrom} on; look at this machine's clock`,
    );
  const isFor = (name: string) =>
    (isIP(name) ? certificate.checkIP(name) : certificate.checkHost(name)) !== undefined;
  const strange = names.filter((name) => !isFor(name));
  if (strange.length > 0)
    doubts.push(
      `the certificate is not for ${strange.join(", ")} of tls.names; who connects by that name refuses it`,
    );
  return doubts;
}

async function read(option: keyof GivenFiles, file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (error) {
    throw new ServerCertificateError(option, file, UNREADABLE[codeOf(error)] ?? describeError(error), error);
  }
}

const UNREADABLE: Readonly<Record<string, string>> = {
  ENOENT: "is not there",
  EACCES: "may not be read by this user",
  EPERM: "may not be read by this user",
  EISDIR: "is a folder; name the file in it",
};

function codeOf(error: unknown): string {
  return String((error as NodeJS.ErrnoException | undefined)?.code);
}

function certificateOf(pem: Buffer, file: string): X509Certificate {
  // Node reads DER here, too, and TLS does not.
  if (!pem.includes("-----BEGIN ") || !pem.includes("CERTIFICATE-----"))
    throw new ServerCertificateError("certFile", file, `holds no certificate${whatElse(pem)}`);
  try {
    return new X509Certificate(pem);
  } catch (error) {
    throw new ServerCertificateError("certFile", file, "holds a damaged certificate", error);
  }
}

function keyOf(pem: Buffer, file: string): KeyObject {
  if (!pem.includes("PRIVATE KEY-----"))
    throw new ServerCertificateError("keyFile", file, `holds no private key${whatElse(pem)}`);
  if (pem.includes("ENCRYPTED")) {
    const reason =
      "is locked with a passphrase, for which nobody is there to ask; unlock it with openssl pkey";
    throw new ServerCertificateError("keyFile", file, reason);
  }
  try {
    return createPrivateKey(pem);
  } catch (error) {
    throw new ServerCertificateError("keyFile", file, "holds a damaged key", error);
  }
}

function whatElse(bytes: Buffer): string {
  if (bytes.length === 0) return ": it is empty";
  if (bytes.includes("PRIVATE KEY-----")) return ", but a key";
  if (bytes.includes("CERTIFICATE-----")) return ", but a certificate";
  if (bytes[0] === 0x30) return " in PEM, but perhaps one in DER; openssl converts it";
  return " in PEM";
}
