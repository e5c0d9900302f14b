/**
 * A shorter way for publishes through the broker library, for QoS 0 and 1. The library parses byte
 * lists, emits each publish to subscribers, which a door does not have, and writes each PUBACK by
 * itself; that costs more than storing a reading. Here publishes are read straight from the chunk,
 * and the PUBACKs of one group commit leave in one write for each connection.
 *
 *   chunk → PublishLane ─ QoS 0 and 1 → taken (stored) → PUBACKs, gathered
 *                       └ all else, all that is odd → the library, as before
 *
 * The library's way is the plain way beside this one: the same tests hold for both. Where
 * the library's internals are not as expected (library-client.ts), a client is left to it.
 *
 * Back-pressure: a connection is read on while little of it waits for an answer, and little of all
 * connections together; and not while the library is at one of its packets.
 */
import type { Client, PublishPacket } from "aedes";
import { PacketLengths } from "../../protocol/mqtt-packet-limit.ts";
import { type Destinations, isPublishTopic } from "./destinations.ts";
import { type InnerClient, innerClient } from "./library-client.ts";
import { type Answers, NO_PACKET_ID, type Publish, type Session } from "./publish.ts";

/** MQTT 3.1.1 §2.2.3: a type byte and at most four bytes of length. */
const MAX_HEAD_BYTES = 5;
const PUBACK = 0x40;
/** What may wait for an answer on one connection, and on all; one publish more may always come. */
const MAX_WAITING_BYTES = 512 * 1_024;
const MAX_ALL_WAITING_BYTES = 32 * 1_048_576;
/** What a publish counts beside its payload. */
const PUBLISH_BYTES = 128;
/** Memory that a connection keeps for publishes that come in pieces. */
const KEPT_CARRY_BYTES = 32 * 1_024;

export interface LaneOptions {
  readonly destinations: Destinations;
  readonly maxPacketBytes: number;
  /** Takes a publish; answers later, never within the call. */
  readonly take: (session: Session, publish: Publish, answers: Answers) => void;
  /** The client announced a larger packet than it may send. */
  readonly tooLarge: (client: Client) => void;
}

export class PublishLane {
  readonly options: LaneOptions;
  /** Connections with PUBACKs that are due. */
  #due: LaneConnection[] = [];
  #waitingBytes = 0;
  readonly #held = new Set<LaneConnection>();
  #isStopped = false;
  #allAnswered = (): void => {};

  constructor(options: LaneOptions) {
    this.options = options;
  }

  /** Reads for a client that has not been heard yet; undefined where the library is not as expected. */
  attach(client: Client): LaneConnection | undefined {
    const inner = innerClient(client);
    if (inner === undefined) return undefined;
    return new LaneConnection(inner, this);
  }

  /** What one group commit answered comes in one turn; it leaves at the turn's end. */
  due(connection: LaneConnection): void {
    if (this.#due.push(connection) === 1) process.nextTick(() => this.#flush());
  }

  waits(bytes: number): void {
    this.#waitingBytes += bytes;
    if (this.#waitingBytes === 0) this.#allAnswered();
  }

  /** No connection that has to stop is read on any more. Resolves when nothing waits for an answer. */
  stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#waitingBytes === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#allAnswered = resolve;
    });
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  get isFull(): boolean {
    return this.#waitingBytes > MAX_ALL_WAITING_BYTES;
  }

  hold(connection: LaneConnection): void {
    this.#held.add(connection);
  }

  #flush(): void {
    const due = this.#due;
    this.#due = [];
    for (const connection of due) connection.sendAnswers();
    if (this.#held.size === 0 || this.#waitingBytes > MAX_ALL_WAITING_BYTES / 2) return;
    const held = [...this.#held];
    this.#held.clear();
    for (const connection of held) connection.readOn();
  }
}

/** One client, and what has come of a publish that is not whole yet. */
export class LaneConnection implements Answers {
  /** Set once the client is let in. */
  session: Session | undefined;
  readonly #client: InnerClient;
  readonly #lane: PublishLane;
  /** Follows what the library reads, so that a packet of its own is never cut. */
  readonly #lengths: PacketLengths;
  /** Of the answers that are due: how many, and the PUBACKs as latin1. */
  #answers = 0;
  #pubacks = "";
  #waitingBytes = 0;
  #isDraining = false;
  #isPaused = false;
  #isClosed = false;
  #carry = Buffer.alloc(0);
  #carriedBytes = 0;
  #neededBytes = 0;
  /** Where the body begins of the publish that was measured last. */
  #bodyAt = 0;

