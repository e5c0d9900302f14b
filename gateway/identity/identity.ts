/**
 * Who the gateway is to its devices, and who they are to it: its certificate authority, one-time tokens,
 * the devices that joined, and the TLS ports at which both are proven.
 *
 *   token ─join→ certificate ─TLS→ listener ─(socket, device)→ a door
 *                    ↑ renew                └ revoked: the socket ends, and none opens again
 *
 * Loaded only where `tls` is configured.
 */
import { mkdir, stat } from "node:fs/promises";
import { hostname, networkInterfaces } from "node:os";
import { join } from "node:path";
import type { SecureContextOptions } from "node:tls";
import { formatToken } from "../../protocol/joining.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError, HeadwaterError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import { SparingLog } from "../../runtime/sparing-log.ts";
import { CertificateAuthority, requestKeyHash } from "./ca.ts";
import { DeviceRegistry, DeviceUnknownError, type JoinedDevice } from "./device-registry.ts";
import { certificateDoubts, type GivenFiles, readGiven } from "./given-certificate.ts";
import { RenewalPace } from "./renewal-pace.ts";
import { type SecureDoor, SecureListener } from "./secure-listener.ts";
import { TokenStore } from "./tokens.ts";

export type { JoinedDevice } from "./device-registry.ts";
export type { SecureDoor, SecurePeer } from "./secure-listener.ts";

/** The server's certificate is made anew at each start, so this only matters to gateways that run for long. */
const SERVER_DAYS = 90;

export interface IdentityOptions {
  /** Its own folder. */
  readonly dir: string;
  /** Names and addresses under which the gateway is reached, beside those of this machine. */
  readonly names: readonly string[];
  /** PEM files of another CA's certificate for the gateway; its own CA's unless given. */
  readonly given?: GivenFiles | undefined;
  readonly deviceDays: number;
  /** How often the server's certificate is looked at; a given one may have been replaced. */
  readonly lookMs: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export interface Joined {
  readonly device: string;
  readonly certificate: string;
  readonly notAfterMs: number;
}

export class Identity {
  readonly #options: IdentityOptions;
  readonly #tokens: TokenStore;
  readonly #registry: DeviceRegistry;
  readonly #pace: RenewalPace;
  readonly #listeners = new Set<SecureListener>();
  readonly #joins;
  readonly #refusals: SparingLog;
  #authority: CertificateAuthority | undefined;
  #context: SecureContextOptions = {};
  /** Of our own certificate when it is to be made anew; of a given one's files when they were written. */
  #renewAtMs = 0;
  #givenStamp = "";
  #timer: NodeJS.Timeout | undefined;

  constructor(options: IdentityOptions) {
    this.#options = options;
    this.#refusals = new SparingLog(options.log);
    this.#tokens = new TokenStore(join(options.dir, "tokens.json"), options.clock);
    this.#registry = new DeviceRegistry(join(options.dir, "devices.json"), options.clock);
    this.#pace = new RenewalPace(this.#registry, options.clock);
    this.#joins = options.metrics.counter(
      "headwater_identity_certificates_total",
      "Device certificates asked for, by answer",
      ["kind", "answer"],
    );
  }

  /** @throws CertificateAuthorityError, DeviceRegistryError, ServerCertificateError */
  async start(): Promise<void> {
    const { dir, clock, log } = this.#options;
    await mkdir(dir, { recursive: true, mode: 0o700 });
    this.#authority = await CertificateAuthority.open(dir, clock);
    await this.#registry.start();
    const unreadable = await this.#tokens.start();
    if (unreadable !== undefined)
      log.warn({ ...unreadable }, "some tokens cannot be read; they are good no more");
    await this.#refreshServer();
    this.#timer = setInterval(() => this.#look(), this.#options.lookMs);
    this.#timer.unref();
  }

  /** Stops listening. The sockets are their doors' to close. Safe to call twice. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    for (const listener of this.#listeners) listener.close();
  }

  /** Opens a TLS port for a door. @throws PortBusyError, PortUnusableError */
  async listen(door: SecureDoor): Promise<{ readonly port: number }> {
    const { log, metrics } = this.#options;
    const listener = new SecureListener(door, {
      context: this.#context,
      // A given server certificate changes nothing: devices are always known by our own CA.
      deviceCa: this.#ca.certificatePem,
      admits: (device, serial) => this.#registry.admits(device, serial),
      nowMs: () => this.nowMs,
      log,
      metrics,
    });
    this.#listeners.add(listener);
    return { port: await listener.start() };
  }

  /** What agents must trust; empty when every system does already. */
  get caPem(): string {
    return this.#options.given === undefined ? this.#ca.certificatePem : "";
  }

  get nowMs(): number {
    return this.#options.clock.nowUs() / 1_000;
  }

  /** To be carried to the device. @throws TooManyTokensError */
  async makeToken(device: string, lifeMs: number): Promise<string> {
    const secret = await this.#tokens.make(device, lifeMs);
    this.#options.log.info({ device, lifeMs }, "token made");
    const fingerprint = this.#options.given === undefined ? this.#ca.fingerprint : undefined;
    return formatToken({ device, secret, fingerprint });
  }

