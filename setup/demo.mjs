/**
 * `npm run demo`: sets up, then runs simulated boards, sensors and a camera through agent and
 * gateway, all on this machine. Data stays in .data/, so a second start goes on with it. A program
 * that is killed is started again: nothing that was acknowledged is lost by that.
 */
import { fork } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { parseArgs } from "node:util";
import { claim } from "./claim.mjs";
import { onParentEnd } from "./command.mjs";
import { PORTS, portsFrom, takenPort, writeConfigs } from "./demo-place.mjs";
import { prepare, root } from "./prepare.mjs";
import { fail, say } from "./terminal.mjs";

const HELP = `npm run demo                       data in .data/, the usual ports
npm run demo -- --dir FOLDER       data in another folder
npm run demo -- --ports 18080      seven ports from this one on instead of ${Object.values(PORTS).join(", ")}
`;
const PROGRAMS = { sim: "firmware-sim", gateway: "gateway", agent: "agent" };
/** What a program may take to drain before it is ended. */
const GRACE_MS = 12_000;
/** A program that ends more often than this within a minute is not started again. */
const MAX_RESTARTS = 5;
const RESTART_WINDOW_MS = 60_000;
const RESTART_PAUSE_MS = 500;
/**
 * The agent's memory is its promise; docs/design/0009-agent-memory.md has the figures. Source maps
 * would cost it 4 MB. The nursery's size can only be said before V8 starts.
 */
const SOURCE_MAPS = ["--enable-source-maps"];
const NODE_FLAGS = { agent: ["--max-semi-space-size=2"], gateway: SOURCE_MAPS, sim: SOURCE_MAPS };
/**
 * glibc raises this threshold to the largest buffer that it ever gave back, and from then on keeps
 * the room of groups of pictures: 20 MB of holes. It reads this only as a process begins.
 */
const ENVIRONMENT = { agent: { MALLOC_MMAP_THRESHOLD_: "131072" }, gateway: {}, sim: {} };

const LOG_TAIL_LINES = 8;

const { dir, ports, usual } = readArguments();
await refuseTakenPorts();
await prepare("demo");

const mine = claim(join(dir, "demo.pid"));
if (mine.holder !== undefined) {
  fail(`a demo with the data in ${shown(dir)} runs already (process ${mine.holder})`, elsewhere());
}
const configs = usual ? join(root, "config/demo") : await writeConfigs(root, dir, ports);
const logs = join(dir, "logs");
mkdirSync(logs, { recursive: true });

/** @type {Map<string, import("node:child_process").ChildProcess>} */
const running = new Map();
/** @type {Map<string, number[]>} when each program was started again */
const restarts = new Map();
let stopping = false;

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => stop(0));
onParentEnd(() => stop(0));

say("starting the simulator, the gateway and the agent");
// The agent last: it would do without the others, but report that it had to wait for them.
const ready = await Promise.all(["sim", "gateway"].map((name) => start(name, "w")));
if (!stopping) ready.push(await start("agent", "w"));
const link = ready.find((message) => message.signInUrl)?.signInUrl;
if (!stopping) {
  process.stdout.write(`
  Headwater runs: a board, twenty sensors and a camera → agent → gateway.

  Console    ${link}
             (a link for one sign-in; it ends after ten minutes)
  Send       mosquitto_pub -p ${ports.broker} -q 1 -t greenhouse/temperature -m 21.5
  Delivered  ${shown(join(dir, "delivered"))}/    one file of readings every 15 s
  Kinesis    http://127.0.0.1:${ports.console}, key in ${shown(join(dir, "gateway/access-key.json"))}
  Logs       ${shown(logs)}/
  Processes  ${[...running].map(([name, { pid }]) => `${name} ${pid}`).join(", ")}; kill -9 one: it is started again

  Ctrl-C ends everything; the data stays.

`);
}

