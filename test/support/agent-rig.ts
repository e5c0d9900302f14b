/**
 * An agent with all kinds of sources, on a disk of its own, with a bad network around it:
 *
 *   sensors ─proxy→ ┐
 *   posts ────────→ │       ┌─ proxy (MQTT) ─┐
 *   log ──────────→ │ agent ┤                ├→ gateway
 *   board ─PTY────→ │       └─ proxy (RTSP) ─┘
 *   camera ─proxy─→ ┘
 *
 * Agent, gateway, board and camera are real processes. What ends by itself is started again.
 */
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { StatusMessage } from "../../protocol/topics.ts";
import { KeptRunning } from "./kept-running.ts";
import { NumberedLog, NumberedPoster, NumberedSensor, type NumberedSource } from "./numbered-sources.ts";
import { eventually, freePorts, Program, type ProgramName } from "./program.ts";
import { SmallDisk } from "./small-disk.ts";
import { kinesisClient, READ_WITHIN_MS, readStream } from "./stream-writers.ts";
import { TcpProxy } from "./tcp-proxy.ts";

export interface AgentRigOptions {
  readonly dir: string;
  readonly seed: number;
  readonly say: (line: string) => void;
  readonly random: () => number;
  /** Such as what lets the agent live by another clock. */
  readonly agentEnvironment?: Readonly<Record<string, string>>;
  /** Of all records of the sources. */
  readonly liveFirst?: boolean;
}

const DISK_BYTES = 96 * 1_048_576;
/** The agent's `buffer.minFreeBytes`. */
export const MIN_FREE_BYTES = 8 * 1_048_576;
const KEY = { id: "ordeal", secret: "a-secret-of-the-ordeal-alone" };
const SENSORS = 6;
const SENSOR_HZ = 20;
const OTHER_HZ = 10;
const STALL_SECONDS = 3;
/** A process that was killed takes a moment to let go of its files. */
const UNMOUNT_MS = 60_000;

export const PROXIES = ["sensors", "camera", "mqtt", "rtsp"] as const;
export type ProxyName = (typeof PROXIES)[number];

interface Ports {
  readonly http: number;
  readonly mqtt: number;
  readonly rtsp: number;
  readonly agent: number;
  readonly broker: number;
  readonly posts: number;
  readonly camera: number;
  readonly cameraControl: number;
  readonly boardControl: number;
}

export interface ArchivedFragment {
  readonly id: string;
  readonly epoch: string;
  readonly sequence: string;
  readonly state: string;
}

export class AgentRig {
  readonly agent: KeptRunning;
  readonly gateway: KeptRunning;
  readonly board: KeptRunning;
  readonly camera: KeptRunning;
  readonly sources: NumberedSource[] = [];
  readonly log: NumberedLog;
  readonly #options: AgentRigOptions;
  readonly #proxies = new Map<ProxyName, TcpProxy>();
  #poster: NumberedPoster | undefined;
  #ports: Ports | undefined;
  #disk: SmallDisk | undefined;

