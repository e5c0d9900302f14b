/**
 * A gateway that acknowledges everything at once and keeps nothing, for what the agent's uplink can do
 * by itself: as much of MQTT 3.1.1 as the agent speaks.
 */
import { createServer, type Server, type Socket } from "node:net";
import type { ControlMessage, TimeRequest } from "../protocol/topics.ts";

const CONNECT = 1;
const PUBLISH = 3;
const SUBSCRIBE = 8;
const PINGREQ = 12;

export class MqttSink {
  readonly #server: Server;
  readonly #accepts: readonly string[];
  readonly #sockets = new Set<Socket>();
  #publishedBytes = 0;
  #publishes = 0;
  #lastMs = 0;

  /** @param accepts how publishes may be compressed; it opens none */
  constructor(accepts: readonly string[] = []) {
    this.#accepts = accepts;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  get publishedBytes(): number {
    return this.#publishedBytes;
  }

  get publishes(): number {
    return this.#publishes;
  }

  /** When the last publish came. */
  get lastMs(): number {
    return this.#lastMs;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  start(): Promise<void> {
    return new Promise((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#sockets.delete(socket));
    let held: Buffer[] = [];
    let heldBytes = 0;
    let wantedBytes = 2;
    socket.on("data", (chunk) => {
      held.push(chunk);
      heldBytes += chunk.length;
      if (heldBytes < wantedBytes) return;
      const bytes = held.length === 1 ? chunk : Buffer.concat(held);
      let at = 0;
      wantedBytes = 2;
      for (;;) {
        const head = headAt(bytes, at);
        if (head === undefined) break;
        if (head.end > bytes.length) {
          wantedBytes = head.end - at;
          break;
        }
        this.#packet(socket, bytes.subarray(at, head.end), head.bodyAt - at);
        at = head.end;
      }
      held = at === bytes.length ? [] : [bytes.subarray(at)];
      heldBytes = bytes.length - at;
    });
  }

  #packet(socket: Socket, packet: Buffer, bodyAt: number): void {
    const kind = packet[0]! >> 4;
    if (kind === CONNECT) socket.write(Buffer.from([0x20, 2, 0, 0]));
    else if (kind === PINGREQ) socket.write(Buffer.from([0xd0, 0]));
    else if (kind === SUBSCRIBE) {
      socket.write(Buffer.from([0x90, 3, packet[bodyAt]!, packet[bodyAt + 1]!, 0]));
      const topicAt = bodyAt + 4;
      const topic = packet.toString("utf8", topicAt, topicAt + packet.readUInt16BE(topicAt - 2));
      socket.write(control(topic, { type: "hello", accepts: this.#accepts }));
    } else if (kind === PUBLISH) {
      const topicEnd = bodyAt + 2 + packet.readUInt16BE(bodyAt);
      const quality = (packet[0]! >> 1) & 3;
      if (quality === 0) {
        const topic = packet.toString("utf8", bodyAt + 2, topicEnd);
        if (topic.endsWith("/time")) socket.write(timeAnswer(topic, packet.toString("utf8", topicEnd)));
        return;
      }
      this.#publishes++;
      this.#publishedBytes += packet.length - topicEnd - 2;
      this.#lastMs = performance.now();
      socket.write(Buffer.from([0x40, 2, packet[topicEnd]!, packet[topicEnd + 1]!]));
    }
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** What an agent asks that has no clock which it trusts: it sends nothing before it knows. */
function timeAnswer(topic: string, question: string): Buffer {
  const { id } = JSON.parse(question) as TimeRequest;
  return control(topic.replace(/time$/, "control"), { type: "time", id, utcUs: Date.now() * 1_000 });
}

/** A publish at QoS 0. */
function control(topic: string, message: ControlMessage): Buffer {
  const text = JSON.stringify(message);
  const body = Buffer.concat([Buffer.from([0, topic.length]), Buffer.from(topic + text)]);
  if (body.length > 127) throw new Error("the message is too long");
  return Buffer.concat([Buffer.from([PUBLISH << 4, body.length]), body]);
}

/** MQTT 3.1.1 §2.2: a byte, and the length of the rest in one to four. */
function headAt(bytes: Buffer, at: number): { bodyAt: number; end: number } | undefined {
  let length = 0;
  for (let i = 0; i < 4; i++) {
    const byte = bytes[at + 1 + i];
    if (byte === undefined) return undefined;
    length += (byte & 0x7f) * 128 ** i;
    if (byte < 0x80) return { bodyAt: at + 2 + i, end: at + 2 + i + length };
  }
  return undefined;
}
