/**
 * Runs the commands of set-up so that it can be interrupted at any moment: what may end is ended,
 * what must not (dpkg) is waited for, and nothing goes on when we are gone.
 */
import { spawn } from "node:child_process";
import { fail, say } from "./terminal.mjs";

/** Exit code of a program that Ctrl-C ended, by the shells' convention. */
const INTERRUPTED = 130;
const PARENT_POLL_MS = 500;

/** @type {{child: import("node:child_process").ChildProcess, mustFinish: boolean} | undefined} */
let current;
let interrupted = false;

/**
 * Calls `stop` when the process that started us has ended: npm, killed, does not tell its children.
 * @returns {() => void} ends the watch
 */
export function onParentEnd(stop) {
  const parent = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid !== parent) stop();
  }, PARENT_POLL_MS);
  timer.unref();
  return () => clearInterval(timer);
}

/** Runs `work`; a signal meanwhile ends the command that runs, and us. */
export async function interruptible(work) {
  const stop = () => {
    if (interrupted) return;
    interrupted = true;
    if (current?.mustFinish) return say("stops as soon as the Debian packages are in place");
    current?.child.kill("SIGTERM");
    fail("set-up was stopped; the same command takes it up again", "", INTERRUPTED);
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"];
  for (const signal of signals) process.on(signal, stop);
  const unwatch = onParentEnd(stop);
  try {
    return await work();
  } finally {
    for (const signal of signals) process.off(signal, stop);
    unwatch();
  }
}

/**
 * Runs a command; its output is shown only when it fails.
 * @param {{cwd: string, env?: NodeJS.ProcessEnv, mustFinish?: boolean, mayFail?: boolean, hint?: string,
 *   onStatus?: (line: string) => void}} options
 *   mustFinish: a signal to us does not reach it; mayFail: a failure does not end us;
 *   onStatus: the lines that it writes to descriptor 3
 * @returns {Promise<boolean>} whether it ended well; where it must not fail it has
 */
export function run(
  command,
  args,
  { cwd, env = process.env, mustFinish = false, mayFail = false, hint, onStatus },
) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd,
      env,
      detached: mustFinish,
      stdio: ["ignore", "pipe", "pipe", onStatus === undefined ? "ignore" : "pipe"],
    });
    current = { child, mustFinish };
    let output = "";
    const keep = (chunk) => {
      output = (output + chunk).slice(-8_000);
    };
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    let status = "";
    child.stdio[3]?.on("data", (chunk) => {
      const lines = (status + chunk).split("\n");
      status = lines.pop() ?? "";
      for (const line of lines) onStatus(line);
    });
    child.on("error", (error) => fail(`${command} cannot be started: ${error.message}`));
    child.on("close", (code, signal) => {
      current = undefined;
      if (interrupted) fail("set-up was stopped; the same command takes it up again", "", INTERRUPTED);
      if (code === 0) return resolve(true);
      process.stderr.write(`\n${output.slice(-4_000)}`);
      if (mayFail) return resolve(false);
      fail(`${command} ${args.join(" ").slice(0, 200)} ended with ${code ?? signal}`, hint);
    });
  });
}
