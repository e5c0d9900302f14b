/**
 * A shorter way for publishes through the broker library, for QoS 0 and 1. The library parses byte
 * lists, emits each publish to subscribers, which a door does not have, and writes each PUBACK by
 * itself; that costs more than storing a reading. Here publishes are read straight from the chunk,
 * and the PUBACKs of one group commit leave in one write for each connection.
 *
 *   chunk → PublishLane ─ QoS 0 and 1 → authorise (stores) → PUBACKs, gathered
 *                       └ all else, all that is odd → the library, as before
 *
 * The library's way is the plain way beside this one: the same tests hold for both. It goes by
 * internals of the library, whose version is pinned; where one of them is not as expected, a client
 * is left to the library. Back-pressure is the library's: a connection is read on once its publishes
 * are answered.
 */
import type { Socket } from "node:net";
import type { Client, PublishPacket } from "aedes";

/** What decides about a publish and calls `done` once it may be acknowledged; never within the call. */
export type AuthorizePublish = (
  client: Client,
  packet: PublishPacket,
  done: (error?: Error | null) => void,
) => void;

/** MQTT 3.1.1 §2.2.3: a type byte and at most four bytes of length. */
const MAX_HEAD_BYTES = 5;
/** The library refuses a topic of more levels; deeper ones are left to it. */
const MAX_LEVELS = 100;
const PUBACK = 0x40;

/** What is used of the library's client beside its types. */
interface LibraryClient extends Client {
  readonly conn: Socket;
  readonly connackSent: boolean;
  readonly _keepaliveInterval: number;
  readonly _keepaliveTimer: NodeJS.Timeout | null;
  _parsingBatch: number;
  readonly _nextBatch: (error?: Error | null) => void;
  readonly _parser: LibraryParser;
  waitForDrain(done: (error?: Error | null) => void): void;
}

interface LibraryParser {
  parse(chunk: Buffer): number;
  readonly _list: { readonly length: number };
  readonly _queue: unknown[] | null;
  listeners(event: "packet"): Array<(packet: PublishPacket) => void>;
  removeAllListeners(event: "packet"): void;
  on(event: "packet", listener: (packet: PublishPacket) => void): void;
}

/** Where a publish stands in a chunk; "cut" when its end is yet to come, "odd" when the library shall see it. */
interface Extent {
  readonly bodyAt: number;
  readonly end: number;
}

export class PublishLane {
  readonly #authorize: AuthorizePublish;
  readonly #waiting: Connection[] = [];

  constructor(authorize: AuthorizePublish) {
    this.#authorize = authorize;
  }

  /** From here on the client's publishes go this way. Called once it is connected. */
  open(client: Client): void {
    const inner = client as LibraryClient;
    const parser = inner._parser;
    const [plain, ...others] = parser?.listeners?.("packet") ?? [];
    if (plain === undefined || others.length > 0 || parser._list?.length === undefined) return;
    const connection = new Connection(inner, this);
    parser.removeAllListeners("packet");
    parser.on("packet", (packet) => {
      if (connection.ready && isPlain(packet)) this.take(connection, packet);
      else plain.call(parser, packet);
    });
  }

  take(connection: Connection, packet: PublishPacket): void {
    const { client } = connection;
    client._parsingBatch++;
    // [MQTT-3.1.2-24]: any packet shows that the client is alive.
    if (client._keepaliveInterval > 0) client._keepaliveTimer?.refresh();
    this.#authorize(client, packet, (error) => {
      if (error) client._nextBatch(error);
      else if (packet.qos === 0) client._nextBatch();
      else this.#acknowledge(connection, packet.messageId ?? 0);
    });
  }

  /** What one group commit answered comes in one turn; it leaves at the turn's end. */
  #acknowledge(connection: Connection, packetId: number): void {
    if (connection.answered.push(packetId) > 1) return;
    if (this.#waiting.push(connection) === 1) process.nextTick(() => this.#flush());
  }

  #flush(): void {
    for (const connection of this.#waiting.splice(0)) connection.acknowledge();
  }
}

/** One client, and what has come of a publish that is not whole yet. */
class Connection {
  readonly client: LibraryClient;
  /** Packet ids whose PUBACK is due. */
  answered: number[] = [];
  readonly #lane: PublishLane;
  readonly #parse: (chunk: Buffer) => number;
  #parts: Buffer[] = [];
  #haveBytes = 0;
  #needBytes = 0;

  constructor(client: LibraryClient, lane: PublishLane) {
    this.client = client;
    this.#lane = lane;
    const parser = client._parser;
    this.#parse = parser.parse.bind(parser);
    parser.parse = (chunk) => this.#read(chunk);
  }

