/**
 * The ordeal of the store `jetstream`: two gateways in front of three NATS nodes, with devices, API
 * clients and deliveries, one for each gateway and one that they share; gateways and nodes are killed at
 * random moments and started again, and hang and wake. Then it is judged by what both gateways give
 * back and by what the deliveries brought.
 *
 * With nats-server before 2.10 nodes hang only where that is asked for: it loses records then by itself (design note 16).
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { copiesMayDiffer } from "../../gateway/streams/stores/jetstream/log/acknowledged.ts";
import { deliveredLines } from "./delivered.ts";
import { type NatsCluster, natsVersion, startNatsCluster } from "./nats-cluster.ts";
import { randomFrom } from "./ordeal.ts";
import { eventually, freePorts, Program } from "./program.ts";
import { removeFolder } from "./remove-folder.ts";
import type { StreamVerdict } from "./stream-ordeal.ts";
import {
  ApiWriter,
  Device,
  judgeRecords,
  kinesisClient,
  READ_WITHIN_MS,
  readStream,
} from "./stream-writers.ts";

const STREAM = "ordeal";
const KEY = { id: "ordeal", secret: "a-secret-of-the-ordeal-alone" };
const DEVICES = 4;
const CLIENTS = 2;
/** An election takes a few seconds, and a killed gateway's lease is held for four. */
const SETTLE_MS = 60_000;
/** What takes longer is worth a look, though nothing is lost. */
const USUAL_MS = 30_000;
/** A lease is held for four seconds without a sign of life. */
const OUTLIVES_LEASE_MS = 5_000;

export interface ClusterOrdealOptions {
  readonly dir: string;
  readonly seed: number;
  readonly seconds: number;
  readonly say: (line: string) => void;
  /** Nodes hang and wake, too; what nats-server is fit for unless given. */
  readonly hangs?: boolean;
}

/** The folder is removed when nothing was found. */
export async function runClusterOrdeal(options: ClusterOrdealOptions): Promise<StreamVerdict> {
  const ordeal = new ClusterOrdeal(options, await startNatsCluster());
  try {
    await ordeal.run();
  } finally {
    await ordeal.close();
  }
  const verdict = ordeal.verdict();
  if (verdict.findings.length === 0) await removeFolder(options.dir);
  return verdict;
}

type Fault = "gateway" | "node" | "node and gateway" | "hung node" | "hung gateway";

/** A delivery that both gateways have: one does it, and the other takes over when that one is killed. */
const SHARED = "shared";

/** A gateway with a delivery of its own and the one that is shared. */
class Front {
  readonly name: string;
  readonly http: number;
  readonly mqtt: number;
  readonly #dir: string;
  #program: Program | undefined;

  constructor(name: string, dir: string, http: number, mqtt: number) {
    this.name = name;
    this.http = http;
    this.mqtt = mqtt;
    this.#dir = dir;
  }

