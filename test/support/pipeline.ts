/**
 * Simulator, agent and gateway as real processes on loopback, in a folder of their own: started,
 * killed and started again as a test wishes, and asked for what they know.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { StatusMessage } from "../../protocol/topics.ts";
import { eventually, freePorts, Program } from "./program.ts";

export interface PipelineOptions {
  readonly dir: string;
  readonly seed: number;
  readonly camera: boolean;
  /** Longer than the longest outage, so that no record comes late. */
  readonly watermarkSeconds: number;
  readonly windowSeconds: number;
}

export const WINDOWS_STREAM = "windows";

interface GatewayState {
  readonly streams: ReadonlyArray<{
    readonly name: string;
    readonly consumers: ReadonlyArray<{ readonly name: string; readonly behind: number }>;
  }>;
  readonly statements: ReadonlyArray<{
    readonly late: number;
    readonly rejected: number;
    readonly watermarkUs?: number;
  }>;
  readonly cameras: ReadonlyArray<{
    readonly camera: string;
    readonly fragments: number;
    readonly quarantined: number;
  }>;
  readonly quarantine: { readonly publishes: number };
}

export class Pipeline {
  readonly dir: string;
  readonly #options: PipelineOptions;
  #ports: {
    http: number;
    mqtt: number;
    rtsp: number;
    agent: number;
    broker: number;
    camera: number;
    control: number;
  };
  #sim: Program | undefined;
  #agent: Program | undefined;
  #gateway: Program | undefined;
  #cookie: string | undefined;

  constructor(options: PipelineOptions) {
    this.#options = options;
    this.dir = options.dir;
    this.#ports = { http: 0, mqtt: 0, rtsp: 0, agent: 0, broker: 0, camera: 0, control: 0 };
  }

  /** Resolves when all three say that they are ready; those in `paused` are left to be started later. */
  async start({ paused = [] }: { paused?: readonly "agent"[] } = {}): Promise<void> {
    const [http, mqtt, rtsp, agent, broker, camera, control] = (await freePorts(7)) as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    this.#ports = { http, mqtt, rtsp, agent, broker, camera, control };
    await mkdir(this.dir, { recursive: true });
    await Promise.all([
      writeFile(this.#config("gateway"), this.#gatewayYaml()),
      writeFile(this.#config("agent"), this.#agentYaml()),
      writeFile(this.#config("firmware-sim"), this.#simYaml()),
    ]);
    this.#sim = this.#program("firmware-sim");
    this.startGateway();
    if (!paused.includes("agent")) this.startAgent();
    await Promise.all([this.#sim.ready, this.#gateway?.ready, this.#agent?.ready]);
  }

  startAgent(): void {
    // As setup/demo.mjs starts it, so that its memory is the demo's.
    this.#agent = this.#program("agent", ["--no-enable-source-maps", "--max-semi-space-size=2"], {
      MALLOC_MMAP_THRESHOLD_: "131072",
    });
  }

  startGateway(): void {
    this.#cookie = undefined;
    this.#gateway = this.#program("gateway");
  }

  get agent(): Program {
    return this.#agent!;
  }

  get gateway(): Program {
    return this.#gateway!;
  }

  path(...parts: string[]): string {
    return join(this.dir, ...parts);
  }

  /** Where records may be published as a sensor does. */
  get brokerUrl(): string {
    return `mqtt://127.0.0.1:${this.#ports.broker}`;
  }

  get httpUrl(): string {
    return `http://127.0.0.1:${this.#ports.http}`;
  }

  /** What an agent says of itself. */
  async agentStatus(): Promise<StatusMessage> {
    const answer = await fetch(`http://127.0.0.1:${this.#ports.agent}/status`);
    return (await answer.json()) as StatusMessage;
  }

  async gatewayState(): Promise<GatewayState> {
    const answer = await fetch(`${this.httpUrl}/api/state`, { headers: { cookie: await this.signIn() } });
    if (answer.status !== 200) throw new Error(`/api/state answered ${answer.status}`);
    return (await answer.json()) as GatewayState;
  }

  /** All that the archive holds of a camera. */
  async footage(
    camera: string,
  ): Promise<Array<{ id: string; epoch: string; sequence: string; state: string }>> {
    const query = `camera=${camera}&fromUs=0&toUs=${Number.MAX_SAFE_INTEGER}&limit=1000`;
    const answer = await fetch(`${this.httpUrl}/api/footage?${query}`, {
      headers: { cookie: await this.signIn() },
    });
    if (answer.status !== 200) throw new Error(`/api/footage answered ${answer.status}`);
    return (
      (await answer.json()) as {
        fragments: Array<{ id: string; epoch: string; sequence: string; state: string }>;
      }
    ).fragments;
  }

  async fragmentFile(camera: string, id: string): Promise<Buffer> {
    const answer = await fetch(`${this.httpUrl}/api/footage/${camera}/${encodeURIComponent(id)}.mp4`, {
      headers: { cookie: await this.signIn() },
    });
    if (answer.status !== 200) throw new Error(`fragment ${id}: ${answer.status}`);
    return Buffer.from(await answer.arrayBuffer());
  }

  /** The sum of a metric's lines that carry `label`, such as `stream="sensors"`. */
  async metric(name: string, label = ""): Promise<number> {
    const text = await (await fetch(`${this.httpUrl}/metrics`)).text();
    const lines = text
      .split("\n")
      .filter((line) => (line.startsWith(`${name} `) || line.startsWith(`${name}{`)) && line.includes(label));
    return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  }

  async stopSending(): Promise<void> {
    const control = `http://127.0.0.1:${this.#ports.control}`;
    await fetch(`${control}/stop-sending`, { method: "POST" });
    if (this.#options.camera) await this.fault({ fault: "stall-camera" });
    const idle = await fetch(`${control}/idle?seconds=240`);
    if (idle.status !== 200) throw new Error(`sensors are not idle: ${await idle.text()}`);
  }

  async fault(fault: object): Promise<void> {
    const answer = await fetch(`http://127.0.0.1:${this.#ports.control}/faults`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(fault),
    });
    if (answer.status !== 200) throw new Error(`fault refused: ${await answer.text()}`);
  }

  /**
   * Resolves when all that was sent has left the agent and every delivery has caught up.
   * @param stuckMs gives up when nothing moved for so long: how fast a busy machine is nobody knows
   */
  async drained(stuckMs: number): Promise<GatewayState> {
    await drained("the agent's buffers", stuckMs, async () => {
      const { buffer, footage } = await this.agentStatus();
      return { left: buffer.waitingRecords + (footage?.waitingRecords ?? 0), state: undefined };
    });
    return drained("what consumers have before them", stuckMs, async () => {
      const state = await this.gatewayState();
      const consumers = state.streams.flatMap((stream) => stream.consumers);
      return { left: consumers.reduce((sum, { behind }) => sum + behind, 0), state };
    });
  }

  /** Ends what runs. Resolves with how the three ended: 0 each, when they drained. */
  async close(): Promise<Array<number | string>> {
    const programs = [this.#agent, this.#gateway, this.#sim].filter((program) => program !== undefined);
    return Promise.all(programs.map((program) => program.stop()));
  }

  /** A cookie of a console session. */
  async signIn(): Promise<string> {
    if (this.#cookie !== undefined) return this.#cookie;
    const key = await readFile(this.path("gateway-data", "access-key.json"), "utf8");
    const answer = await fetch(`${this.httpUrl}/api/session`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: key,
    });
    const cookie = answer.headers.get("set-cookie")?.split(";")[0];
    if (cookie === undefined) throw new Error(`sign-in answered ${answer.status}`);
    this.#cookie = cookie;
    return cookie;
  }

  #program(
    name: "agent" | "gateway" | "firmware-sim",
    nodeFlags: string[] = [],
    environment: Record<string, string> = {},
  ): Program {
    return new Program(name, this.#config(name), this.path(`${name}.log`), nodeFlags, environment);
  }

  #config(name: string): string {
    return this.path(`${name}.yaml`);
  }

  #gatewayYaml(): string {
    const { http, mqtt, rtsp } = this.#ports;
    const { watermarkSeconds, windowSeconds } = this.#options;
    return `
dataDir: gateway-data
log: debug
http: { port: ${http} }
mqtt: { port: ${mqtt} }
rtsp: { port: ${rtsp} }
streams:
  - { name: sensors, shards: 3 }
  - { name: ${WINDOWS_STREAM}, shards: 1 }
delivery:
  - { name: sensors, stream: sensors, bufferSeconds: 4, destination: { type: files, path: delivered/sensors } }
  - { name: windows, stream: ${WINDOWS_STREAM}, bufferSeconds: 4, destination: { type: files, path: delivered/windows } }
  - { name: gaps, stream: headwater-gaps, bufferSeconds: 4, destination: { type: files, path: delivered/gaps } }
analytics:
  - name: windows
    idleSeconds: 3600
    sql: |
      CREATE TABLE readings (
        sensor STRING, \`time\` TIMESTAMP_LTZ(3), temperature DOUBLE, humidity DOUBLE,
        WATERMARK FOR \`time\` AS \`time\` - INTERVAL '${watermarkSeconds}' SECOND
      ) WITH ('connector' = 'kinesis', 'stream' = 'sensors', 'format' = 'json');
      CREATE TABLE results (
        sensor STRING, window_start TIMESTAMP_LTZ(3), window_end TIMESTAMP_LTZ(3),
        n BIGINT, mean DOUBLE, low DOUBLE, high DOUBLE, humid BIGINT
      ) WITH ('connector' = 'kinesis', 'stream' = '${WINDOWS_STREAM}', 'format' = 'json');
      INSERT INTO results
      SELECT sensor, window_start, window_end, COUNT(*) AS n, AVG(temperature) AS mean,
             MIN(temperature) AS low, MAX(temperature) AS high, COUNT(humidity) AS humid
      FROM TABLE(TUMBLE(TABLE readings, DESCRIPTOR(\`time\`), INTERVAL '${windowSeconds}' SECOND))
      GROUP BY sensor, window_start, window_end;
`;
  }

  #agentYaml(): string {
    const { mqtt, rtsp, agent, broker, camera } = this.#ports;
    return `
device: pi-1
dataDir: agent-data
log: debug
gateway: { mqtt: "mqtt://127.0.0.1:${mqtt}", rtsp: "rtsp://127.0.0.1:${rtsp}" }
http: { port: ${agent} }
sources:
  - { name: board, type: serial, path: board.tty }
  - { name: local, type: mqtt, port: ${broker} }
${this.#options.camera ? `  - { name: yard, type: camera, url: "rtsp://127.0.0.1:${camera}/yard" }` : ""}
`;
  }

  #simYaml(): string {
    const { broker, camera, control } = this.#ports;
    return `
seed: ${this.#options.seed}
dataDir: truth
control: { port: ${control} }
board: { path: board.tty }
sensors: { url: "mqtt://127.0.0.1:${broker}", count: 20, hz: 2 }
${this.#options.camera ? `camera: { port: ${camera}, path: yard }` : ""}
`;
  }
}

/** Resolves with the state in which nothing is left. */
async function drained<T>(
  what: string,
  stuckMs: number,
  look: () => Promise<{ readonly left: number; readonly state: T }>,
): Promise<T> {
  let before: number | undefined;
  for (;;) {
    const { left, state } = await eventually(
      `a change in ${what}, ${before ?? "?"} left`,
      stuckMs,
      async () => {
        const seen = await look();
        return seen.left === 0 || seen.left !== before ? seen : undefined;
      },
    );
    if (left === 0) return state;
    before = left;
  }
}
