/**
 * A serial line that is a real pseudo-terminal, held by a socat process. Like a UART it keeps nothing
 * for a reader that is not there: what is written while nobody has the port open is gone.
 *
 *   write → socat's stdin → PTY ← whoever opens `path`
 *
 * socat waits until the port is opened and ends when it is closed; then another takes its place.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { lstatSync, mkdirSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { pause } from "../runtime/backoff.ts";
import { HeadwaterError } from "../runtime/errors.ts";
import type { Log } from "../runtime/log.ts";

/** A slow reader may leave so much waiting; beyond it whole lines are dropped. */
const MAX_WAITING_BYTES = 4_096;
/** Time between two tries when socat does not start at all. */
const RETRY_MS = 500;
/** socat's notice that somebody opened the port, and that the port was closed. */
const OPENED = "starting data transfer loop";
const CLOSED = "is at EOF";

export interface PtyLineOptions {
  /** Where a symbolic link to the pseudo-terminal appears while the line is plugged. */
  readonly path: string;
  readonly log: Log;
}

/** socat could not be run. */
export class SocatError extends HeadwaterError {
  constructor(cause: unknown) {
    super("SIM_NO_SOCAT", {
      message: "the simulated serial port needs socat and setpriv, and one of them did not start",
      hint: "apt-get install socat util-linux",
      cause,
    });
  }
}

export class PtyLine {
  readonly #path: string;
  readonly #log: Log;
  #socat: ChildProcess | undefined;
  #open = false;
  #plugged = false;
  #running: Promise<void> | undefined;
  readonly #ending = new AbortController();
  #failed = false;

  constructor({ path, log }: PtyLineOptions) {
    this.#path = path;
    this.#log = log;
  }

  /** Somebody has the port open. */
  get isOpen(): boolean {
    return this.#open;
  }

  get isPlugged(): boolean {
    return this.#plugged;
  }

  /** Bytes that are written and not yet taken by socat. */
  get waitingBytes(): number {
    return this.#socat?.stdin?.writableLength ?? 0;
  }

  /** The link appears soon after. Safe to call twice. */
  plug(): void {
    if (this.#plugged || this.#ending.signal.aborted) return;
    this.#plugged = true;
    mkdirSync(dirname(this.#path), { recursive: true });
    this.#running ??= this.#keepRunning();
  }

  /** The port vanishes, as when the cable is pulled. Resolves when it is gone. */
  async unplug(): Promise<void> {
    this.#plugged = false;
    this.#open = false;
    this.#kill();
    await this.#running;
  }

  /** All or nothing. False when it was dropped. */
  write(bytes: string | Uint8Array): boolean {
    const stdin = this.#socat?.stdin;
    if (!this.#open || !stdin || stdin.writableLength > MAX_WAITING_BYTES) return false;
    stdin.write(bytes);
    return true;
  }

  /** Leaves no process and no link behind. Safe to call twice. */
  async close(): Promise<void> {
    this.#ending.abort();
    await this.unplug();
  }

  async #keepRunning(): Promise<void> {
    while (this.#plugged) {
      const startedWell = await this.#runSocat();
      if (!startedWell) await pause(RETRY_MS, this.#ending.signal);
    }
    this.#running = undefined;
  }

  /** From start to end of one socat. False when it could not do its work. */
  async #runSocat(): Promise<boolean> {
    // setpriv has the kernel end socat when we die, even by SIGKILL: while it waits for the port to
    // be opened it would not notice that its standard input was closed.
    removeLink(this.#path);
    const address = `pty,raw,echo=0,link=${this.#path},wait-slave,pty-interval=0.02`;
    const socat = spawn(
      "setpriv",
      ["--pdeathsig", "KILL", "socat", "-d", "-d", "-t", "0", address, "STDIO"],
      { stdio: ["pipe", "ignore", "pipe"] },
    );
    this.#socat = socat;
    let said = "";
    // A write to a port that has just gone is a loss like any other on a serial line.
    socat.stdin.on("error", () => {});
    socat.stderr.setEncoding("utf8").on("data", (text: string) => {
      said = (said + text).slice(-2_048);
      if (text.includes(OPENED)) this.#open = true;
      if (text.includes(CLOSED)) {
        this.#open = false;
        socat.kill("SIGKILL");
      }
    });
    const wasOpen = await once(socat, "close").then(
      () => said.includes(OPENED) || socat.signalCode !== null,
      (error: unknown) => {
        said = describeSpawn(error);
        return false;
      },
    );
    this.#open = false;
    this.#socat = undefined;
    removeLink(this.#path);
    if (!wasOpen && !this.#failed)
      this.#log.warn({ path: this.#path, said }, "the serial port could not be made");
    this.#failed = !wasOpen;
    return wasOpen;
  }

  #kill(): void {
    if (this.#socat?.exitCode === null) this.#socat.kill("SIGKILL");
  }
}

/** Also one that a killed run left behind. Anything but a link is not ours to remove. */
function removeLink(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink()) rmSync(path, { force: true });
}

function describeSpawn(error: unknown): string {
  const { code, message, hint } = new SocatError(error);
  return `${code}: ${message} (${hint})`;
}
