/**
 * All that writes, each kind at a steady moderate rate: PutRecords (HTTP/1.1 in JSON and CBOR, the SDK
 * over h2c), PutRecord over connections of its own, plain sensors that stay and that come and go, a
 * device that sends frames (some of them twice), sensors at the real agent.
 */
import { randomBytes } from "node:crypto";
import { type KinesisClient, PutRecordsCommand } from "@aws-sdk/client-kinesis";
import { connectAsync, type MqttClient } from "mqtt";
import { encodeFrame } from "../../protocol/frame.ts";
import { encodeBatch } from "../../protocol/record-batch.ts";
import { topicOf } from "../../protocol/topics.ts";
import { Caller, sdkClient } from "./calls.ts";
import { type Ledger, Producer } from "./ledger.ts";
import type { Loops } from "./loops.ts";
import type { SoakPlace } from "./soak-place.ts";

/** Producers of one request; each has a partition key of its own. */
const PRODUCERS = 50;
const RECORDS_EACH = 2;
const RECORD_BYTES = 240;
const FRAME_RECORDS = 50;
/** One frame of so many is sent again after it was acknowledged. */
const FRAME_AGAIN = 20;
const PASSING_SENSORS = 8;
const PASSING_MESSAGES = 25;
const STAYING_SENSORS = 10;
const AGENT_SENSORS = 20;

const MS = {
  json: 100,
  cbor: 150,
  sdk: 200,
  one: 25,
  fresh: 200,
  passing: 500,
  sensor: 200,
  frame: 100,
  agent: 100,
};

export class Writers {
  /** How long each PutRecords took since they were last taken. */
  waits: number[] = [];
  readonly #place: SoakPlace;
  readonly #ledger: Ledger;
  readonly #loops: Loops;
  readonly #callers: Caller[] = [];
  readonly #mqtt: MqttClient[] = [];
  readonly #sdk: KinesisClient;

  constructor(place: SoakPlace, ledger: Ledger, loops: Loops) {
    this.#place = place;
    this.#ledger = ledger;
    this.#loops = loops;
    this.#sdk = sdkClient(place.endpoint);
  }

  async start(): Promise<void> {
    this.#putRecords("json-a", MS.json, this.#caller("json", 1));
    this.#putRecords("json-b", MS.json, this.#caller("json", 1));
    this.#putRecords("cbor", MS.cbor, this.#caller("cbor", 1));
    this.#putBySdk();
    for (let i = 0; i < 4; i++) this.#putRecord(`one-${i}`, MS.one * 4, this.#caller("json", 1));
    this.#putRecord("fresh", MS.fresh, this.#caller("cbor", 0));
    const passing = Array.from({ length: PASSING_SENSORS }, (_, i) =>
      this.#producer("plain", `passing-${i}`),
    );
    for (const producer of passing)
      this.#loops.every("passing sensor", MS.passing * PASSING_SENSORS, () => this.#pass(producer));
    for (let i = 0; i < STAYING_SENSORS; i++) {
      const client = await this.#connect(this.#place.mqttPort, `staying-${i}`);
      this.#sensor(client, `plant/staying-${i}`, this.#producer("plain", `staying-${i}`), MS.sensor);
    }
    const broker = await this.#connect(this.#place.brokerPort, "sensors");
    for (let i = 0; i < AGENT_SENSORS; i++)
      this.#sensor(broker, `hall/sensor-${i}`, this.#producer("sensors", `agent-${i}`), MS.agent);
    await this.#frames();
  }

