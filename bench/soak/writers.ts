/**
 * All that writes, each kind at a steady moderate rate: PutRecords (HTTP/1.1 in JSON and CBOR, the SDK
 * over h2c), PutRecord over connections of its own, plain sensors that stay and that come and go, a
 * device that sends frames (some of them twice), sensors at the real agent. Much of it over TLS too.
 */
import { randomBytes } from "node:crypto";
import { type KinesisClient, PutRecordsCommand } from "@aws-sdk/client-kinesis";
import { connectAsync, type IClientOptions, type MqttClient } from "mqtt";
import { encodeFrame } from "../../protocol/frame.ts";
import { encodeBatch } from "../../protocol/record-batch.ts";
import { topicOf } from "../../protocol/topics.ts";
import { Caller, type Door, sdkClient } from "./calls.ts";
import { type Ledger, Producer } from "./ledger.ts";
import type { Loops } from "./loops.ts";
import { type SoakPlace, type StreamName, TLS_DEVICE } from "./soak-place.ts";

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
const SECURE_PASSING_SENSORS = 4;
const SECURE_STAYING_SENSORS = 5;

const MS = {
  json: 100,
  cbor: 150,
  sdk: 200,
  scaled: 400,
  one: 25,
  fresh: 200,
  passing: 500,
  sensor: 200,
  frame: 100,
  agent: 100,
  // A new connection costs both sides a handshake, of a millisecond each.
  secureGroup: 400,
  secureFresh: 400,
  securePassing: 1_000,
  secureFrame: 400,
};

/** An MQTT door. */
interface Broker {
  readonly port: number;
  readonly options: IClientOptions;
}

export class Writers {
  /** How long each PutRecords took since they were last taken. */
  waits: number[] = [];
  readonly #place: SoakPlace;
  readonly #ledger: Ledger;
  readonly #loops: Loops;
  readonly #callers: Caller[] = [];
  readonly #mqtt: MqttClient[] = [];
  readonly #sdks: KinesisClient[] = [];

  constructor(place: SoakPlace, ledger: Ledger, loops: Loops) {
    this.#place = place;
    this.#ledger = ledger;
    this.#loops = loops;
  }

  async start(): Promise<void> {
    const { endpoint, mqttPort, brokerPort } = this.#place;
    this.#putRecords("json-a", "steady", MS.json, this.#caller(endpoint, "json", 1));
    this.#putRecords("json-b", "steady", MS.json, this.#caller(endpoint, "json", 1));
    this.#putRecords("cbor", "steady", MS.cbor, this.#caller(endpoint, "cbor", 1));
    this.#putRecords("scaled", "scaled", MS.scaled, this.#caller(endpoint, "json", 1));
    this.#putBySdk("sdk", "moving", MS.sdk, endpoint);
    for (let i = 0; i < 4; i++)
      this.#putRecord(`one-${i}`, "steady", MS.one * 4, this.#caller(endpoint, "json", 1));
    this.#putRecord("fresh", "steady", MS.fresh, this.#caller(endpoint, "cbor", 0));
    const mqtt = { port: mqttPort, options: {} };
    this.#passing("passing", "plant", "plain", PASSING_SENSORS, MS.passing, mqtt);
    await this.#staying("staying", "plant", "plain", STAYING_SENSORS, mqtt);
    const broker = await this.#connect({ port: brokerPort, options: {} }, "sensors");
    for (let i = 0; i < AGENT_SENSORS; i++)
      this.#sensor(broker, `hall/sensor-${i}`, this.#producer("sensors", `agent-${i}`), MS.agent);
    await this.#frames("soak-frames", "frames", MS.frame, mqtt);
    await this.#startSecure();
  }

