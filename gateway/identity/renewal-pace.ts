/**
 * How often a device may have its certificate renewed. Each time the CA signs and the list is written, so it is
 * done in the last third of the certificate's life alone, and some times an hour with one certificate: the
 * answers may have been lost on the way, and then the device comes again with the same one.
 */
import type { Clock } from "../../runtime/clock.ts";
import { HeadwaterError } from "../../runtime/errors.ts";
import { type DeviceRegistry, DeviceUnknownError } from "./device-registry.ts";

/** An agent whose answers are lost asks ten times within a quarter of an hour, and every ten minutes from then on. */
const RENEWALS_AN_HOUR = 12;
const HOUR_MS = 3_600_000;

/** A device asked for a new certificate in the first two thirds of its certificate's life. */
export class CertificateNotDueError extends HeadwaterError {
  constructor(device: string, dueMs: number) {
    super("CERTIFICATE_NOT_DUE", {
      message: `the certificate of ${device} is not renewed before ${new Date(dueMs).toISOString()}`,
      hint: "GET /device/status says when it is time; a device that has lost its key joins again with a token",
    });
  }
}

/** A device had its certificate renewed again and again, and went on using the old one. */
export class TooManyRenewalsError extends HeadwaterError {
  constructor(device: string) {
    super("RENEWALS_TOO_MANY", {
      retryable: true,
      message: `the certificate of ${device} was renewed ${RENEWALS_AN_HOUR} times within an hour`,
      hint: "the device does not take the new one: look at its log and at its disk; it may ask again later",
    });
  }
}

/** With one certificate. */
interface Allowance {
  readonly serial: string;
  left: number;
  atMs: number;
}

export class RenewalPace {
  readonly #registry: DeviceRegistry;
  readonly #clock: Clock;
  /** One a device that has renewed since the start. */
  readonly #allowances = new Map<string, Allowance>();

  constructor(registry: DeviceRegistry, clock: Clock) {
    this.#registry = registry;
    this.#clock = clock;
  }

  /**
   * Before anything is signed.
   * @param serial of the certificate that it asks with
   * @throws DeviceUnknownError, CertificateNotDueError, TooManyRenewalsError
   */
  take(device: string, serial: string): void {
    if (!this.#registry.admits(device, serial)) throw new DeviceUnknownError(device);
    const { isDue, dueMs } = this.#registry.certificate(device, serial);
    if (!isDue) throw new CertificateNotDueError(device, dueMs);
    const nowMs = this.#clock.monotonicMs();
    let allowance = this.#allowances.get(device);
    if (allowance?.serial !== serial) {
      allowance = { serial, left: RENEWALS_AN_HOUR, atMs: nowMs };
      this.#allowances.set(device, allowance);
    }
    const earned = ((nowMs - allowance.atMs) / HOUR_MS) * RENEWALS_AN_HOUR;
    allowance.left = Math.min(RENEWALS_AN_HOUR, allowance.left + earned);
    allowance.atMs = nowMs;
    if (allowance.left < 1) throw new TooManyRenewalsError(device);
    allowance.left -= 1;
  }
}