  /** Once the loops are stopped. */
  async close(): Promise<void> {
    for (const caller of this.#callers) caller.close();
    await Promise.all(this.#mqtt.map((client) => client.endAsync(true)));
    this.#sdk.destroy();
  }

  #caller(codec: "json" | "cbor", connections: number): Caller {
    const caller = new Caller(this.#place.endpoint, codec, connections);
    this.#callers.push(caller);
    return caller;
  }

  #producer(stream: string, name: string): Producer {
    return new Producer(this.#ledger, stream, name);
  }

  async #connect(port: number, clientId: string): Promise<MqttClient> {
    // A lost connection is an error here, nothing to be mended in silence.
    const options = { clientId, protocolVersion: 4, reconnectPeriod: 0, keepalive: 30 } as const;
    const client = await connectAsync(`mqtt://127.0.0.1:${port}`, options);
    client.on("error", () => {});
    this.#mqtt.push(client);
    return client;
  }

  /** @param send resolves when all that the producers said is stored */
  #group(
    what: string,
    stream: string,
    periodMs: number,
    send: (records: Array<{ key: string; data: Buffer }>) => Promise<number | undefined>,
  ): void {
    const producers = Array.from({ length: PRODUCERS }, (_, i) => this.#producer(stream, `${what}-${i}`));
    this.#loops.every(what, periodMs, async () => {
      const records = Array.from({ length: PRODUCERS * RECORDS_EACH }, (_, i) => {
        const producer = producers[i % PRODUCERS]!;
        return { key: producer.name, data: producer.next(RECORD_BYTES) };
      });
      await this.#acknowledged(producers, async () => {
        const began = performance.now();
        const failed = await send(records);
        this.waits.push(performance.now() - began);
        if (failed !== 0) throw new Error(`${failed} records were refused`);
      });
    });
  }

  async #acknowledged(producers: readonly Producer[], send: () => Promise<void>): Promise<void> {
    try {
      await send();
    } catch (error) {
      for (const producer of producers) producer.failed();
      throw error;
    }
    for (const producer of producers) producer.acknowledged();
  }

  #putRecords(what: string, periodMs: number, caller: Caller): void {
    this.#group(what, "steady", periodMs, async (records) => {
      const Records = records.map(({ key, data }) => ({ PartitionKey: key, Data: caller.data(data) }));
      const input = { StreamName: "steady", Records };
      return (await caller.call<{ FailedRecordCount: number }>("PutRecords", input)).FailedRecordCount;
    });
  }

  #putBySdk(): void {
    this.#group("sdk", "moving", MS.sdk, async (records) => {
      const Records = records.map(({ key, data }) => ({ PartitionKey: key, Data: data }));
      const input = { StreamName: "moving", Records };
      return (await this.#sdk.send(new PutRecordsCommand(input))).FailedRecordCount;
    });
  }

  #putRecord(what: string, periodMs: number, caller: Caller): void {
    const producer = this.#producer("steady", what);
    this.#loops.every(what, periodMs, () =>
      this.#acknowledged([producer], async () => {
        const Data = caller.data(producer.next(RECORD_BYTES));
        await caller.call("PutRecord", { StreamName: "steady", PartitionKey: producer.name, Data });
      }),
    );
  }

  #sensor(client: MqttClient, topic: string, producer: Producer, periodMs: number): void {
    this.#loops.every(topic, periodMs, () =>
      this.#acknowledged([producer], async () => {
        await client.publishAsync(topic, producer.next(RECORD_BYTES), { qos: 1 });
      }),
    );
  }

  /** Connects, says what it has to say, and is gone, politely or not. */
  async #pass(producer: Producer): Promise<void> {
    const topic = `plant/${producer.name}`;
    const client = await connectAsync(`mqtt://127.0.0.1:${this.#place.mqttPort}`, {
      clientId: producer.name,
      protocolVersion: 4,
      reconnectPeriod: 0,
    });
    client.on("error", () => {});
    try {
      await this.#acknowledged([producer], async () => {
        const messages = Array.from({ length: PASSING_MESSAGES }, () => producer.next(RECORD_BYTES));
        await Promise.all(messages.map((message) => client.publishAsync(topic, message, { qos: 1 })));
      });
    } finally {
      await client.endAsync(Math.random() < 0.5);
    }
  }

  /** Frames of an epoch, in order, one at a time. */
  async #frames(): Promise<void> {
    const device = "soak-frames";
    const client = await this.#connect(this.#place.mqttPort, device);
    const producers = Array.from({ length: 5 }, (_, i) => this.#producer("frames", `frame-${i}`));
    const epoch = randomBytes(8).readBigUInt64BE();
    let sequence = 0n;
    this.#loops.every("frames", MS.frame, () =>
      this.#acknowledged(producers, async () => {
        const timeUs = Date.now() * 1_000;
        const records = Array.from({ length: FRAME_RECORDS }, (_, i) => {
          const producer = producers[i % producers.length]!;
          return { key: producer.name, timeUs, payload: producer.next(RECORD_BYTES) };
        });
        const head = {
          device,
          stream: "frames",
          epoch,
          epochStart: 1,
          sequence: ++sequence,
          storedUs: timeUs,
        };
        const frame = encodeFrame(
          { ...head, recordCount: records.length, timeSource: "system" },
          encodeBatch(records),
        );
        const times = sequence % BigInt(FRAME_AGAIN) === 0n ? 2 : 1;
        for (let i = 0; i < times; i++)
          await client.publishAsync(topicOf(device, "frames"), frame, { qos: 1 });
      }),
    );
  }
}
