/**
 * Devices and API clients that write to a stream without end and know what was acknowledged; all that
 * the stream holds, read by the API; and the judgement of the one by the other.
 */
import { createHash } from "node:crypto";
import {
  GetRecordsCommand,
  GetShardIteratorCommand,
  KinesisClient,
  ListShardsCommand,
  PutRecordsCommand,
} from "@aws-sdk/client-kinesis";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import { connect, type MqttClient } from "mqtt";
import { encodeFrame } from "../../protocol/frame.ts";
import { encodeBatch } from "../../protocol/record-batch.ts";
import { topicOf } from "../../protocol/topics.ts";

/** Publishes of a device on their way at once. */
const WINDOW = 4;
export const FRAME_RECORDS = 20;
const PUT_RECORDS = 25;
/** For who reads all at the end, as slow as the machine may be. */
export const READ_WITHIN_MS = 30_000;

export function kinesisClient(
  httpPort: number,
  key: { id: string; secret: string },
  requestTimeoutMs = 5_000,
): KinesisClient {
  return new KinesisClient({
    endpoint: `http://127.0.0.1:${httpPort}`,
    region: "us-east-1",
    maxAttempts: 1,
    credentials: { accessKeyId: key.id, secretAccessKey: key.secret },
    requestHandler: new NodeHttpHandler({
      requestTimeout: requestTimeoutMs,
      connectionTimeout: 2_000,
      throwOnRequestTimeout: true,
    }),
  });
}

/** The records of each shard in order. */
export async function readStream(client: KinesisClient, stream: string): Promise<string[]> {
  const texts: string[] = [];
  const { Shards = [] } = await client.send(new ListShardsCommand({ StreamName: stream }));
  for (const { ShardId } of Shards) {
    const start = { StreamName: stream, ShardId, ShardIteratorType: "TRIM_HORIZON" } as const;
    let iterator = (await client.send(new GetShardIteratorCommand(start))).ShardIterator;
    while (iterator !== undefined) {
      const page = await client.send(new GetRecordsCommand({ ShardIterator: iterator }));
      for (const { Data } of page.Records ?? []) texts.push(Buffer.from(Data!).toString());
      iterator = page.NextShardIterator;
      if ((page.Records ?? []).length === 0 && page.MillisBehindLatest === 0) break;
    }
  }
  return texts;
}

export interface RecordVerdict {
  lost: number;
  doubled: number;
  /** Out of order within a device, or changed. */
  corrupted: number;
  readonly findings: string[];
}

/** @param texts of each shard in order; what was not acknowledged may be among them, once */
export function judgeRecords(
  texts: readonly string[],
  devices: readonly Device[],
  clients: readonly ApiWriter[],
): RecordVerdict {
  const verdict: RecordVerdict = { lost: 0, doubled: 0, corrupted: 0, findings: [] };
  const find = (kind: "lost" | "doubled" | "corrupted", finding: string, times = 1): void => {
    verdict[kind] += times;
    if (verdict.findings.length < 50) verdict.findings.push(finding);
  };
  const seen = new Map<string, number>();
  const lastOf = new Map<string, number>();
  for (const text of texts) {
    const record = parse(text);
    if (record === undefined) {
      find("corrupted", `a record is not what was sent: ${text.slice(0, 80)}`);
      continue;
    }
    const { name, id, counter } = record;
    seen.set(id, (seen.get(id) ?? 0) + 1);
    if (!name.startsWith("pi-")) continue;
    if (counter < (lastOf.get(name) ?? 0)) find("corrupted", `${name}: ${counter} stands behind a later one`);
    lastOf.set(name, counter);
  }
  for (const [id, count] of seen) if (count > 1) find("doubled", `${id} came ${count} times`, count - 1);
  const expect = (id: string): void => {
    if (!seen.has(id)) find("lost", `${id} was acknowledged and is not there`);
  };
  for (const { name, acknowledged, unsent } of devices) {
    for (let counter = 1; counter <= acknowledged * FRAME_RECORDS; counter++)
      if (!unsent.has(Math.ceil(counter / FRAME_RECORDS))) expect(`${name}/${counter}`);
  }
  for (const { acknowledged } of clients) {
    for (const put of acknowledged) for (let i = 0; i < PUT_RECORDS; i++) expect(`${put}.${i}`);
  }
  return verdict;
}

/** An agent's uplink in its simplest form: frames of an epoch in order, sent again until acknowledged. */
export class Device {
  readonly name: string;
  /** The last frame that was; all before it were as well, but those in `unsent`. */
  acknowledged = 0;
  /** Frames below `acknowledged` that were not: the connection broke while the client still sent older ones again. */
  readonly unsent = new Set<number>();
  readonly #stream: string;
  readonly #client: MqttClient;
  #sequence = 0;
  readonly #inFlight = new Set<number>();
  #stopped = false;

