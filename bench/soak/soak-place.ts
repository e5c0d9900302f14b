/**
 * Where the hour happens: the real gateway with a delivery and a statement, its TLS ports open beside the
 * plain ones, and a real agent beside it, both as child processes; and what can be seen of the gateway
 * from outside.
 */
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ConnectionOptions } from "node:tls";
import { type DeviceIdentity, tlsOptions } from "../../agent/identity/credentials.ts";
import { freePorts, Program } from "../../test/support/program.ts";
import { cpuSeconds } from "../peers/server.ts";
import type { Door } from "./calls.ts";
import { joinedDevice, strangerLike } from "./device-identity.ts";

const KEY = { id: "AKIASOAKSOAKSOAKSOAK", secret: "soak-secret-soak-secret-soak-secret-soak" };
const WARN = /^\{"level":"(warn|error|fatal)"/;
const MAX_MESSAGES = 100;

/** It comes with a certificate, and publishes and reads at its own paths. */
export const TLS_DEVICE = "soak-tls";

/**
 * `steady` is never resharded, `moving` without end by split and merge, `scaled` by UpdateShardCount; `plain` and
 * `frames` are pushed, `sensors` is the agent's, and `secure` is written and read over TLS alone.
 */
export const STREAMS = {
  steady: 4,
  moving: 2,
  scaled: 2,
  plain: 2,
  frames: 1,
  secure: 2,
  sensors: 2,
  windows: 1,
} as const;
export type StreamName = keyof typeof STREAMS;

export interface Logged {
  times: number;
  /** The whole line, as it came for the first time. */
  readonly first: string;
}

export interface Sight {
  readonly residentBytes: number;
  /** Without the pages of files, such as those of the program itself. */
  readonly anonymousBytes: number;
  readonly descriptors: number;
  readonly threads: number;
  readonly cpuSeconds: number;
}

export class SoakPlace {
  readonly delivered: string;
  mqttPort = 0;
  rtspPort = 0;
  brokerPort = 0;
  httpsPort = 0;
  mqttsPort = 0;
  rtspsPort = 0;
  /** Lines of the gateway's log from `warn` on, by what they say. */
  readonly logged = new Map<string, Logged>();
  readonly #dir: string;
  #http = 0;
  #device: DeviceIdentity | undefined;
  #stranger: DeviceIdentity | undefined;
  #cookie: string | undefined;
  #gateway: Program | undefined;
  #agent: Program | undefined;
  #logRead = 0;

  constructor(dir: string) {
    this.#dir = dir;
    this.delivered = join(dir, "delivered");
  }

  get endpoint(): Door {
    return { port: this.#http, key: KEY };
  }

  /** The same calls over TLS, with the key alone. */
  get secureEndpoint(): Door {
    return { port: this.httpsPort, key: KEY, tls: { ca: this.#device!.ca } };
  }

  /** Shows the certificate of TLS_DEVICE. */
  get deviceTls(): ConnectionOptions {
    return tlsOptions(this.#device!);
  }

  /** Shows one of the same name that another CA has signed. */
  get strangerTls(): ConnectionOptions {
    return tlsOptions(this.#stranger!);
  }

  async start(): Promise<void> {
    const ports = await freePorts(8);
    const [http, mqtt, rtsp, status, broker, https, mqtts, rtsps] = ports as [
      ...[number, number, number, number],
      ...[number, number, number, number],
    ];
    this.#http = http;
    this.mqttPort = mqtt;
    this.rtspPort = rtsp;
    this.brokerPort = broker;
    this.httpsPort = https;
    this.mqttsPort = mqtts;
    this.rtspsPort = rtsps;
    await mkdir(this.#dir, { recursive: true });
    const gateway = join(this.#dir, "gateway.yaml");
    const agent = join(this.#dir, "agent.yaml");
    await writeFile(gateway, gatewayYaml({ http, mqtt, rtsp, https, mqtts, rtsps }));
    await writeFile(
      agent,
      `device: pi-1
dataDir: agent-data
log: warn
gateway: { mqtt: "mqtt://127.0.0.1:${mqtt}", rtsp: "rtsp://127.0.0.1:${rtsp}" }
http: { port: ${status} }
sources: [{ name: local, type: mqtt, port: ${broker} }]
`,
    );
    this.#gateway = new Program("gateway", gateway, join(this.#dir, "gateway.log"));
    await this.#gateway.ready;
    this.#device = await joinedDevice(join(this.#dir, "data"), https, TLS_DEVICE);
    this.#stranger = await strangerLike(this.#device, this.#dir);
    this.#agent = new Program("agent", agent, join(this.#dir, "agent.log"));
    await this.#agent.ready;
  }

  async sight(): Promise<Sight> {
    const { pid } = this.#gateway!;
    const text = await readFile(`/proc/${pid}/status`, "utf8");
    const field = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(text)?.[1] ?? 0);
    return {
      residentBytes: field("VmRSS") * 1_024,
      anonymousBytes: field("RssAnon") * 1_024,
      descriptors: (await readdir(`/proc/${pid}/fd`)).length,
      threads: field("Threads"),
      cpuSeconds: cpuSeconds(pid),
    };
  }

  /** What the console's API has at this path. @throws unless it is 200 */
  async read(path: string): Promise<Buffer> {
    this.#cookie ??= await this.#signIn();
    const answer = await fetch(`http://127.0.0.1:${this.#http}${path}`, {
      headers: { cookie: this.#cookie },
    });
    const body = Buffer.from(await answer.arrayBuffer());
    if (answer.status !== 200) throw new Error(`${path} answered ${answer.status}`);
    return body;
  }

  async #signIn(): Promise<string> {
    const answer = await fetch(`http://127.0.0.1:${this.#http}/api/session`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ accessKeyId: KEY.id, secretAccessKey: KEY.secret }),
    });
    const cookie = answer.headers.get("set-cookie")?.split(";")[0];
    if (cookie === undefined) throw new Error(`sign-in answered ${answer.status}`);
    return cookie;
  }

  agentResidentBytes(): Promise<number> {
    return this.#agent!.residentBytes();
  }

  /** Bytes of disk under the gateway's folder. */
  async storedBytes(): Promise<number> {
    const folder = join(this.#dir, "data");
    let blocks = 0;
    for (const name of await readdir(folder, { recursive: true })) {
      // A file may be removed while it is looked for.
      const found = await stat(join(folder, name)).catch(() => undefined);
      if (found?.isFile()) blocks += found.blocks;
    }
    return blocks * 512;
  }

  /** Counts what the gateway has logged since it was last looked at. */
  async readLog(): Promise<void> {
    const log = await readFile(join(this.#dir, "gateway.log"));
    const end = log.lastIndexOf(10) + 1;
    for (const line of log.toString("utf8", this.#logRead, end).split("\n")) {
      if (line === "") continue;
      const says = WARN.test(line) ? (JSON.parse(line) as { msg: string }).msg : line.slice(0, 200);
      const known = this.logged.get(says);
      if (known !== undefined) known.times++;
      else if (this.logged.size < MAX_MESSAGES)
        this.logged.set(says, { times: 1, first: line.slice(0, 500) });
    }
    this.#logRead = end;
  }

  /** How the two ended: 0 each when they drained. */
  async close(): Promise<Array<number | string>> {
    const programs = [this.#agent, this.#gateway].filter((program) => program !== undefined);
    this.#agent = undefined;
    this.#gateway = undefined;
    const ends: Array<number | string> = [];
    for (const program of programs) ends.push(await program.stop());
    return ends;
  }
}

type Ports = Readonly<Record<"http" | "mqtt" | "rtsp" | "https" | "mqtts" | "rtsps", number>>;

/** So little footage is kept that the oldest goes while the hour lasts. */
function gatewayYaml({ http, mqtt, rtsp, https, mqtts, rtsps }: Ports): string {
  return `dataDir: data
http: { port: ${http} }
mqtt: { port: ${mqtt} }
rtsp: { port: ${rtsp} }
tls: { https: ${https}, mqtts: ${mqtts}, rtsps: ${rtsps} }
video: { maxBytes: 4MiB }
log: warn
accessKeys: [{ id: "${KEY.id}", secret: "${KEY.secret}", allow: ["*"] }]
streams:
${Object.entries(STREAMS)
  .map(([name, shards]) => `  - { name: ${name}, shards: ${shards} }`)
  .join("\n")}
rules: [{ topic: "plant/#", stream: plain }, { topic: "vault/#", stream: secure }]
delivery:
  - { name: sensors, stream: sensors, bufferSeconds: 5, destination: { type: files, path: delivered } }
analytics:
  - name: windows
    idleSeconds: 30
    sql: |
      CREATE TABLE readings (
        producer STRING, seq BIGINT, \`time\` TIMESTAMP_LTZ(3),
        WATERMARK FOR \`time\` AS \`time\` - INTERVAL '2' SECOND
      ) WITH ('connector' = 'kinesis', 'stream' = 'sensors', 'format' = 'json');
      CREATE TABLE results (
        producer STRING, window_start TIMESTAMP_LTZ(3), window_end TIMESTAMP_LTZ(3), n BIGINT, low BIGINT, high BIGINT
      ) WITH ('connector' = 'kinesis', 'stream' = 'windows', 'format' = 'json');
      INSERT INTO results
      SELECT producer, window_start, window_end, COUNT(*) AS n, MIN(seq) AS low, MAX(seq) AS high
      FROM TABLE(TUMBLE(TABLE readings, DESCRIPTOR(\`time\`), INTERVAL '5' SECOND))
      GROUP BY producer, window_start, window_end;
`;
}