function readArguments() {
  try {
    const { values } = parseArgs({
      options: { dir: { type: "string" }, ports: { type: "string" }, help: { type: "boolean" } },
    });
    if (values.help) {
      process.stdout.write(HELP);
      process.exit(0);
    }
    const base = Number(values.ports ?? PORTS.console);
    if (!Number.isInteger(base) || base < 1024 || base > 65_000) {
      fail(`--ports ${values.ports} is no port from 1024 to 65000`, HELP, 2);
    }
    return {
      // npm runs us in the checkout; a relative folder is meant from where the user is.
      dir: values.dir === undefined ? join(root, ".data") : resolve(process.env.INIT_CWD ?? ".", values.dir),
      ports: values.ports === undefined ? PORTS : portsFrom(base),
      usual: values.dir === undefined && values.ports === undefined,
    };
  } catch (error) {
    return fail(error.message, HELP, 2);
  }
}

/** Before the set-up, so that nobody waits for that in vain. */
async function refuseTakenPorts() {
  const taken = await takenPort(ports);
  if (taken === undefined) return;
  const by = taken.holder === "" ? "another program" : taken.holder;
  fail(`port ${taken.port} is taken by ${by}; the demo needs it for ${taken.use}`, elsewhere());
}

function elsewhere() {
  const other = ports === PORTS ? 18_080 : ports.console + 100;
  return `End that, or run this demo beside it:\n\n  npm run demo -- --dir ${shown(dir)}-2 --ports ${other}\n`;
}

function shown(path) {
  const short = relative(root, path);
  return short.startsWith("..") ? path : short;
}

/** Resolves with the program's ready message. */
function start(name, logMode) {
  const logFile = join(logs, `${name}.log`);
  const log = openSync(logFile, logMode);
  const child = fork(
    join(root, "dist", PROGRAMS[name], "main.js"),
    ["--config", join(configs, `${name}.yaml`)],
    {
      cwd: root,
      execArgv: NODE_FLAGS[name],
      env: { ...process.env, ...ENVIRONMENT[name] },
      stdio: ["ignore", log, log, "ipc"],
    },
  );
  closeSync(log);
  running.set(name, child);
  let wasReady = false;
  return new Promise((resolve) => {
    child.once("message", (message) => {
      wasReady = true;
      resolve(message);
    });
    child.once("exit", (code, signal) => {
      running.delete(name);
      if (stopping) return resolve({});
      const how = signal ?? `exit code ${code}`;
      if (wasReady && mayRestart(name)) return void restart(name, how);
      process.stderr.write(`${logTail(logFile)}\n`);
      process.stderr.write(`headwater: the ${name} ended (${how}); its log is ${shown(logFile)}\n`);
      stop(1);
    });
  });
}

function mayRestart(name) {
  const nowMs = performance.now();
  const recent = (restarts.get(name) ?? []).filter((atMs) => nowMs - atMs < RESTART_WINDOW_MS);
  if (recent.length >= MAX_RESTARTS) return false;
  restarts.set(name, [...recent, nowMs]);
  return true;
}

async function restart(name, how) {
  say(`the ${name} ended (${how}); starting it again`);
  await new Promise((resolve) => setTimeout(resolve, RESTART_PAUSE_MS));
  if (stopping) return;
  const { signInUrl } = await start(name, "a");
  if (stopping) return;
  say(`the ${name} runs again, process ${running.get(name)?.pid}`);
  if (signInUrl !== undefined) say(`its sessions ended with it; a new link: ${signInUrl}`);
}

/** The last lines, of which ours say only what happened. */
function logTail(file) {
  const lines = readFileSync(file, "utf8").trimEnd().split("\n").slice(-LOG_TAIL_LINES);
  return lines
    .map((line) => {
      try {
        const { msg, error } = JSON.parse(line);
        return `  ${msg}${error === undefined ? "" : `: ${error}`}`;
      } catch {
        return `  ${line}`;
      }
    })
    .join("\n");
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
  const [, , ...args] = process.argv;
  const again = ["npm run demo", ...(args.length > 0 ? ["--", ...args] : [])].join(" ");
  if (code === 0) say(`ended; \`${again}\` goes on with the same data`);
  process.exit(code);
}