  /** The library has answered CONNECT, and holds no packet back any more. */
  get ready(): boolean {
    return this.client.connackSent && this.client._parser._queue === null;
  }

  acknowledge(): void {
    const { client } = this;
    const ids = this.answered;
    this.answered = [];
    if (client.closed || client.conn.destroyed) return;
    const bytes = Buffer.allocUnsafe(4 * ids.length);
    let at = 0;
    for (const id of ids) {
      bytes[at] = PUBACK;
      bytes[at + 1] = 2;
      bytes[at + 2] = id >> 8;
      bytes[at + 3] = id & 0xff;
      at += 4;
    }
    const readOn = (error?: Error | null): void => {
      if (error) client._nextBatch(error);
      else for (let i = 0; i < ids.length; i++) client._nextBatch();
    };
    // A client that takes no answers is not read on.
    if (client.conn.write(bytes)) readOn();
    else client.waitForDrain(readOn);
  }

  /** Takes the publishes from a chunk; from the first other packet on the library reads it. */
  #read(chunk: Buffer): number {
    if (!this.ready || this.client._parser._list.length > 0) return this.#parse(chunk);
    let bytes = chunk;
    if (this.#haveBytes > 0) {
      this.#parts.push(chunk);
      this.#haveBytes += chunk.length;
      if (this.#haveBytes < this.#needBytes) return this.#haveBytes;
      bytes = Buffer.concat(this.#parts, this.#haveBytes);
      this.#parts = [];
      this.#haveBytes = 0;
    }
    let at = 0;
    while (at < bytes.length) {
      const extent = extentAt(bytes, at);
      if (extent === "odd") return this.#parse(at === 0 ? bytes : bytes.subarray(at));
      if (typeof extent === "number") return this.#keep(bytes.subarray(at), extent);
      const packet = publishAt(bytes, bytes[at]!, extent);
      if (packet === undefined) return this.#parse(bytes.subarray(at));
      this.#lane.take(this, packet);
      at = extent.end;
    }
    return 0;
  }

  /** Packets have a limit (protocol/mqtt-packet-limit.ts), and so has what is kept. */
  #keep(rest: Buffer, needBytes: number): number {
    this.#parts = [rest];
    this.#haveBytes = rest.length;
    this.#needBytes = needBytes;
    return rest.length;
  }
}

/** @returns a number where the packet is cut off: how many bytes there must be to go on */
function extentAt(bytes: Buffer, at: number): Extent | number | "odd" {
  const head = bytes[at]!;
  // Type PUBLISH; bits 1 and 2 are the QoS.
  if ((head & 0xf0) !== 0x30 || (head & 0x06) > 0x02) return "odd";
  const left = bytes.length - at;
  let length = 0;
  for (let i = 1; i < MAX_HEAD_BYTES; i++) {
    if (i >= left) return left + 1;
    const byte = bytes[at + i]!;
    length += (byte & 0x7f) * 2 ** (7 * (i - 1));
    if (byte >= 0x80) continue;
    const whole = 1 + i + length;
    return whole > left ? whole : { bodyAt: at + i + 1, end: at + whole };
  }
  return "odd";
}

/** Undefined when it is none that a client may send: the library knows what to do with it. */
function publishAt(bytes: Buffer, head: number, { bodyAt, end }: Extent): PublishPacket | undefined {
  const qos = (head >> 1) & 1;
  if (bodyAt + 2 > end) return undefined;
  const topicEnd = bodyAt + 2 + bytes.readUInt16BE(bodyAt);
  const payloadAt = topicEnd + 2 * qos;
  if (payloadAt > end) return undefined;
  const topic = bytes.toString("utf8", bodyAt + 2, topicEnd);
  if (!isPlainTopic(topic)) return undefined;
  return {
    cmd: "publish",
    qos: qos as 0 | 1,
    dup: (head & 0x08) !== 0,
    retain: (head & 0x01) !== 0,
    topic,
    payload: bytes.subarray(payloadAt, end),
    ...(qos === 1 && { messageId: bytes.readUInt16BE(topicEnd) }),
  };
}

function isPlain(packet: PublishPacket): boolean {
  return packet.cmd === "publish" && packet.qos < 2 && isPlainTopic(packet.topic);
}

/** [MQTT-3.3.2-2], [MQTT-4.7.3-1]: a publish names a topic, without wildcards. */
function isPlainTopic(topic: string): boolean {
  if (topic.length === 0) return false;
  let levels = 1;
  for (let i = 0; i < topic.length; i++) {
    const code = topic.charCodeAt(i);
    if (code === 0x23 || code === 0x2b) return false;
    if (code === 0x2f) levels++;
  }
  return levels <= MAX_LEVELS;
}
