import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import {
  GetRecordsCommand,
  GetShardIteratorCommand,
  KinesisClient,
  PutRecordsCommand,
} from "@aws-sdk/client-kinesis";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import { connectAsync } from "mqtt";
import { pause } from "../../runtime/backoff.ts";
import { eventually, freePorts, Program } from "../support/program.ts";
import { removeFolder } from "../support/remove-folder.ts";

const STREAM = "steady";
const KEY = { id: "steady", secret: "a-secret-of-this-test-alone" };
const MIB = 1_048_576;
/** First the program's own caches fill, then what it stores must no longer show. */
const WARM_UP_BYTES = 150 * MIB;
const STEADY_BYTES = 600 * MIB;
const MAX_GROWTH_BYTES = 64 * MIB;
/** Looks at its memory while the load goes on, of which the lowest counts: what is in work comes and goes. */
const LOOKS = 30;
const LOOK_EVERY_MS = 100;

async function heldBytes(gateway: Program): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let look = 0; look < LOOKS; look++) {
    least = Math.min(least, await gateway.residentBytes());
    await pause(LOOK_EVERY_MS);
  }
  return least;
}

test("a gateway under mixed load holds no more memory the more it has stored", {
  timeout: 900_000,
}, async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-steady-"));
  const [http, mqtt, rtsp] = (await freePorts(3)) as [number, number, number];
  const config = join(dir, "gateway.yaml");
  await writeFile(
    config,
    `
dataDir: data
http: { port: ${http} }
mqtt: { port: ${mqtt} }
rtsp: { port: ${rtsp} }
accessKeys: [{ id: ${KEY.id}, secret: ${KEY.secret}, allow: ["*"] }]
streams: [{ name: ${STREAM}, shards: 4 }]
rules: [{ topic: "plant/#", stream: ${STREAM} }]
`,
  );
  const gateway = new Program("gateway", config, join(dir, "gateway.log"));
  await gateway.ready;
  const load = new MixedLoad(http, mqtt);
  t.after(async () => {
    await load.stop();
    await gateway.kill();
    await removeFolder(dir);
  });
  await load.start();
  const reach = (bytes: number): Promise<true> =>
    eventually(`${bytes / MIB} MiB stored`, 240_000, async () =>
      load.storedBytes >= bytes ? true : undefined,
    );
  await reach(WARM_UP_BYTES);
  const before = await heldBytes(gateway);
  await reach(WARM_UP_BYTES + STEADY_BYTES);
  const after = await heldBytes(gateway);
  t.diagnostic(`${(before / MIB).toFixed(0)} MiB resident, ${(after / MIB).toFixed(0)} after 600 MiB more`);
  assert.ok(load.readBytes > STEADY_BYTES / 10, `${load.readBytes} bytes were read meanwhile`);
  assert.ok(load.published > 20, `${load.published} messages were published meanwhile`);
  assert.ok(after - before < MAX_GROWTH_BYTES, `from ${before} to ${after} bytes`);
});

/** PutRecords of large records, readers behind them, and a plain MQTT sensor, as fast as they are answered. */
class MixedLoad {
  storedBytes = 0;
  readBytes = 0;
  published = 0;
  readonly #client: KinesisClient;
  readonly #mqttPort: number;
  #running: Array<Promise<void>> = [];
  #stopped = false;

  constructor(httpPort: number, mqttPort: number) {
    this.#mqttPort = mqttPort;
    this.#client = new KinesisClient({
      endpoint: `http://127.0.0.1:${httpPort}`,
      region: "us-east-1",
      credentials: { accessKeyId: KEY.id, secretAccessKey: KEY.secret },
      requestHandler: new NodeHttpHandler(),
    });
  }

  async start(): Promise<void> {
    this.#running = [this.#put("a"), this.#put("b"), this.#read(0), this.#read(1), this.#publish()];
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.allSettled(this.#running);
    this.#client.destroy();
  }

  async #put(name: string): Promise<void> {
    const Data = randomBytes(40_000);
    const Records = Array.from({ length: 50 }, (_, i) => ({ PartitionKey: `${name}${i}`, Data }));
    while (!this.#stopped) {
      await this.#client.send(new PutRecordsCommand({ StreamName: STREAM, Records }));
      this.storedBytes += Records.length * Data.length;
    }
  }

  async #read(shard: number): Promise<void> {
    const ShardId = `shardId-${String(shard).padStart(12, "0")}`;
    const start = { StreamName: STREAM, ShardId, ShardIteratorType: "TRIM_HORIZON" } as const;
    let iterator = (await this.#client.send(new GetShardIteratorCommand(start))).ShardIterator;
    while (!this.#stopped) {
      const page = await this.#client.send(new GetRecordsCommand({ ShardIterator: iterator, Limit: 100 }));
      for (const { Data } of page.Records ?? []) this.readBytes += Data!.length;
      iterator = page.NextShardIterator;
    }
  }

  async #publish(): Promise<void> {
    const client = await connectAsync(`mqtt://127.0.0.1:${this.#mqttPort}`, { clientId: "plant-sensor" });
    for (let i = 0; !this.#stopped; i++) {
      await client.publishAsync("plant/one", `{"n":${i}}`, { qos: 1 });
      this.published++;
    }
    await client.endAsync(true);
  }
}
