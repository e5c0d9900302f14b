/** A peer's process: found, started on a free port in a folder of its own, ended. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { eventually } from "../../test/support/program.ts";

export interface Peer {
  readonly port: number;
  readonly pid: number;
  close(): Promise<void>;
}

/** The peer cannot be had here; the row says so. */
export class PeerAbsentError extends Error {}

const START_MS = 15_000;
/** USER_HZ, which Linux fixes at 100 for everybody outside the kernel. */
const TICKS_PER_SECOND = 100;

/** Resolves once it accepts connections. */
export async function startPeer(
  command: string,
  args: readonly string[],
  port: number,
  cwd: string,
): Promise<Peer> {
  const child = spawn(command, args, { cwd, stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.on("data", (chunk) => {
    said = (said + chunk).slice(-500);
  });
  const ended = new Promise<never>((_, reject) => {
    child.once("error", (error) => reject(new PeerAbsentError(`${command}: ${error.message}`)));
    child.once("exit", (code) => reject(new PeerAbsentError(`${command} ended (${code}): ${said}`)));
  });
  ended.catch(() => {});
  try {
    await Promise.race([ended, eventually(`${command} listens`, START_MS, () => listens(port))]);
  } catch (error) {
    await end(child);
    throw error;
  }
  return { port, pid: child.pid ?? 0, close: () => end(child) };
}

function listens(port: number): Promise<true | undefined> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(undefined));
  });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;
}

/** User and system time that a process has used. proc(5): fields 14 and 15, behind a name in parentheses. */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}
