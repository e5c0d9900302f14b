/**
 * What the service manager that started this program (systemd) hears of it: sd_notify(3). Where no
 * service manager listens, which NOTIFY_SOCKET tells, nothing happens.
 *
 *   starting() ─READY=1→ ready() ─WATCHDOG=1 after each good probe→ stopping() ─STOPPING=1→ close()
 *
 * Node has no Unix datagram sockets, so a small child in Perl, which every Debian has, sends what it
 * reads from us. It lives as long as we do: a message whose sender has ended already may reach the
 * service manager without a unit to belong to. The unit needs NotifyAccess=all for it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { pause } from "./backoff.ts";
import { describeError } from "./errors.ts";
import type { Log } from "./log.ts";

/** Reads messages that end in a zero byte, and sends each as one datagram; ends with its input. */
const SENDER = `
  $0 = "headwater-notify";
  $SIG{INT} = $SIG{TERM} = "IGNORE";
  my $path = shift; $path =~ s/^@/\\0/;
  socket(my $out, AF_UNIX, SOCK_DGRAM, 0) or die "socket: $!\\n";
  my $to = pack_sockaddr_un($path);
  $/ = "\\0";
  while (my $message = <STDIN>) { chomp $message; send($out, $message, 0, $to) or die "send: $!\\n" }
`;
/** While a start takes long, such as after a power cut, more time is asked for, so often and so much. */
const EXTEND_EVERY_MS = 10_000;
const EXTEND_BY_US = 60_000_000;
/** Pings for each span within which one must come: two may be late. */
const PINGS_A_SPAN = 3;
/** Longer ones would not fit into a datagram's sensible size. */
const MAX_STATUS_CHARS = 200;

export interface ServiceManagerOptions {
  /** Where NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are looked up. */
  readonly environment: Readonly<NodeJS.ProcessEnv>;
  readonly log: Log;
}

export interface Readiness {
  /** One line for `systemctl status`. No secrets: everybody on this machine can read it. */
  readonly status: string;
  /**
   * Does once what the program lives by, such as a synced write. While it rejects or does not come
   * back the watchdog is not fed, and the service manager starts the program again.
   */
  readonly probe: () => Promise<void>;
}

export class ServiceManager {
  readonly #path: string | undefined;
  readonly #watchdogMs: number;
  readonly #log: Log;
  readonly #ended = new AbortController();
  readonly #started = new AbortController();
  #sender: ChildProcess | undefined;
  #watching: Promise<void> | undefined;

  constructor({ environment, log }: ServiceManagerOptions) {
    // sd_notify(3): a path, or an abstract name behind an @. Other kinds cannot be reached from here.
    const path = environment.NOTIFY_SOCKET;
    this.#path = path !== undefined && /^[/@]./.test(path) ? path : undefined;
    this.#watchdogMs = watchdogMs(environment);
    this.#log = log;
  }

  /** True when somebody listens. */
  get listens(): boolean {
    return this.#path !== undefined;
  }

  /** Asks for more time to start for as long as our event loop turns, until `ready` or `close`. */
  starting(): void {
    if (this.listens) void this.#extend();
  }

  async #extend(): Promise<void> {
    const signal = AbortSignal.any([this.#started.signal, this.#ended.signal]);
    for (;;) {
      await pause(EXTEND_EVERY_MS, signal);
      if (signal.aborted) return;
      this.#send(`EXTEND_TIMEOUT_USEC=${EXTEND_BY_US}`);
    }
  }

  /** The program serves. From now on the watchdog is fed, if the unit wants that. */
  ready({ status, probe }: Readiness): void {
    this.#started.abort();
    if (!this.listens || this.#ended.signal.aborted) return;
    this.#send(`READY=1\nSTATUS=${oneLine(status)}`);
    if (this.#watchdogMs > 0) this.#watching ??= this.#watch(probe);
  }

  async #watch(probe: () => Promise<void>): Promise<void> {
    const { signal } = this.#ended;
    while (!signal.aborted) {
      try {
        await probe();
        if (!signal.aborted) this.#send("WATCHDOG=1");
      } catch (error) {
        if (!signal.aborted)
          this.#log.warn({ error: describeError(error) }, "not fit: the watchdog is not fed");
      }
      await pause(this.#watchdogMs / PINGS_A_SPAN, signal);
    }
  }

  /** The program drains and will end. */
  stopping(): void {
    this.#ended.abort();
    if (this.listens) this.#send("STOPPING=1\nSTATUS=draining");
  }

  /** Ends the sender once it has sent what it was given. */
  async close(): Promise<void> {
    this.#started.abort();
    this.#ended.abort();
    const sender = this.#sender;
    if (sender === undefined || sender.exitCode !== null || sender.signalCode !== null) return;
    const gone = new Promise((resolve) => sender.once("close", resolve));
    sender.ref();
    sender.stdin?.end();
    await gone;
  }

  #send(message: string): void {
    this.#sender ??= this.#startSender(this.#path!);
    this.#sender.stdin?.write(`${message}\0`);
  }

  #startSender(path: string): ChildProcess {
    const child = spawn("perl", ["-MSocket", "-e", SENDER, path], { stdio: ["pipe", "ignore", "pipe"] });
    let complaint = "";
    child.stderr?.on("data", (chunk: Buffer) => {
      complaint = (complaint + chunk.toString()).slice(-200);
    });
    const lost = (why: string): void => {
      if (this.#sender !== child) return;
      // The next message starts another one.
      this.#sender = undefined;
      if (this.#ended.signal.aborted) return;
      this.#log.warn({ error: why }, "the service manager cannot be told how we are");
    };
    child.on("error", (error) => lost(error.message));
    child.on("close", (code) => lost(complaint.trim() || `the sender ended with ${code}`));
    // What is written to a sender that is gone: `close` tells of it.
    child.stdin?.on("error", () => {});
    // It must not keep a program alive that has nothing else to do.
    child.unref();
    for (const stream of [child.stdin, child.stderr]) (stream as { unref?: () => void } | null)?.unref?.();
    return child;
  }
}

/** The span within which a ping must come; 0 when none is wanted, or of another process. */
function watchdogMs({ WATCHDOG_USEC, WATCHDOG_PID }: Readonly<NodeJS.ProcessEnv>): number {
  if (WATCHDOG_USEC === undefined || !/^\d{1,15}$/.test(WATCHDOG_USEC)) return 0;
  if (WATCHDOG_PID !== undefined && WATCHDOG_PID !== String(process.pid)) return 0;
  return Number(WATCHDOG_USEC) / 1_000;
}

function oneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what must not get into a message of lines
  return text.replace(/[\x00-\x1f\x7f]+/g, " ").slice(0, MAX_STATUS_CHARS);
}