  constructor(client: InnerClient, lane: PublishLane) {
    this.#client = client;
    this.#lane = lane;
    this.#lengths = new PacketLengths(lane.options.maxPacketBytes);
    const parser = client._parser;
    const [plain] = parser.listeners("packet");
    parser.removeAllListeners("packet");
    parser.on("packet", (packet) => {
      if (!this.#isReady || !this.#takePacket(packet)) plain?.call(parser, packet);
    });
    // The library would read by itself: first when there is something, then when it is done with that.
    client.conn.removeListener("readable", client._nextBatch);
    client._parsingBatch = 0;
    client._nextBatch = (error) => {
      if (error) {
        client.emit("error", error);
        return;
      }
      client._parsingBatch = Math.max(0, client._parsingBatch - 1);
      this.readOn();
    };
  }

  /** Takes the publishes from a chunk; from the first other packet on the library reads it. Keeps nothing of it. */
  read(chunk: Buffer): void {
    const client = this.#client;
    let at = this.#carriedBytes > 0 ? this.#complete(chunk) : 0;
    while (at < chunk.length && !client.closed) {
      const end = this.#isReady ? this.#measure(chunk, at, chunk.length) : 0;
      if (end > 0 && this.#takeBytes(chunk, at, end)) at = end;
      else if (end < 0) at = this.#keep(chunk, at, -end);
      else {
        this.#leaveToLibrary(chunk.subarray(at));
        break;
      }
    }
    if (client.closed) return;
    // Answers to what it asks, such as the time, count for nothing here; who does not take them is not read on.
    if (client.conn.writableNeedDrain) this.#drain();
    // [MQTT-3.1.2-24]: any packet shows that the client is alive.
    if (client._keepaliveInterval > 0) client._keepaliveTimer?.refresh();
    if (!this.#mayReadOn()) this.#pause();
  }

  acknowledge(packetId: number, payloadBytes: number): void {
    if (this.#isClosed) return;
    const bytes = payloadBytes + PUBLISH_BYTES;
    this.#waitingBytes -= bytes;
    this.#lane.waits(-bytes);
    if (packetId !== NO_PACKET_ID)
      this.#pubacks += String.fromCharCode(PUBACK, 2, packetId >>> 8, packetId & 0xff);
    if (this.#answers++ === 0) this.#lane.due(this);
  }

  disconnect(error: Error): void {
    this.#client.emit("error", error);
  }

  sendAnswers(): void {
    const { closed, conn } = this.#client;
    const pubacks = this.#pubacks;
    this.#answers = 0;
    this.#pubacks = "";
    if (closed || conn.destroyed) return;
    // A client that takes no answers is not read on.
    if (pubacks !== "" && !conn.write(pubacks, "latin1")) this.#drain();
    this.readOn();
  }

  /** It is read on when it has taken what was written to it; one that never does is ended by the library. */
  #drain(): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    this.#client.waitForDrain((error) => {
      if (error) this.#client._nextBatch(error);
      this.#isDraining = false;
      this.readOn();
    });
  }

  /** Reads again, if it had to stop and need not any more. */
  readOn(): void {
    if (!this.#isPaused || !this.#mayReadOn()) return;
    this.#isPaused = false;
    this.#client.conn.resume();
  }

  /** What waits for an answer will not get one: the connection is gone. */
  close(): void {
    this.#isClosed = true;
    this.#lane.waits(-this.#waitingBytes);
    this.#waitingBytes = 0;
    this.#carry = Buffer.alloc(0);
    this.#carriedBytes = 0;
  }

  /** The library has answered CONNECT, holds no packet back, and is in the midst of none. */
  get #isReady(): boolean {
    const { connackSent, _parser: parser } = this.#client;
    return this.session !== undefined && connackSent && parser._queue === null && this.#lengths.isBetween;
  }

  #mayReadOn(): boolean {
    if (this.#isDraining || this.#client._parsingBatch > 0 || this.session?.withheld) return false;
    if (this.#waitingBytes > MAX_WAITING_BYTES || this.#lane.isStopped) return false;
    if (!this.#lane.isFull || this.#waitingBytes === 0) return true;
    this.#lane.hold(this);
    return false;
  }

  #pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#client.conn.pause();
  }

  #leaveToLibrary(bytes: Buffer): void {
    if (!this.#lengths.accept(bytes)) this.#lane.options.tooLarge(this.#client);
    // The library keeps what is not whole.
    else this.#client._parser.parse(Buffer.from(bytes));
  }

  /** @returns false when the library shall see it */
  #takeBytes(bytes: Buffer, at: number, end: number): boolean {
    const head = bytes[at]!;
    const qos = ((head >> 1) & 1) as 0 | 1;
    const topicAt = this.#bodyAt + 2;
    if (topicAt > end) return false;
    const topicEnd = topicAt + ((bytes[topicAt - 2]! << 8) | bytes[topicAt - 1]!);
    const from = topicEnd + 2 * qos;
    if (from > end) return false;
    const destination = this.#lane.options.destinations.at(bytes, topicAt, topicEnd);
    if (destination === undefined) return false;
    const packetId = qos === 0 ? NO_PACKET_ID : (bytes[topicEnd]! << 8) | bytes[topicEnd + 1]!;
    this.#take({ destination, qos, dup: (head & 0x08) !== 0, packetId, bytes, from, end });
    return true;
  }

  /** A publish that the library has parsed, behind or before a packet of its own. */
  #takePacket({ cmd, qos, dup, topic, messageId, payload }: PublishPacket): boolean {
    if (cmd !== "publish" || qos === 2 || !isPublishTopic(topic)) return false;
    const bytes = typeof payload === "string" ? Buffer.from(payload) : payload;
    const destination = this.#lane.options.destinations.of(topic);
    this.#take({
      destination,
      qos,
      dup,
      packetId: messageId ?? NO_PACKET_ID,
      bytes,
      from: 0,
      end: bytes.length,
    });
    return true;
  }