  async configure(servers: readonly string[], rtsp: number): Promise<void> {
    await writeFile(
      join(this.#dir, `${this.name}.yaml`),
      `
dataDir: data-${this.name}
store: { jetstream: { servers: [${servers.join(", ")}], replicas: 3 } }
http: { port: ${this.http} }
mqtt: { port: ${this.mqtt} }
rtsp: { port: ${rtsp} }
accessKeys: [{ id: ${KEY.id}, secret: ${KEY.secret}, allow: ["*"] }]
streams: [{ name: ${STREAM}, shards: 4 }]
delivery:
${[this.name, SHARED].map(deliveryOf).join("\n")}
`,
    );
  }

  async start(): Promise<void> {
    const at = (suffix: string): string => join(this.#dir, `${this.name}.${suffix}`);
    this.#program = new Program("gateway", at("yaml"), at("log"));
    await this.#program.ready;
  }

  async kill(): Promise<void> {
    await this.#program?.kill();
  }

  /** SIGSTOP: its connections stay, and nothing is answered. */
  hang(): void {
    process.kill(this.#program!.pid, "SIGSTOP");
  }

  /** SIGCONT: it goes on with what it had in hand, whoever has taken over meanwhile. */
  wake(): void {
    process.kill(this.#program!.pid, "SIGCONT");
  }

  async stop(): Promise<number | string | undefined> {
    return this.#program?.stop();
  }
}

/** What a gateway counts of the cluster and of what comes by MQTT. */
async function metricsOf(http: number): Promise<string> {
  try {
    const answer = await fetch(`http://127.0.0.1:${http}/metrics`, { signal: AbortSignal.timeout(5_000) });
    const lines = (await answer.text()).split("\n");
    return lines
      .filter((line) => /^headwater_(jetstream|ingest|mqtt)\w*(\{[^}]*\})? [^0]/.test(line))
      .join("; ");
  } catch (error) {
    return String(error);
  }
}

function deliveryOf(name: string): string {
  const destination = `{ type: files, path: delivered-${name} }`;
  return `  - { name: ${name}, stream: ${STREAM}, bufferSeconds: 1, destination: ${destination} }`;
}

class ClusterOrdeal {
  readonly #options: ClusterOrdealOptions;
  readonly #cluster: NatsCluster;
  readonly #random: () => number;
  readonly #findings: string[] = [];
  readonly #faults: Record<Fault, number> = {
    gateway: 0,
    node: 0,
    "node and gateway": 0,
    "hung node": 0,
    "hung gateway": 0,
  };
  readonly #counts = { lost: 0, doubled: 0, corrupted: 0 };
  #fronts: Front[] = [];
  #devices: Device[] = [];
  #clients: ApiWriter[] = [];
  #read = 0;
  #delivered = 0;

  constructor(options: ClusterOrdealOptions, cluster: NatsCluster) {
    this.#options = options;
    this.#cluster = cluster;
    this.#random = randomFrom(options.seed);
  }

  async run(): Promise<void> {
    const { dir } = this.#options;
    const [httpA, mqttA, rtspA, httpB, mqttB, rtspB] = (await freePorts(6)) as [
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    this.#fronts = [new Front("a", dir, httpA, mqttA), new Front("b", dir, httpB, mqttB)];
    await this.#fronts[0]!.configure(this.#cluster.servers, rtspA);
    await this.#fronts[1]!.configure(this.#cluster.servers, rtspB);
    // Both at once, so that they make the same streams at the same moment.
    await Promise.all(this.#fronts.map((front) => front.start()));
    this.#write();
    await this.#harm();
    await this.#settle();
    await this.#judge();
  }

  verdict(): StreamVerdict {
    return {
      ...this.#counts,
      findings: this.#findings,
      compared: {
        ...this.#faults,
        acknowledgedFrames: this.#devices.reduce((sum, { acknowledged }) => sum + acknowledged, 0),
        acknowledgedPuts: this.#clients.reduce((sum, { acknowledged }) => sum + acknowledged.size, 0),
        readRecords: this.#read,
        deliveredRecords: this.#delivered,
      },
    };
  }

  async close(): Promise<void> {
    for (const writer of [...this.#devices, ...this.#clients]) await writer.stop();
    for (const front of this.#fronts) await front.kill();
    await this.#cluster.stop();
  }

  /** Half of the writers begin at one gateway, half at the other; each goes on to the other in its need. */
  #write(): void {
    const turned = (i: number): Front[] => (i % 2 === 0 ? this.#fronts : [...this.#fronts].reverse());
    this.#devices = Array.from(
      { length: DEVICES },
      (_, i) =>
        new Device(
          `pi-${i}`,
          STREAM,
          turned(i).map(({ mqtt }) => mqtt),
        ),
    );
    this.#clients = Array.from(
      { length: CLIENTS },
      (_, i) =>
        new ApiWriter(
          `api-${i}`,
          STREAM,
          turned(i).map(({ http }) => kinesisClient(http, KEY)),
        ),
    );
  }

  async #harm(): Promise<void> {
    const { seconds, say, hangs: nodesHang = !copiesMayDiffer(natsVersion() ?? "") } = this.#options;
    const kinds: Fault[] = ["gateway", "node", "node and gateway", "hung gateway"];
    if (nodesHang) kinds.push("hung node");
    const began = performance.now();
    for (let round = 0; round < kinds.length || performance.now() - began < seconds * 1_000; round++) {
      await wait(500 + this.#random() * 1_500);
      const fault = kinds[round < kinds.length ? round : Math.floor(this.#random() * kinds.length)]!;
      const hangs = fault === "hung node" || fault === "hung gateway";
      const front = fault.includes("gateway") ? this.#fronts[Math.floor(this.#random() * 2)]! : undefined;
      const node = fault.includes("node") ? Math.floor(this.#random() * 3) : undefined;
      const victims = [
        node === undefined ? [] : `node ${node + 1}`,
        front === undefined ? [] : `gateway ${front.name}`,
      ];
      say(
        `${((performance.now() - began) / 1_000).toFixed(1)} s: ${hangs ? "SIGSTOP" : "SIGKILL"} of ${victims.flat().join(" and ")}`,
      );
      this.#faults[fault]++;
      if (hangs && front !== undefined) {
        front.hang();
        await wait(OUTLIVES_LEASE_MS);
        await this.#progress();
        front.wake();
        continue;
      }
      if (hangs) this.#cluster.hang(node!);
      else await Promise.all([node === undefined ? undefined : this.#cluster.kill(node), front?.kill()]);
      await wait(this.#random() * 2_000);
      // The gateway comes back while a node is missing; then the node.
      await front?.start();
      await this.#progress();
      if (node === undefined) continue;
      if (hangs) this.#cluster.wake(node);
      else await this.#cluster.restart(node);
      // Another one may be lost only when this one has what the others have.
      await this.#cluster.current();
    }
  }

  /** Every writer must get on by itself, whatever is missing. */
  async #progress(): Promise<void> {
    const before = this.#acknowledged();
    await eventually("every device and client has something acknowledged", SETTLE_MS, async () =>
      this.#acknowledged().every((count, i) => count > before[i]!) ? true : undefined,
    );
  }

  #acknowledged(): number[] {
    return [...this.#devices, ...this.#clients].map(({ acknowledged }) =>
      typeof acknowledged === "number" ? acknowledged : acknowledged.size,
    );
  }

  async #settle(): Promise<void> {
    const writers = [...this.#devices, ...this.#clients];
    for (const writer of writers) writer.finish();
    const since = performance.now();
    let told = false;
    await eventually("all that was sent is acknowledged", SETTLE_MS, async () => {
      if (writers.every((writer) => writer.idle)) return true;
      if (!told && performance.now() - since > USUAL_MS) {
        told = true;
        await this.#tellWaiting();
      }
      return undefined;
    });
    if (told) this.#options.say(`all was acknowledged after ${Math.round(performance.now() - since)} ms`);
  }

  async #tellWaiting(): Promise<void> {
    const { say } = this.#options;
    for (const writer of [...this.#devices, ...this.#clients]) if (!writer.idle) say(writer.state);
    for (const { name, http } of this.#fronts) say(`gateway ${name}: ${await metricsOf(http)}`);
  }

  async #judge(): Promise<void> {
    const [texts, others] = (await Promise.all(this.#fronts.map(({ http }) => this.#readAll(http)))) as [
      string[],
      string[],
    ];
    this.#read = texts.length;
    if (texts.join("\n") !== others.join("\n")) this.#corrupt("the two gateways give back different records");
    const verdict = judgeRecords(texts, this.#devices, this.#clients);
    for (const kind of ["lost", "doubled", "corrupted"] as const) this.#counts[kind] += verdict[kind];
    this.#findings.push(...verdict.findings);
    for (const name of [...this.#fronts.map((front) => front.name), SHARED])
      await this.#judgeDelivery(name, texts);
    for (const front of this.#fronts) {
      const ended = await front.stop();
      if (ended !== 0) this.#corrupt(`gateway ${front.name} ended with ${ended} instead of 0`);
    }
  }

  async #readAll(http: number): Promise<string[]> {
    const client = kinesisClient(http, KEY, READ_WITHIN_MS);
    try {
      return await readStream(client, STREAM);
    } finally {
      client.destroy();
    }
  }

  /** Each record of the stream is in the files of each delivery, once. */
  async #judgeDelivery(name: string, texts: readonly string[]): Promise<void> {
    const folder = join(this.#options.dir, `delivered-${name}`);
    const idsOf = async (): Promise<string[]> =>
      (await deliveredLines(folder)).map(({ json }) => String(json.id));
    await eventually(`delivery ${name} brings all`, SETTLE_MS, async () =>
      (await idsOf()).length >= texts.length ? true : undefined,
    ).catch((error: unknown) => this.#findings.push(String(error)));
    const ids = await idsOf();
    this.#delivered += ids.length;
    const seen = new Set(ids);
    if (seen.size < ids.length) {
      this.#counts.doubled += ids.length - seen.size;
      this.#findings.push(`delivery ${name} brought ${ids.length - seen.size} records twice`);
    }
    const missing = texts.filter((text) => !seen.has((JSON.parse(text) as { id: string }).id));
    if (missing.length > 0) {
      this.#counts.lost += missing.length;
      this.#findings.push(`delivery ${name} lacks ${missing.length} records, first ${missing[0]}`);
    }
    const extra = seen.size + missing.length - texts.length;
    if (extra !== 0) this.#corrupt(`delivery ${name} brought ${extra} records that the stream does not hold`);
  }

  #corrupt(finding: string): void {
    this.#counts.corrupted++;
    this.#findings.push(finding);
  }
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