  /**
   * The first certificate of a device: the token is spent before it is made.
   * @throws TokenUnknownError, TokenExpiredError, TokenUsedError, SigningRequestError
   */
  join(secret: Uint8Array, request: Uint8Array): Promise<Joined> {
    return this.#counted("join", async () => {
      // Whoever has no token does not get us to look at anything else.
      this.#tokens.deviceOf(secret);
      const device = await this.#tokens.spend(secret, await requestKeyHash(request));
      const issued = await this.#ca.issueDevice(device, request, this.#options.deviceDays);
      // Whoever was revoked meanwhile has no token any more. It is entered within this step.
      this.#tokens.deviceOf(secret);
      await this.#registry.joined(device, issued);
      // Whatever used the name before is another's.
      this.#disconnect(device);
      this.#options.log.info({ device }, "device joined");
      return { device, certificate: issued.pem, notAfterMs: issued.notAfterMs };
    });
  }

  /**
   * @param usedSerial of the certificate that it asks with
   * @throws SigningRequestError, DeviceUnknownError, CertificateNotDueError, TooManyRenewalsError
   */
  renew(device: string, usedSerial: string, request: Uint8Array): Promise<Joined> {
    return this.#counted("renewal", async () => {
      this.#pace.take(device, usedSerial);
      const issued = await this.#ca.issueDevice(device, request, this.#options.deviceDays);
      await this.#registry.renewed(device, usedSerial, issued);
      this.#options.log.info({ device }, "device certificate renewed");
      return { device, certificate: issued.pem, notAfterMs: issued.notAfterMs };
    });
  }

  /** @param serial of the certificate that it asks with @throws DeviceUnknownError */
  certificate(device: string, serial: string): { readonly notAfterMs: number; readonly isDue: boolean } {
    const { notAfterMs, isDue } = this.#registry.certificate(device, serial);
    return { notAfterMs, isDue };
  }

  devices(): JoinedDevice[] {
    return this.#registry.list();
  }

  /**
   * Its connections end now; it and its tokens are refused from now on, also by a join that is under way.
   * @throws DeviceUnknownError where it has neither joined nor a token
   */
  async revoke(device: string): Promise<void> {
    const forgotten = this.#tokens.forget(device);
    const revoked = this.#registry.revoke(device).then(
      () => true,
      (error: unknown) => {
        if (error instanceof DeviceUnknownError) return false;
        throw error;
      },
    );
    this.#disconnect(device);
    const [hadToken, hasJoined] = await Promise.all([forgotten, revoked]);
    if (!hadToken && !hasJoined) throw new DeviceUnknownError(device);
    this.#options.log.warn({ device }, "device revoked");
  }

  get #ca(): CertificateAuthority {
    if (this.#authority === undefined) throw new Error("the identity is not started");
    return this.#authority;
  }

  #disconnect(device: string): void {
    for (const listener of this.#listeners) listener.disconnect(device);
  }

  async #counted<T>(kind: string, work: () => Promise<T>): Promise<T> {
    try {
      const done = await work();
      this.#joins.inc({ kind, answer: "given" });
      return done;
    } catch (error) {
      this.#joins.inc({ kind, answer: "refused" });
      const code = error instanceof HeadwaterError ? error.code : "INTERNAL";
      const fields = { kind, reason: describeError(error) };
      // Of each code by itself: whoever tries any token shall not hide one that was used twice.
      this.#refusals.warn(this.nowMs * 1_000, fields, `device certificate refused: ${code}`);
      throw error;
    }
  }

  #look(): void {
    this.#refreshServer().catch((error: unknown) => {
      const reason = describeError(error);
      this.#options.log.error({ reason }, "the server certificate is not renewed; the old one stays in use");
    });
  }

  /** Makes or reads the server's certificate when it is time, and hands it to every port: no restart. */
  async #refreshServer(): Promise<void> {
    const { given, names, log } = this.#options;
    if (given !== undefined) {
      const stamp = await stampOf(given);
      if (stamp === this.#givenStamp) return;
      const read = await readGiven(given);
      this.#context = { ...read };
      this.#givenStamp = stamp;
      for (const doubt of certificateDoubts(read, names, this.nowMs))
        log.warn({ file: given.certFile, doubt }, "clients may refuse the server's certificate");
    } else {
      if (this.nowMs < this.#renewAtMs) return;
      const made = await this.#ca.issueServer([...new Set([...names, ...namesOfMachine()])], SERVER_DAYS);
      this.#renewAtMs = this.nowMs + ((made.notAfterMs - this.nowMs) * 2) / 3;
      this.#context = { cert: made.certificatePem, key: made.keyPem };
    }
    for (const listener of this.#listeners) listener.setContext(this.#context);
  }
}

/** Undefined parts are files that cannot be looked at; reading them says why. */
async function stampOf({ certFile, keyFile }: GivenFiles): Promise<string> {
  const stats = await Promise.all([certFile, keyFile].map((file) => stat(file).catch(() => undefined)));
  return stats.map((one) => `${one?.mtimeMs} ${one?.size} ${one?.ino}`).join(" ");
}

/** Under which others on its networks reach it. */
function namesOfMachine(): string[] {
  const addresses = Object.values(networkInterfaces())
    .flat()
    .flatMap((one) => (one === undefined || one.address.includes("%") ? [] : [one.address]));
  const name = hostname();
  const names = /^[A-Za-z0-9][A-Za-z0-9.-]{0,252}$/.test(name) ? [name] : [];
  return ["localhost", "127.0.0.1", "::1", ...names, ...addresses];
}
