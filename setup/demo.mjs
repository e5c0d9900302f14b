/**
 * `npm run demo`: sets up, then runs simulated boards, sensors and a camera through agent and
 * gateway, all on this machine. Data stays in .data/, so a second start goes on with it.
 */
import { fork } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fail, prepare, root, say } from "./prepare.mjs";

const PROGRAMS = { sim: "firmware-sim", gateway: "gateway", agent: "agent" };
/** What a program may take to drain before it is ended. */
const GRACE_MS = 12_000;
/** The agent's memory is its promise: a small young generation keeps it flat. */
const NODE_FLAGS = { agent: ["--max-semi-space-size=2"], gateway: [], sim: [] };

await prepare("demo");
const logs = join(root, ".data", "logs");
mkdirSync(logs, { recursive: true });

/** @type {Map<string, import("node:child_process").ChildProcess>} */
const running = new Map();
let stopping = false;

say("starting the simulator, the gateway and the agent");
const link = await Promise.all(Object.keys(PROGRAMS).map(start)).then(
  (messages) => messages.find((message) => message?.signInUrl)?.signInUrl,
);
process.stdout.write(`
  Headwater runs: a board, twenty sensors and a camera → agent → gateway.

  Console    ${link}
             (a link for one sign-in; it ends after ten minutes)
  Delivered  .data/delivered/    one file of readings every 15 s
  Kinesis    http://127.0.0.1:8080, key in .data/gateway/access-key.json
  Logs       .data/logs/

  Ctrl-C ends everything; the data stays.

`);

/** Resolves with the program's ready message. */
function start(name) {
  const logFile = join(logs, `${name}.log`);
  const log = openSync(logFile, "w");
  const child = fork(
    join(root, "dist", PROGRAMS[name], "main.js"),
    ["--config", join(root, "config/demo", `${name}.yaml`)],
    {
      cwd: root,
      execArgv: ["--enable-source-maps", ...NODE_FLAGS[name]],
      stdio: ["ignore", log, log, "ipc"],
    },
  );
  closeSync(log);
  running.set(name, child);
  return new Promise((resolve) => {
    child.once("message", resolve);
    child.once("exit", (code, signal) => {
      running.delete(name);
      if (stopping) return;
      process.stderr.write(readFileSync(logFile, "utf8").split("\n").slice(-12).join("\n"));
      process.stderr.write(
        `\nheadwater: the ${name} ended (${signal ?? code}); its log is ${relative(root, logFile)}\n`,
      );
      stop(1);
    });
  });
}

async function stop(code) {
  if (stopping) return;
  stopping = true;
  const ends = [...running.values()].map((child) => new Promise((resolve) => child.once("exit", resolve)));
  for (const child of running.values()) child.kill("SIGTERM");
  const late = setTimeout(() => {
    for (const child of running.values()) child.kill("SIGKILL");
  }, GRACE_MS);
  await Promise.all(ends);
  clearTimeout(late);
  if (code === 0) say("ended; `npm run demo` goes on with the same data");
  process.exit(code);
}

process.on("SIGINT", () => stop(0));
process.on("SIGTERM", () => stop(0));
process.on("SIGHUP", () => stop(0));
// npm, ended by a signal of its own, does not tell its children.
const parent = process.ppid;
setInterval(() => {
  if (process.ppid !== parent) stop(0);
}, 1_000).unref();
if (running.size === 0) fail("nothing was started");
