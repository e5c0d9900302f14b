/** The gateway that `bench streams` measures: the real program, with streams for each row and nothing behind them. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { freePorts, Program } from "../../test/support/program.ts";
import type { Endpoint } from "../load/kinesis-requests.ts";

const KEY = { id: "AKIABENCHBENCHBENCH0", secret: "bench-secret-bench-secret-bench-secret-0" };

export const SHARD_SWEEP = [1, 16, 256, 4_096] as const;

export class StreamsGateway {
  readonly #dir: string;
  #program: Program | undefined;
  #http = 0;
  mqttPort = 0;

  constructor(dir: string) {
    this.#dir = dir;
  }

  /** Resolves with the milliseconds until it was ready. */
  async start(): Promise<number> {
    const [http, mqtt, rtsp] = (await freePorts(3)) as [number, number, number];
    this.#http = http;
    this.mqttPort = mqtt;
    await mkdir(this.#dir, { recursive: true });
    const config = join(this.#dir, "gateway.yaml");
    await writeFile(
      config,
      `dataDir: data
http: { port: ${http} }
mqtt: { port: ${mqtt} }
rtsp: { port: ${rtsp} }
log: error
accessKeys: [{ id: "${KEY.id}", secret: "${KEY.secret}", allow: ["*"] }]
streams:
  - { name: bench, shards: 4 }
  - { name: pages, shards: 1 }
  - { name: pushes, shards: 1 }
  - { name: frames, shards: 4 }
  - { name: plain, shards: 4 }
  - { name: stored, shards: 4 }
${SHARD_SWEEP.map((shards) => `  - { name: shards-${shards}, shards: ${shards} }`).join("\n")}
rules:
  - { topic: "plant/#", stream: plain }
`,
    );
    const began = performance.now();
    this.#program = new Program("gateway", config, join(this.#dir, "gateway.log"));
    await this.#program.ready;
    return performance.now() - began;
  }

  get endpoint(): Endpoint {
    return { port: this.#http, key: KEY };
  }

  get pid(): number {
    return this.#program!.pid;
  }

  residentBytes(): Promise<number> {
    return this.#program!.residentBytes();
  }

  async close(): Promise<void> {
    await this.#program?.stop();
    this.#program = undefined;
  }
}