  /** @param ports of the gateways; it goes on to the next one where a connection ends */
  constructor(name: string, stream: string, ports: readonly number[]) {
    this.name = name;
    this.#stream = stream;
    this.#client = connect({
      servers: ports.map((port) => ({ host: "127.0.0.1", port, protocol: "mqtt" as const })),
      clientId: `headwater-${name}`,
      username: name,
      protocolVersion: 4,
      clean: true,
      reconnectPeriod: 150,
      connectTimeout: 3_000,
      keepalive: 5,
    });
    this.#client.on("error", () => {});
    for (let i = 0; i < WINDOW; i++) void this.#send();
  }

  get idle(): boolean {
    return this.#inFlight.size === 0;
  }

  /** For whoever asks why it is not idle. */
  get state(): string {
    const { connected, reconnecting, options } = this.#client;
    const link = connected ? "connected" : reconnecting ? "reconnecting" : "not connected";
    return `${this.name}: ${link} to port ${options.port}, frames ${[...this.#inFlight].join(", ")} are under way, ${this.acknowledged} is acknowledged`;
  }

  finish(): void {
    this.#stopped = true;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#client.endAsync(true);
  }

  async #send(): Promise<void> {
    while (!this.#stopped) {
      const sequence = ++this.#sequence;
      const records = Array.from({ length: FRAME_RECORDS }, (_, i) => ({
        key: this.name,
        timeUs: Date.now() * 1_000,
        payload: Buffer.from(signed(`${this.name}/${(sequence - 1) * FRAME_RECORDS + i + 1}`)),
      }));
      const frame = encodeFrame(
        {
          device: this.name,
          stream: this.#stream,
          epoch: 1n,
          epochStart: 1,
          sequence: BigInt(sequence),
          storedUs: Date.now() * 1_000,
          recordCount: records.length,
          timeSource: "system",
        },
        encodeBatch(records),
      );
      this.#inFlight.add(sequence);
      try {
        await this.#client.publishAsync(topicOf(this.name, "frames"), frame, { qos: 1 });
        // The gateway acknowledges in order, so the highest tells all before it.
        this.acknowledged = Math.max(this.acknowledged, sequence);
      } catch {
        // The client never sent it, or nobody knows; it is not tried again behind later ones.
        this.unsent.add(sequence);
      } finally {
        this.#inFlight.delete(sequence);
      }
      await wait(10);
    }
  }
}

/** A client of the API: what fails is tried again under a name of its own, as it may have been stored. */
export class ApiWriter {
  readonly acknowledged = new Set<string>();
  readonly #name: string;
  readonly #stream: string;
  readonly #clients: readonly KinesisClient[];
  #counter = 0;
  #busy = true;
  #stopped = false;
  #closed = false;

  /** @param clients of one gateway each; it goes on to the next one where a call fails */
  constructor(name: string, stream: string, clients: readonly KinesisClient[]) {
    this.#name = name;
    this.#stream = stream;
    this.#clients = clients;
    void this.#run();
  }

  get idle(): boolean {
    return !this.#busy;
  }

  get state(): string {
    return `${this.#name}: put ${this.#counter} is under way, ${this.acknowledged.size} are acknowledged`;
  }

  finish(): void {
    this.#stopped = true;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#closed = true;
    for (const client of this.#clients) client.destroy();
  }

  async #run(): Promise<void> {
    for (let failures = 0; !this.#stopped; ) {
      if (!(await this.#put(this.#clients[failures % this.#clients.length]!))) failures++;
    }
    // A call that failed may be under way still, and be stored while all is read. A gateway stores puts in their order: behind one more none is.
    for (const client of this.#clients) {
      while (!this.#closed && !(await this.#put(client)));
    }
    this.#busy = false;
  }

  /** @returns whether it was acknowledged */
  async #put(client: KinesisClient): Promise<boolean> {
    const put = `${this.#name}/${++this.#counter}`;
    const Records = Array.from({ length: PUT_RECORDS }, (_, i) => ({
      PartitionKey: `${this.#name}-${i % 5}`,
      Data: Buffer.from(signed(`${put}.${i}`)),
    }));
    try {
      const answer = await client.send(new PutRecordsCommand({ StreamName: this.#stream, Records }));
      if (answer.FailedRecordCount === 0) this.acknowledged.add(put);
    } catch {
      await wait(100);
    }
    await wait(10);
    return this.acknowledged.has(put);
  }
}

/** JSON, as deliveries want it, with a checksum, so that a changed record is known. */
function signed(id: string): string {
  return JSON.stringify({ id, hash: createHash("sha256").update(id).digest("hex") });
}

function parse(text: string): { name: string; id: string; counter: number } | undefined {
  const id = idOf(text);
  if (id === undefined || text !== signed(id)) return undefined;
  const [name, counter] = id.split("/");
  return { name: name!, id, counter: Number(counter) };
}

function idOf(text: string): string | undefined {
  return /^\{"id":"([^"]+)"/.exec(text)?.[1];
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