  #take(publish: Publish): void {
    const bytes = publish.end - publish.from + PUBLISH_BYTES;
    this.#waitingBytes += bytes;
    this.#lane.waits(bytes);
    this.#lane.options.take(this.session!, publish, this);
  }

  /**
   * Where the publish at `at` ends; 0 when the library shall see it; where it is cut off, the negative
   * of how many bytes there must be to go on.
   */
  #measure(bytes: Buffer, at: number, limit: number): number {
    const head = bytes[at]!;
    // Type PUBLISH; bits 1 and 2 are the QoS.
    if ((head & 0xf0) !== 0x30 || (head & 0x06) > 0x02) return 0;
    const left = limit - at;
    let length = 0;
    for (let i = 1; i < MAX_HEAD_BYTES; i++) {
      if (i >= left) return -(left + 1);
      const byte = bytes[at + i]!;
      length |= (byte & 0x7f) << (7 * (i - 1));
      if (byte >= 0x80) continue;
      // Of a packet above the limit the library's watch says so.
      if (length > this.#lane.options.maxPacketBytes) return 0;
      this.#bodyAt = at + i + 1;
      const whole = 1 + i + length;
      return whole > left ? -whole : at + whole;
    }
    return 0;
  }

  /** Puts the beginning of a publish by; its memory grows with what has come, not with what is announced. */
  #keep(chunk: Buffer, at: number, neededBytes: number): number {
    this.#neededBytes = neededBytes;
    return this.#gather(chunk, at, chunk.length);
  }

  #gather(chunk: Buffer, from: number, end: number): number {
    const have = this.#carriedBytes;
    const bytes = Math.min(end - from, this.#neededBytes - have);
    if (have + bytes > this.#carry.length) {
      const larger = Buffer.allocUnsafeSlow(
        Math.min(this.#neededBytes, Math.max(have + bytes, 2 * this.#carry.length, KEPT_CARRY_BYTES)),
      );
      this.#carry.copy(larger, 0, 0, have);
      this.#carry = larger;
    }
    chunk.copy(this.#carry, have, from, from + bytes);
    this.#carriedBytes += bytes;
    return from + bytes;
  }

  /** Takes from the chunk what was missing. Returns where the next packet begins. */
  #complete(chunk: Buffer): number {
    let at = 0;
    for (;;) {
      at = this.#gather(chunk, at, chunk.length);
      if (this.#carriedBytes < this.#neededBytes) return at;
      const end = this.#measure(this.#carry, 0, this.#carriedBytes);
      if (end < 0) {
        this.#neededBytes = -end;
        continue;
      }
      const whole = this.#carriedBytes;
      this.#carriedBytes = 0;
      if (end === 0 || !this.#takeBytes(this.#carry, 0, end))
        this.#leaveToLibrary(this.#carry.subarray(0, whole));
      if (this.#carry.length > KEPT_CARRY_BYTES) this.#carry = Buffer.alloc(0);
      return at;
    }
  }
}
