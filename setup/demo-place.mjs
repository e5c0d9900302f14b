/**
 * Where a demo keeps its data and which ports it uses. The usual place is config/demo as it stands;
 * for another one its three files are written again, into the demo's own folder.
 */
import { mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";

/** In the order in which `--ports` counts them. */
export const PORTS = {
  console: 8080,
  mqtt: 1883,
  rtsp: 8554,
  broker: 1884,
  status: 8081,
  camera: 8555,
  control: 8082,
};
const USES = {
  console: "the gateway's console and API",
  mqtt: "the gateway's MQTT",
  rtsp: "the gateway's RTSP",
  broker: "the agent's broker for sensors",
  status: "the agent's status page",
  camera: "the simulated camera",
  control: "the simulator's control",
};
const HOST = "127.0.0.1";

/** @returns {typeof PORTS} */
export function portsFrom(base) {
  return Object.fromEntries(Object.keys(PORTS).map((name, i) => [name, base + i]));
}

/** The first port that is taken, what it is for and by whom it is held, as far as we may know. */
export async function takenPort(ports) {
  for (const [name, port] of Object.entries(ports)) {
    if (await canListen(port)) continue;
    return { port, use: USES[name], holder: holderOf(port) };
  }
  return undefined;
}

function canListen(port) {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, HOST, () => server.close(() => resolve(true)));
  });
}

/** `node, process 123`, found by the socket's inode; "" for a process of another user. */
function holderOf(port) {
  const hex = port.toString(16).toUpperCase().padStart(4, "0");
  const listening = "0A";
  const inodes = ["/proc/net/tcp", "/proc/net/tcp6"]
    .flatMap((file) => attempt(() => readFileSync(file, "utf8").split("\n").slice(1), []))
    .map((line) => line.trim().split(/\s+/))
    .filter((row) => row[1]?.endsWith(`:${hex}`) && row[3] === listening)
    .map((row) => `socket:[${row[9]}]`);
  for (const pid of attempt(() => readdirSync("/proc"), []).filter((name) => /^\d+$/.test(name))) {
    for (const fd of attempt(() => readdirSync(`/proc/${pid}/fd`), [])) {
      if (!inodes.includes(attempt(() => readlinkSync(`/proc/${pid}/fd/${fd}`), ""))) continue;
      const command = attempt(() => readFileSync(`/proc/${pid}/comm`, "utf8").trim(), "a program");
      return `${command}, process ${pid}`;
    }
  }
  return "";
}

/** Processes come and go while one reads about them. */
function attempt(read, otherwise) {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

/** Writes the three configs for another place. @returns {Promise<string>} their folder */
export async function writeConfigs(root, dir, ports) {
  // Only here, as before the set-up there are no packages.
  const { parse, stringify } = await import("yaml");
  const read = (name) =>
    parse(readFileSync(join(root, "config/demo", `${name}.yaml`), "utf8").replaceAll("../../.data", dir));
  const gateway = read("gateway");
  gateway.http = { port: ports.console };
  gateway.mqtt = { port: ports.mqtt };
  gateway.rtsp = { port: ports.rtsp };
  const agent = read("agent");
  agent.gateway = { mqtt: `mqtt://${HOST}:${ports.mqtt}`, rtsp: `rtsp://${HOST}:${ports.rtsp}` };
  agent.http = { port: ports.status };
  for (const source of agent.sources) {
    if (source.type === "mqtt") source.port = ports.broker;
    if (source.type === "camera") source.url = `rtsp://${HOST}:${ports.camera}/yard`;
  }
  const sim = read("sim");
  sim.control = { port: ports.control };
  sim.sensors.url = `mqtt://${HOST}:${ports.broker}`;
  sim.camera.port = ports.camera;
  const folder = join(dir, "config");
  mkdirSync(folder, { recursive: true });
  for (const [name, config] of Object.entries({ gateway, agent, sim })) {
    writeFileSync(join(folder, `${name}.yaml`), stringify(config));
  }
  return folder;
}
