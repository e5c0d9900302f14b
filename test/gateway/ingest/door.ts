/** A real MQTT door over a real stream log, and a client that sends exactly what it is told. */
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import mqttPacket from "mqtt-packet";
import { DeviceDirectory } from "../../../gateway/ingest/device-directory.ts";
import { MqttIngest } from "../../../gateway/ingest/mqtt-ingest.ts";
import type { PublishMemoryOptions } from "../../../gateway/ingest/publish-memory.ts";
import { Quarantine } from "../../../gateway/ingest/quarantine.ts";
import { type TopicRule, TopicRules } from "../../../gateway/ingest/topic-rules.ts";
import { openLocalStreams } from "../../../gateway/streams/stores/local/local.ts";
import type { Streams } from "../../../gateway/streams/streams.ts";
import { forEachRecord } from "../../../protocol/record-batch.ts";
import { type Clock, systemClock } from "../../../runtime/clock.ts";
import { type Log, silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { removeFolder } from "../../support/remove-folder.ts";

export interface Door {
  readonly url: string;
  readonly port: number;
  readonly ingest: MqttIngest;
  readonly streams: Streams;
  readonly dir: string;
  readonly metrics: Metrics;
}

export async function openDoor(
  context: TestContext,
  options: {
    devices?: Array<{ id: string; password: string }>;
    rules?: readonly TopicRule[];
    wrap?: (streams: Streams) => Streams;
    log?: Log;
    clock?: Clock;
    maxConnections?: number;
    memory?: PublishMemoryOptions;
  } = {},
): Promise<Door> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-ingest-"));
  const metrics = new Metrics();
  const shared = { clock: systemClock, log: silentLog, metrics };
  const streams = await openLocalStreams({ dir: join(dir, "streams"), ...shared });
  await streams.createStream({ name: "sensors", shards: 2, retentionHours: 24 });
  const quarantine = new Quarantine(join(dir, "quarantine"), silentLog, metrics);
  await quarantine.start();
  const ingest = new MqttIngest({
    host: "127.0.0.1",
    port: 0,
    streams: options.wrap?.(streams) ?? streams,
    directory: new DeviceDirectory(options.devices ?? [], systemClock),
    quarantine,
    rules: new TopicRules(options.rules ?? [{ topic: "plant/+/temperature", stream: "sensors" }]),
    ...shared,
    clock: options.clock ?? systemClock,
    log: options.log ?? silentLog,
    ...(options.maxConnections !== undefined && { maxConnections: options.maxConnections }),
    ...(options.memory !== undefined && { memory: options.memory }),
  });
  await ingest.start();
  context.after(async () => {
    await ingest.close();
    await quarantine.close();
    await streams.close();
    await removeFolder(dir);
  });
  return { url: `mqtt://127.0.0.1:${ingest.port}`, port: ingest.port, ingest, streams, dir, metrics };
}

export async function stored(streams: Streams, stream = "sensors"): Promise<string[]> {
  const found: string[] = [];
  for (const { shardId } of streams.describe(stream).shardList) {
    for (const part of (await streams.read(stream, shardId, 0, 64 * 1_048_576)).parts) {
      for (const run of part.runs) forEachRecord(run, (payload) => found.push(payload.toString()));
    }
  }
  return found.sort();
}

/** MQTT 3.1.1 by hand: no resends, no acknowledgements and no packet ids of its own. */
export class RawSensor {
  readonly socket: Socket;
  readonly ended: Promise<unknown>;
  readonly #packets: mqttPacket.Packet[] = [];
  #wake = (): void => {};

  constructor(port: number) {
    this.socket = connect(port, "127.0.0.1");
    // A reset is an end as well.
    this.ended = new Promise((resolve) => this.socket.once("close", resolve));
    const parser = mqttPacket.parser();
    parser.on("packet", (packet) => {
      this.#packets.push(packet);
      this.#wake();
    });
    this.socket.on("data", (bytes) => parser.parse(bytes));
    this.socket.on("error", () => {});
    this.socket.on("close", () => this.#wake());
  }

  async connect(clientId: string, options: Partial<mqttPacket.IConnectPacket> = {}): Promise<this> {
    this.hello(clientId, options);
    assert.equal((await this.next()).cmd, "connack");
    return this;
  }

  /** Asks to be let in, and does not wait for the answer. */
  hello(clientId: string, options: Partial<mqttPacket.IConnectPacket> = {}): void {
    const version = { protocolId: "MQTT", protocolVersion: 4 } as const;
    this.send({ cmd: "connect", ...version, clientId, clean: true, keepalive: 0, ...options });
  }

  send(packet: mqttPacket.Packet): void {
    this.socket.write(mqttPacket.generate(packet));
  }

  publish(
    messageId: number,
    topic: string,
    payload: string | Buffer,
    options: { qos?: 0 | 1 | 2; dup?: boolean } = {},
  ): void {
    this.send({ cmd: "publish", topic, payload, qos: 1, messageId, dup: false, retain: false, ...options });
  }

  /** Publishes and waits for its PUBACK. */
  async acknowledged(messageId: number, topic: string, payload: string | Buffer, dup = false): Promise<void> {
    this.publish(messageId, topic, payload, { dup });
    const packet = await this.next();
    assert.deepEqual([packet.cmd, packet.messageId], ["puback", messageId]);
  }

  async next(): Promise<mqttPacket.Packet> {
    while (this.#packets.length === 0) {
      if (this.socket.destroyed) throw new Error("the connection ended");
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#packets.shift()!;
  }

  /** As when the power goes: no DISCONNECT. */
  async vanish(): Promise<void> {
    this.socket.destroy();
    await this.ended;
  }

  async disconnect(): Promise<void> {
    this.send({ cmd: "disconnect" });
    await this.ended;
  }
}
