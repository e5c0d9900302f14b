/** What no client should do, a few times a minute each: the gateway refuses it, or keeps it aside, and holds nothing of it. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { Agent } from "node:http";
import { connectAsync } from "mqtt";
import { topicOf } from "../../protocol/topics.ts";
import { putRecordsBody, signed, wire } from "../load/kinesis-requests.ts";
import { connectPacket, publishPacket } from "../load/talks.ts";
import { Caller, type Door, post } from "./calls.ts";
import { DoorMischief } from "./door-mischief.ts";
import type { Loops } from "./loops.ts";
import type { SoakPlace } from "./soak-place.ts";
import { junk, opened, openedSecurely, within } from "./sockets.ts";

const EVERY_MS = 3_000;
const SILENT_MS = 30_000;

export class Mischief {
  /** Of each kind, together. */
  done = 0;
  readonly #place: SoakPlace;
  readonly #loops: Loops;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 2 });

  constructor(place: SoakPlace, loops: Loops) {
    this.#place = place;
    this.#loops = loops;
  }

  start(): void {
    const kinds: Readonly<Record<string, () => Promise<void>>> = {
      "a wrong signature": () => this.#wrongSignature(),
      "bad JSON": () => this.#refused("PutRecords", '{"StreamName":"steady","Records":[{"Da'),
      "wrong values": () => this.#refused("PutRecords", '{"StreamName":"steady","Records":[{"Data":7}]}'),
      "an unknown operation": () => this.#refused("PutEverything", "{}"),
      "a stream that is not there": () => this.#refused("DescribeStream", '{"StreamName":"nowhere"}'),
      "a cut request": () => this.#cutRequest(),
      "a cut answer": () => this.#cutAnswer(this.#place.endpoint),
      "a cut answer over TLS": () => this.#cutAnswer(this.#place.secureEndpoint),
      "junk over HTTP": () => junk(this.#place.endpoint.port, randomBytes(300)),
      "junk over HTTP/2": () =>
        junk(
          this.#place.endpoint.port,
          Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), randomBytes(300)]),
        ),
      "junk over MQTT": () => junk(this.#place.mqttPort, Buffer.concat([Buffer.of(0), randomBytes(300)])),
      "a junk frame": () => this.#junkPublishes(),
      "a cut publish": () => this.#cutPublish(),
      "silent connections": () => this.#silent(),
      ...new DoorMischief(this.#place, this.#loops).kinds(),
    };
    for (const [what, work] of Object.entries(kinds)) {
      this.#loops.every(what, EVERY_MS, async () => {
        await work();
        this.done++;
      });
    }
  }

  close(): void {
    this.#agent.destroy();
  }

  async #refused(operation: string, text: string, endpoint = this.#place.endpoint): Promise<void> {
    const body = Buffer.from(text);
    const { status } = await post(endpoint, signed(endpoint, operation, body).headers, body, this.#agent);
    if (status < 400 || status >= 500) throw new Error(`answered ${status}`);
  }

  #wrongSignature(): Promise<void> {
    const { port, key } = this.#place.endpoint;
    return this.#refused("ListStreams", "{}", {
      port,
      key: { id: key.id, secret: "not-the-secret-of-this-key" },
    });
  }

  /** Half of a PutRecords whose records are nobody's. */
  async #cutRequest(): Promise<void> {
    const { endpoint } = this.#place;
    const whole = wire(signed(endpoint, "PutRecords", putRecordsBody("steady", 500, 200, 0)));
    const socket = await opened(endpoint.port);
    socket.write(whole.subarray(0, Math.floor(whole.length * Math.random())));
    await this.#loops.wait(20);
    socket.resetAndDestroy();
  }

  /** Asks for a large page and goes when it begins to come. */
  async #cutAnswer(endpoint: Door): Promise<void> {
    const caller = new Caller(endpoint, "json", 0);
    const input = {
      StreamName: "steady",
      ShardId: "shardId-000000000001",
      ShardIteratorType: "TRIM_HORIZON",
    };
    const { ShardIterator } = await caller.call<{ ShardIterator: string }>("GetShardIterator", input);
    const body = Buffer.from(JSON.stringify({ ShardIterator, Limit: 10_000 }));
    const { port, tls } = endpoint;
    const socket = await (tls === undefined ? opened(port) : openedSecurely(port, tls));
    socket.write(wire(signed(endpoint, "GetRecords", body)));
    await within(once(socket, "data"), "an answer");
    socket.destroy();
  }

  /** Acknowledged, so that they do not come again, and kept aside. */
  async #junkPublishes(): Promise<void> {
    const device = "soak-junk";
    const client = await connectAsync(`mqtt://127.0.0.1:${this.#place.mqttPort}`, {
      clientId: device,
      protocolVersion: 4,
      reconnectPeriod: 0,
    });
    client.on("error", () => {});
    try {
      await client.publishAsync(topicOf(device, "frames"), randomBytes(500), { qos: 1 });
      await client.publishAsync("nobody/knows/this", randomBytes(500), { qos: 1 });
      await client.publishAsync("plant/junk", randomBytes(500), { qos: 1 });
    } finally {
      await client.endAsync(true);
    }
  }

  async #cutPublish(): Promise<void> {
    const socket = await opened(this.#place.mqttPort);
    socket.write(connectPacket("soak-cut"));
    await within(once(socket, "data"), "CONNACK");
    const { bytes } = publishPacket("plant/cut", randomBytes(5_000));
    socket.write(bytes.subarray(0, 2_000));
    await this.#loops.wait(20);
    socket.resetAndDestroy();
  }

  /** Connected, and never a word. */
  async #silent(): Promise<void> {
    const { endpoint, mqttPort, rtspPort, httpsPort, mqttsPort, rtspsPort } = this.#place;
    const ports = [endpoint.port, mqttPort, rtspPort, httpsPort, mqttsPort, rtspsPort];
    const sockets = await Promise.all(ports.map(opened));
    await this.#loops.wait(SILENT_MS);
    for (const socket of sockets) socket.destroy();
  }
}