  constructor(options: AgentRigOptions) {
    this.#options = options;
    const { agentEnvironment } = options;
    this.agent = new KeptRunning(() => this.#program("agent", "agent", agentEnvironment));
    this.gateway = new KeptRunning(() => this.#program("gateway", "gateway"));
    this.board = new KeptRunning(() => this.#program("firmware-sim", "board"));
    this.camera = new KeptRunning(() => this.#program("firmware-sim", "camera"));
    this.log = new NumberedLog({ sensor: "log", path: this.path("app.log"), hz: OTHER_HZ });
  }

  /** Undefined where this machine cannot have one: then nothing is harmed that needs it. */
  get disk(): SmallDisk | undefined {
    return this.#disk;
  }

  get poster(): NumberedPoster {
    return this.#poster!;
  }

  path(...parts: string[]): string {
    return join(this.#options.dir, ...parts);
  }

  proxy(name: ProxyName): TcpProxy {
    return this.#proxies.get(name)!;
  }

  /** Resolves when everything runs and sends. */
  async start(): Promise<void> {
    const { dir, say } = this.#options;
    await mkdir(dir, { recursive: true });
    const disk = await SmallDisk.make(DISK_BYTES);
    if (typeof disk === "string") say(`LEFT OUT: power cuts and full disks, as ${disk}`);
    else this.#disk = disk;
    await this.#takePorts();
    await this.#writeConfigs();
    for (const program of [this.gateway, this.agent, this.board, this.camera]) program.start();
    await Promise.all([this.gateway, this.agent, this.board, this.camera].map((program) => program.ready()));
    this.#makeSources();
    for (const source of this.sources) source.start();
  }

  async #takePorts(): Promise<void> {
    const names = [
      ...(["http", "mqtt", "rtsp", "agent", "broker"] as const),
      ...(["posts", "camera", "cameraControl", "boardControl"] as const),
    ];
    const free = await freePorts(names.length);
    const ports = Object.fromEntries(names.map((name, i) => [name, free[i]!])) as unknown as Ports;
    this.#ports = ports;
    const targets = { sensors: ports.broker, camera: ports.camera, mqtt: ports.mqtt, rtsp: ports.rtsp };
    for (const name of PROXIES) {
      const proxy = new TcpProxy({ targetPort: targets[name], random: this.#options.random });
      await proxy.start();
      this.#proxies.set(name, proxy);
    }
  }

  #makeSources(): void {
    const sensorsUrl = `mqtt://127.0.0.1:${this.proxy("sensors").port}`;
    for (let i = 1; i <= SENSORS; i++)
      this.sources.push(new NumberedSensor({ sensor: `rig/s${i}`, url: sensorsUrl, hz: SENSOR_HZ }));
    const url = `http://127.0.0.1:${this.#ports!.posts}`;
    this.#poster = new NumberedPoster({ sensor: "door", url, hz: OTHER_HZ });
    this.sources.push(this.#poster, this.log);
  }

  #program(name: ProgramName, file: string, environment?: Readonly<Record<string, string>>): Program {
    const [config, log] = [this.path(`${file}.yaml`), this.path(`${file}.log`)];
    return new Program(name, config, log, [], environment);
  }

  async #writeConfigs(): Promise<void> {
    const { seed } = this.#options;
    const { camera, cameraControl, boardControl } = this.#ports!;
    const configs = {
      gateway: this.#gatewayYaml(),
      agent: this.#agentYaml(),
      board: `
seed: ${seed}
dataDir: board-truth
control: { port: ${boardControl} }
board: { path: board.tty, hz: ${OTHER_HZ} }
`,
      camera: `
seed: ${seed}
dataDir: camera-truth
control: { port: ${cameraControl} }
camera: { port: ${camera}, path: yard, width: 320, height: 240, fps: 10, keyFrameSeconds: 1 }
`,
    };
    for (const [name, text] of Object.entries(configs)) await writeFile(this.path(`${name}.yaml`), text);
  }

  #gatewayYaml(): string {
    const { http, mqtt, rtsp } = this.#ports!;
    return `
dataDir: gateway-data
log: debug
http: { port: ${http} }
mqtt: { port: ${mqtt} }
rtsp: { port: ${rtsp} }
accessKeys: [{ id: ${KEY.id}, secret: ${KEY.secret}, allow: ["*"] }]
streams: [{ name: sensors, shards: 3 }]
`;
  }

  #agentYaml(): string {
    const { agent, broker, posts } = this.#ports!;
    const port = (name: ProxyName): number => this.proxy(name).port;
    return `
device: pi-1
dataDir: ${join(this.#disk?.path ?? this.#options.dir, "agent-data")}
log: debug
gateway: { mqtt: "mqtt://127.0.0.1:${port("mqtt")}", rtsp: "rtsp://127.0.0.1:${port("rtsp")}" }
http: { port: ${agent} }
sources:
  - { name: board, type: serial, path: board.tty }
  - { name: local, type: mqtt, port: ${broker} }
  - { name: door, type: http, port: ${posts} }
  - { name: log, type: file, path: app.log, format: json-lines, pollMs: 50, rotateWaitMs: 500 }
  - { name: yard, type: camera, url: "rtsp://127.0.0.1:${port("camera")}/yard", stallSeconds: ${STALL_SECONDS} }
buffer: { maxBytes: 32MiB, minFreeBytes: ${MIN_FREE_BYTES}, commitDelayMs: 20 }
video: { maxBytes: 32MiB }
${this.#options.liveFirst === true ? "uplink: { liveFirst: [sensors] }" : ""}
`;
  }

  /** What the agent says of itself. */
  async agentStatus(): Promise<StatusMessage> {
    const answer = await fetch(`http://127.0.0.1:${this.#ports!.agent}/status`, {
      signal: AbortSignal.timeout(5_000),
    });
    return (await answer.json()) as StatusMessage;
  }

  /** `{"fault": "unplug-board"}` and the like. */
  async boardFault(fault: object): Promise<void> {
    const answer = await this.#boardDoor("faults", "POST", JSON.stringify(fault));
    if (answer.status !== 200) throw new Error(`fault refused: ${await answer.text()}`);
  }

  /** Resolves when all that the board said is on its way through the PTY. */
  async quietenBoard(): Promise<void> {
    await this.#boardDoor("stop-sending", "POST");
    await this.#boardDoor("idle?seconds=20", "GET");
  }

  #boardDoor(path: string, method: string, body?: string): Promise<Response> {
    const headers = { "content-type": "application/json" };
    const url = `http://127.0.0.1:${this.#ports!.boardControl}/${path}`;
    return fetch(url, { method, headers, ...(body !== undefined && { body }) });
  }

  /** All records of a stream of the gateway, those of each shard in order. */
  async read(stream: string): Promise<string[]> {
    const client = kinesisClient(this.#ports!.http, KEY, READ_WITHIN_MS);
    try {
      return await readStream(client, stream);
    } finally {
      client.destroy();
    }
  }

  async footage(): Promise<ArchivedFragment[]> {
    const query = `camera=yard&fromUs=0&toUs=${Number.MAX_SAFE_INTEGER}&limit=1000`;
    const answer = await this.#ask(`/api/footage?${query}`);
    return ((await answer.json()) as { fragments: ArchivedFragment[] }).fragments;
  }

  async fragmentFile(id: string): Promise<Buffer> {
    const answer = await this.#ask(`/api/footage/yard/${encodeURIComponent(id)}.mp4`);
    return Buffer.from(await answer.arrayBuffer());
  }

  /** Publishes of the agent that the gateway could not understand. */
  async quarantined(): Promise<number> {
    const state = (await (await this.#ask("/api/state")).json()) as { quarantine: { publishes: number } };
    return state.quarantine.publishes;
  }

  async #ask(path: string): Promise<Response> {
    const url = `http://127.0.0.1:${this.#ports!.http}`;
    const session = await fetch(`${url}/api/session`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ accessKeyId: KEY.id, secretAccessKey: KEY.secret }),
    });
    const cookie = session.headers.get("set-cookie")?.split(";")[0] ?? "";
    const answer = await fetch(`${url}${path}`, { headers: { cookie } });
    if (answer.status !== 200) throw new Error(`${path} answered ${answer.status}`);
    return answer;
  }