  /** HTTP/1.1 and HTTP/2 by ALPN with a key; MQTT with a device's certificate, under the names that it may use. */
  async #startSecure(): Promise<void> {
    const { secureEndpoint, mqttsPort, deviceTls } = this.#place;
    this.#putRecords("tls-json", "secure", MS.secureGroup, this.#caller(secureEndpoint, "json", 1));
    this.#putRecord("tls-fresh", "secure", MS.secureFresh, this.#caller(secureEndpoint, "cbor", 0));
    this.#putBySdk("tls-sdk", "secure", MS.secureGroup, secureEndpoint);
    const mqtts = { port: mqttsPort, options: { protocol: "mqtts", ...deviceTls } as IClientOptions };
    this.#passing("tls-passing", "vault", "secure", SECURE_PASSING_SENSORS, MS.securePassing, mqtts);
    await this.#staying("tls-staying", "vault", "secure", SECURE_STAYING_SENSORS, mqtts);
    await this.#frames(TLS_DEVICE, "secure", MS.secureFrame, mqtts);
  }

  /** Once the loops are stopped. */
  async close(): Promise<void> {
    for (const caller of this.#callers) caller.close();
    await Promise.all(this.#mqtt.map((client) => client.endAsync(true)));
    for (const sdk of this.#sdks) sdk.destroy();
  }

  #caller(door: Door, codec: "json" | "cbor", connections: number): Caller {
    const caller = new Caller(door, codec, connections);
    this.#callers.push(caller);
    return caller;
  }

  #producer(stream: StreamName, name: string): Producer {
    return new Producer(this.#ledger, stream, name);
  }

  async #connect(broker: Broker, clientId: string): Promise<MqttClient> {
    const client = await connected(broker, clientId);
    this.#mqtt.push(client);
    return client;
  }

  /** @param send resolves when all that the producers said is stored */
  #group(
    what: string,
    stream: StreamName,
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

  #putRecords(what: string, stream: StreamName, periodMs: number, caller: Caller): void {
    this.#group(what, stream, periodMs, async (records) => {
      const Records = records.map(({ key, data }) => ({ PartitionKey: key, Data: caller.data(data) }));
      const input = { StreamName: stream, Records };
      return (await caller.call<{ FailedRecordCount: number }>("PutRecords", input)).FailedRecordCount;
    });
  }

  #putBySdk(what: string, stream: StreamName, periodMs: number, door: Door): void {
    const sdk = sdkClient(door);
    this.#sdks.push(sdk);
    this.#group(what, stream, periodMs, async (records) => {
      const Records = records.map(({ key, data }) => ({ PartitionKey: key, Data: data }));
      return (await sdk.send(new PutRecordsCommand({ StreamName: stream, Records }))).FailedRecordCount;
    });
  }

  #putRecord(what: string, stream: StreamName, periodMs: number, caller: Caller): void {
    const producer = this.#producer(stream, what);
    this.#loops.every(what, periodMs, () =>
      this.#acknowledged([producer], async () => {
        const Data = caller.data(producer.next(RECORD_BYTES));
        await caller.call("PutRecord", { StreamName: stream, PartitionKey: producer.name, Data });
      }),
    );
  }

  /** @param topics what their topics begin with */
  async #staying(
    name: string,
    topics: string,
    stream: StreamName,
    count: number,
    broker: Broker,
  ): Promise<void> {
    for (let i = 0; i < count; i++) {
      const client = await this.#connect(broker, `${name}-${i}`);
      this.#sensor(client, `${topics}/${name}-${i}`, this.#producer(stream, `${name}-${i}`), MS.sensor);
    }
  }

  /** @param everyMs one of them comes */
  #passing(
    name: string,
    topics: string,
    stream: StreamName,
    count: number,
    everyMs: number,
    broker: Broker,
  ): void {
    for (let i = 0; i < count; i++) {
      const producer = this.#producer(stream, `${name}-${i}`);
      const topic = `${topics}/${producer.name}`;
      this.#loops.every(`${name} sensor`, everyMs * count, () => this.#pass(producer, topic, broker));
    }
  }

  #sensor(client: MqttClient, topic: string, producer: Producer, periodMs: number): void {
    this.#loops.every(topic, periodMs, () =>
      this.#acknowledged([producer], async () => {
        await client.publishAsync(topic, producer.next(RECORD_BYTES), { qos: 1 });
      }),
    );
  }

  /** Connects, says what it has to say, and is gone, politely or not. */
  async #pass(producer: Producer, topic: string, broker: Broker): Promise<void> {
    const client = await connected(broker, producer.name);
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
  async #frames(device: string, stream: StreamName, periodMs: number, broker: Broker): Promise<void> {
    const client = await this.#connect(broker, device);
    const producers = Array.from({ length: 5 }, (_, i) => this.#producer(stream, `frame-${stream}-${i}`));
    const epoch = randomBytes(8).readBigUInt64BE();
    let sequence = 0n;
    this.#loops.every(`frames of ${device}`, periodMs, () =>
      this.#acknowledged(producers, async () => {
        const timeUs = Date.now() * 1_000;
        const records = Array.from({ length: FRAME_RECORDS }, (_, i) => {
          const producer = producers[i % producers.length]!;
          return { key: producer.name, timeUs, payload: producer.next(RECORD_BYTES) };
        });
        const head = {
          device,
          stream,
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

/** A lost connection is an error here, nothing to be mended in silence. */
async function connected({ port, options }: Broker, clientId: string): Promise<MqttClient> {
  const how = { ...options, clientId, protocolVersion: 4, reconnectPeriod: 0, keepalive: 30 } as const;
  const client = await connectAsync({ host: "127.0.0.1", port, ...how });
  client.on("error", () => {});
  return client;
}
