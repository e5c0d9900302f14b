/**
 * What proves this device to its gateway and the gateway to it: one file, so that key and certificate
 * change together. The key was made here and is in no other place.
 */
import { readFileSync, statSync } from "node:fs";
import { chown, mkdir, readFile, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { ConnectionOptions } from "node:tls";
import { foreignFolder } from "../../runtime/data-folder.ts";
import { writeDurably } from "../../runtime/durable.ts";
import { HeadwaterError } from "../../runtime/errors.ts";

const FILE = "identity.json";
/** A join that was not answered: the next try asks with the same key, which alone may use the token again. */
const PENDING_FILE = "identity-pending.json";

/** The file is damaged, or of a later version. Nothing was started. */
export class IdentityFileError extends HeadwaterError {
  constructor(file: string, cause?: unknown) {
    super("IDENTITY_FILE", {
      message: `${file} does not hold a key and its certificate`,
      hint: "join again with a new token: headwater-gateway devices token NAME",
      cause,
    });
  }
}

/** The config names one device, and the certificate another. Nothing was started. */
export class OtherDeviceError extends HeadwaterError {
  constructor(configured: string, joined: string) {
    super("IDENTITY_OF_ANOTHER", {
      message: `the config says device ${configured}, but this folder joined the gateway as ${joined}`,
      hint: `set device to ${joined}, or join as ${configured} with a token for it`,
    });
  }
}

export interface DeviceIdentity {
  readonly device: string;
  /** PEM. */
  readonly key: string;
  readonly certificate: string;
  /** PEM of the gateway's CA; empty where the system's are trusted. */
  readonly ca: string;
}

/** The identity in the agent's data folder; renewals, and another join, replace it while the agent runs. */
export class Credentials {
  readonly #file: string;
  #identity: DeviceIdentity;
  /** Of the file when it was read last. */
  #stamp = "";

  constructor(file: string, identity: DeviceIdentity) {
    this.#file = file;
    this.#identity = identity;
  }

  /** Undefined when this device has not joined. @throws IdentityFileError */
  static async open(dataDir: string): Promise<Credentials | undefined> {
    const file = join(dataDir, FILE);
    const identity = await readIdentity(file);
    return identity && new Credentials(file, identity);
  }

  /** On disk when it resolves; a crash leaves the old one or the new one. */
  static async store(dataDir: string, identity: DeviceIdentity): Promise<Credentials> {
    const credentials = new Credentials(join(dataDir, FILE), identity);
    await credentials.replace(identity);
    await rm(join(dataDir, PENDING_FILE), { force: true });
    return credentials;
  }

  get identity(): DeviceIdentity {
    return this.#identity;
  }

  async replace(identity: DeviceIdentity): Promise<void> {
    await writeSecret(this.#file, { version: 1, ...identity });
    this.#identity = identity;
  }

  /** For a connection that begins now: also by what was put in place by another program, such as `join`. */
  tls(): ConnectionOptions {
    this.#lookAgain();
    return tlsOptions(this.#identity);
  }

  /** A small file, and only where a connection was lost: it may be read at once. */
  #lookAgain(): void {
    try {
      const { ino, mtimeMs, size } = statSync(this.#file);
      const stamp = `${ino} ${mtimeMs} ${size}`;
      if (stamp === this.#stamp) return;
      const found = identityIn(readFileSync(this.#file, "utf8"));
      this.#stamp = stamp;
      // Another device is another agent: its records would be refused, or taken for that one's.
      if (found?.device === this.#identity.device) this.#identity = found;
    } catch {
      // Removed, not ours to read yet, or damaged: what was read before goes on.
    }
  }
}

/**
 * With the gateway's own CA no name is compared: it signs nobody else's servers, and what it signs for
 * devices is no server's (the check of that purpose is OpenSSL's), so whoever shows a certificate of it
 * is the gateway, whatever address leads there.
 */
export function tlsOptions({ key, certificate, ca }: DeviceIdentity): ConnectionOptions {
  const own = ca === "" ? {} : { ca, checkServerIdentity: () => undefined };
  return { key, cert: certificate, minVersion: "TLSv1.2", rejectUnauthorized: true, ...own };
}

/** The key with which a token is to be used: that of an earlier try with the same token, or a new one. */
export async function pendingKey(dataDir: string, tokenHash: string, make: () => string): Promise<string> {
  const file = join(dataDir, PENDING_FILE);
  const kept = await readFile(file, "utf8").catch(() => "{}");
  try {
    const { token, key } = JSON.parse(kept) as Record<string, unknown>;
    if (token === tokenHash && typeof key === "string") return key;
  } catch {
    // Cut off by a crash: nobody has used its key.
  }
  const key = make();
  await writeSecret(file, { token: tokenHash, key });
  return key;
}

async function readIdentity(file: string): Promise<DeviceIdentity | undefined> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new IdentityFileError(file, error);
  }
  let identity: DeviceIdentity | undefined;
  try {
    identity = identityIn(text);
  } catch (error) {
    throw new IdentityFileError(file, error);
  }
  if (identity === undefined) throw new IdentityFileError(file);
  return identity;
}

/** Undefined for what is no identity. @throws SyntaxError */
function identityIn(text: string): DeviceIdentity | undefined {
  const { version, device, key, certificate, ca } = (JSON.parse(text) ?? {}) as Record<string, unknown>;
  const whole = [device, key, certificate, ca].every((field) => typeof field === "string");
  return version === 1 && whole ? ({ device, key, certificate, ca } as DeviceIdentity) : undefined;
}

async function writeSecret(file: string, value: object): Promise<void> {
  const folder = dirname(file);
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await writeDurably(file, `${JSON.stringify(value)}\n`, 0o600);
  } catch (error) {
    throw foreignFolder(error) ?? error;
  }
  if (process.getuid?.() !== 0) return;
  // Root ran the join; the agent runs as whoever owns its folder.
  const { uid, gid } = await stat(folder);
  await chown(file, uid, gid);
}
