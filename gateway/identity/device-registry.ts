/**
 * The devices that have joined, and which of their certificates are good. It names what is allowed,
 * not what is forbidden: a certificate that it does not name is refused, also if the file is lost.
 */
import { readFile } from "node:fs/promises";
import { DEVICE_NAME } from "../../protocol/topics.ts";
import type { Clock } from "../../runtime/clock.ts";
import { writeDurably } from "../../runtime/durable.ts";
import { HeadwaterError } from "../../runtime/errors.ts";

/** No device of this name has joined. */
export class DeviceUnknownError extends HeadwaterError {
  constructor(device: string) {
    super("DEVICE_UNKNOWN", {
      message: `no device ${device} has joined`,
      hint: "headwater-gateway devices list shows those that have",
    });
  }
}

/** The list of devices cannot be read. Nothing was started. */
export class DeviceRegistryError extends HeadwaterError {
  constructor(file: string, cause: unknown) {
    super("DEVICE_REGISTRY", {
      message: `${file} cannot be read: ${cause instanceof Error ? cause.message : cause}`,
      hint: "restore it from a backup; without it every device must join again",
      cause,
    });
  }
}

export interface JoinedDevice {
  readonly device: string;
  readonly joinedMs: number;
  readonly state: "joined" | "revoked";
  /** When its newest certificate ends. */
  readonly notAfterMs: number;
}

export interface Certificate {
  readonly serial: string;
  readonly issuedMs: number;
  readonly notAfterMs: number;
}

export interface Entry {
  joinedMs: number;
  revokedMs?: number;
  /** The newest last. */
  certificates: Certificate[];
}

export class DeviceRegistry {
  readonly #file: string;
  readonly #clock: Clock;
  readonly #devices = new Map<string, Entry>();
  #writing: Promise<void> = Promise.resolve();

  constructor(file: string, clock: Clock) {
    this.#file = file;
    this.#clock = clock;
  }

  /** @throws DeviceRegistryError */
  async start(): Promise<void> {
    try {
      const devices = devicesIn(await readFile(this.#file, "utf8"));
      for (const [device, entry] of Object.entries(devices)) this.#devices.set(device, entry);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT")
        throw new DeviceRegistryError(this.#file, error);
    }
  }

  /** Whether a certificate of ours may be used still. */
  admits(device: string, serial: string): boolean {
    const entry = this.#devices.get(device);
    return (
      entry !== undefined &&
      entry.revokedMs === undefined &&
      entry.certificates.some((certificate) => certificate.serial === serial)
    );
  }

  /** The device begins anew: only this certificate of its is good. When that cannot be written, all is as it was. */
  async joined(device: string, certificate: { serial: string; notAfterMs: number }): Promise<void> {
    const issuedMs = this.#nowMs();
    const before = this.#devices.get(device);
    const entry: Entry = { joinedMs: issuedMs, certificates: [{ ...certificate, issuedMs }] };
    this.#devices.set(device, entry);
    try {
      await this.#write();
    } catch (error) {
      // Nobody was given the new certificate. What was revoked meanwhile stays so.
      if (this.#devices.get(device) === entry && entry.revokedMs === undefined) {
        if (before === undefined) this.#devices.delete(device);
        else this.#devices.set(device, before);
      }
      throw error;
    }
  }

  /**
   * @param usedSerial what it asked with: good until it ends, as the answer may be lost on the way
   * @throws DeviceUnknownError, also for a revoked one, and where the device has joined anew meanwhile
   */
  async renewed(
    device: string,
    usedSerial: string,
    certificate: { serial: string; notAfterMs: number },
  ): Promise<void> {
    const entry = this.#devices.get(device);
    if (entry === undefined || !this.admits(device, usedSerial)) throw new DeviceUnknownError(device);
    const used = entry.certificates.filter(({ serial }) => serial === usedSerial);
    entry.certificates = [...used, { ...certificate, issuedMs: this.#nowMs() }];
    await this.#write();
  }

  /** Refused from the call on; on disk when it resolves. @throws DeviceUnknownError */
  async revoke(device: string): Promise<void> {
    const entry = this.#devices.get(device);
    if (entry === undefined) throw new DeviceUnknownError(device);
    entry.revokedMs ??= this.#nowMs();
    entry.certificates = entry.certificates.slice(-1);
    await this.#write();
  }

  /**
   * How far one of its certificates is through its life. Not always the newest: of that the device may never
   * have heard, and told that all is well it would let the one that it has run out.
   * @throws DeviceUnknownError where that one is good no more
   */
  certificate(
    device: string,
    serial: string,
  ): { readonly notAfterMs: number; readonly dueMs: number; readonly isDue: boolean } {
    const certificate = this.#devices.get(device)?.certificates.find((one) => one.serial === serial);
    if (certificate === undefined) throw new DeviceUnknownError(device);
    const { issuedMs, notAfterMs } = certificate;
    const dueMs = issuedMs + ((notAfterMs - issuedMs) * 2) / 3;
    return { notAfterMs, dueMs, isDue: this.#nowMs() >= dueMs };
  }

  list(): JoinedDevice[] {
    return [...this.#devices]
      .map(([device, entry]) => ({
        device,
        joinedMs: entry.joinedMs,
        state: entry.revokedMs === undefined ? ("joined" as const) : ("revoked" as const),
        notAfterMs: entry.certificates.at(-1)?.notAfterMs ?? 0,
      }))
      .sort((a, b) => (a.device < b.device ? -1 : 1));
  }

  #write(): Promise<void> {
    const next = this.#writing.then(() =>
      writeDurably(
        this.#file,
        `${JSON.stringify({ version: 1, devices: Object.fromEntries(this.#devices) })}\n`,
        0o600,
      ),
    );
    this.#writing = next.catch(() => {});
    return next;
  }

  #nowMs(): number {
    return this.#clock.nowUs() / 1_000;
  }
}

/**
 * All of it or nothing: to leave out an entry that is damaged would take a device's right away without a
 * word. @throws when it is not what was written
 */
export function devicesIn(text: string): Record<string, Entry> {
  const devices: unknown = (JSON.parse(text) as { devices?: unknown } | null)?.devices;
  if (devices === null || typeof devices !== "object" || Array.isArray(devices))
    throw new Error("it lists no devices");
  for (const [device, entry] of Object.entries(devices)) {
    if (!DEVICE_NAME.test(device) || !isEntry(entry)) throw new Error(`the entry of ${device} is damaged`);
  }
  return devices as Record<string, Entry>;
}

function isEntry(value: unknown): value is Entry {
  const { joinedMs, revokedMs, certificates } = (value ?? {}) as Partial<Record<keyof Entry, unknown>>;
  return (
    typeof joinedMs === "number" &&
    (revokedMs === undefined || typeof revokedMs === "number") &&
    Array.isArray(certificates) &&
    certificates.length > 0 &&
    certificates.every(isCertificate)
  );
}

function isCertificate(value: unknown): value is Certificate {
  const { serial, issuedMs, notAfterMs } = (value ?? {}) as Partial<Record<keyof Certificate, unknown>>;
  return typeof serial === "string" && [issuedMs, notAfterMs].every((time) => typeof time === "number");
}