  /**
   * From now on nothing of the agent reaches its disk. What ran on the device is gone, its ffmpeg too, and the disk
   * is mounted again, as at the next boot.
   */
  async cutPower(): Promise<void> {
    const disk = this.#disk!;
    await disk.cutPower(this.agent.pid);
    await this.agent.kill();
    for (const pid of await this.#ffmpegsOf([this.proxy("camera").port])) process.kill(pid, "SIGKILL");
    await eventually("nobody has a file open on the disk", UNMOUNT_MS, async () => {
      await disk.unmount();
      return true;
    });
    await disk.mount();
  }

  /** Every ffmpeg that has to do with this camera, the camera's own encoder among them. */
  ffmpegs(): Promise<number[]> {
    return this.#ffmpegsOf([this.#ports!.camera, this.proxy("camera").port]);
  }

  async #ffmpegsOf(ports: readonly number[]): Promise<number[]> {
    const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
    const found: number[] = [];
    for (const pid of pids) {
      const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      const [program = ""] = command.split("\0");
      if (program.endsWith("ffmpeg") && ports.some((port) => command.includes(`:${port}/`)))
        found.push(Number(pid));
    }
    return found;
  }

  /** Ends everything. Resolves with how agent and gateway ended: 0 each, when they drained. */
  async close(): Promise<Array<number | string>> {
    for (const source of this.sources) await source.close();
    const ends = await Promise.all([this.agent.stop(), this.gateway.stop()]);
    await Promise.all([this.board.stop(), this.camera.stop()]);
    for (const proxy of this.#proxies.values()) await proxy.close();
    return ends;
  }

  /** After `close`: nobody has a file open there any more. */
  async removeDisk(): Promise<void> {
    await this.#disk?.remove();
  }
}
