/** The real programs as child processes, started as an operator would start them. */
import { type ChildProcess, fork } from "node:child_process";
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { closeSync, openSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { nodeFlags as ownFlags, scriptPath } from "./script.ts";

export type ProgramName = "agent" | "gateway" | "firmware-sim";

/** What a program says to the parent that forked it once it is ready. */
export interface ReadyMessage {
  readonly type: "ready";
  readonly signInUrl?: string;
  readonly addresses?: Readonly<Record<string, string>>;
}

export class Program {
  readonly name: ProgramName;
  readonly pid: number;
  readonly ready: Promise<ReadyMessage>;
  /** Resolves with the exit code, or the signal's name. */
  readonly exited: Promise<number | string>;
  readonly #child: ChildProcess;

  /** @param logFile what it prints is appended there, over all starts */
  constructor(
    name: ProgramName,
    configFile: string,
    logFile: string,
    nodeFlags: readonly string[] = [],
    environment: Readonly<Record<string, string>> = {},
  ) {
    this.name = name;
    const entry = scriptPath(`../../${name}/main.ts`, import.meta.url);
    const output = openSync(logFile, "a");
    this.#child = fork(entry, ["--config", configFile], {
      execArgv: [...ownFlags, ...nodeFlags],
      env: { ...process.env, ...environment },
      stdio: ["ignore", output, output, "ipc"],
    });
    closeSync(output);
    this.pid = this.#child.pid ?? 0;
    this.exited = new Promise((resolve) =>
      this.#child.once("exit", (code, signal) => resolve(signal ?? code ?? -1)),
    );
    this.ready = new Promise((resolve, reject) => {
      this.#child.once("message", (message) => resolve(message as ReadyMessage));
      this.#child.once("exit", async (code, signal) => {
        const log = await readFile(logFile, "utf8").catch(() => "");
        reject(new Error(`${name} ended (${signal ?? code}) before it was ready:\n${log.slice(-2_000)}`));
      });
    });
    // Somebody who kills it before it is ready does not wait for that.
    this.ready.catch(() => {});
  }

  /** Ends it without a chance to write anything, as a power cut would. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.exited;
  }

  /** Asks it to drain and end; kills it after `graceMs`. Resolves with how it ended. */
  async stop(graceMs = 15_000): Promise<number | string> {
    this.#child.kill("SIGTERM");
    const late = setTimeout(() => this.#child.kill("SIGKILL"), graceMs);
    const how = await this.exited;
    clearTimeout(late);
    return how;
  }

  /** Resident memory in bytes, as the kernel counts it. */
  async residentBytes(): Promise<number> {
    const status = await readFile(`/proc/${this.pid}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
  }
}

/** Below those that Linux gives to outgoing connections, one of which could hold a port while its program is down. */
const PORTS = { from: 15_000, to: 32_000 };

/** Ports that nobody listens on; all differ. A program can be started on its port again. */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  while (ports.size < count) {
    const port = PORTS.from + Math.floor(Math.random() * (PORTS.to - PORTS.from));
    if (await takePort(port)) ports.add(port);
  }
  return [...ports];
}

/** What keeps our ports from other tests. */
const taken: UdpSocket[] = [];

/**
 * Whether nobody listens on it, and no test that runs beside this one was given it, whose program may be down or
 * not yet up: whoever has it holds the UDP port of the same number, which nobody else wants, until its process ends.
 */
export async function takePort(port: number): Promise<boolean> {
  const hold = createSocket("udp4").unref();
  const mine = await new Promise<boolean>((resolve) => {
    hold.on("error", () => resolve(false));
    hold.bind({ port, address: "127.0.0.1", exclusive: true }, () => resolve(true));
  });
  if (!mine || !(await isFree(port))) {
    hold.close();
    return false;
  }
  taken.push(hold);
  return true;
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  const free = await new Promise<boolean>((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => resolve(true));
  });
  if (free) await new Promise((resolve) => server.close(resolve));
  return free;
}

/** Asks again and again until `probe` answers something, at most `withinMs`. */
export async function eventually<T>(
  what: string,
  withinMs: number,
  probe: () => Promise<T | undefined>,
): Promise<T> {
  const end = performance.now() + withinMs;
  let last: unknown;
  while (performance.now() < end) {
    try {
      const found = await probe();
      if (found !== undefined) return found;
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`not within ${withinMs} ms: ${what}${last === undefined ? "" : ` (${last})`}`);
}
