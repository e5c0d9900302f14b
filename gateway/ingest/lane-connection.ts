/**
 * One client of the publish lane (publish-lane.ts): takes QoS 0 and 1 publishes straight from its chunks, leaves all else to the
 * library, and sends the PUBACKs of one group commit in one write.
 */
import type { Client, PublishPacket } from "aedes";
import { PacketLengths } from "../../protocol/mqtt-packet-limit.ts";
import { CutPublish } from "./cut-publish.ts";
import { type Destinations, isPublishTopic } from "./destinations.ts";
import type { InnerClient } from "./library-client.ts";
import { type Answers, NO_PACKET_ID, type Publish, type Session } from "./publish.ts";
import type { PublishMemory, Reader } from "./publish-memory.ts";

/** MQTT 3.1.1 §2.2.3: a type byte and at most four bytes of length. */
const MAX_HEAD_BYTES = 5;
const PUBACK = 0x40;
/** What may wait for an answer on one connection; who has nothing waiting may hand in one publish more. */
const MAX_WAITING_BYTES = 512 * 1_024;
/** What a publish counts beside its payload. */
const PUBLISH_BYTES = 128;
/** One of the library's costs as much as so many of the lane's. */
const LIBRARY_PACKETS = 8;

export interface LaneConnectionOptions {
  readonly destinations: Destinations;
  readonly maxPacketBytes: number;
  /** Takes a publish; answers later, never within the call. */
  readonly take: (session: Session, publish: Publish, answers: Answers) => void;
  /** The client announced a larger packet than it may send. */
  readonly tooLarge: (client: Client) => void;
  readonly memory: PublishMemory;
  /** The client holds up others with a packet that does not come to its end. */
  readonly tooSlow: (client: Client) => void;
}

/** What the connections have in common. */
export interface Lane {
  readonly options: LaneConnectionOptions;
  readonly isStopped: boolean;
  /** Too much of all connections waits for an answer. */
  readonly isFull: boolean;
  /** Packets of one connection that are taken in one turn of the event loop. */
  readonly packetsAtOnce: number;
  /** So much more, or less, waits for an answer. */
  waits(bytes: number): void;
  /** So much more, or less, waits for the next turn. */
  putOff(bytes: number): void;
  /** The connection has PUBACKs to send. */
  due(connection: LaneConnection): void;
  /** The connection is read on once less waits. */
  hold(connection: LaneConnection): void;
}

/** One client, and what has come of a publish that is not whole yet. */
export class LaneConnection implements Answers, Reader {
  /** Set once the client is let in. */
  session: Session | undefined;
  promisedBytes = 0;
  begunBytes = 0;
  wantedBytes = 0;
  round = 0;
  readonly #client: InnerClient;
  readonly #lane: Lane;
  readonly #memory: PublishMemory;
  /** Follows what the library reads, so that a packet of its own is never cut. */
  readonly #lengths: PacketLengths;
  /** Of the answers that are due: how many, and the PUBACKs as latin1. */
  #answers = 0;
  #pubacks = "";
  #waitingBytes = 0;
  #isDraining = false;
  #isPaused = false;
  #isClosed = false;
  /** What came behind as many packets as are taken in one turn; nothing is read meanwhile. */
  #putOff: Buffer | undefined;
  #goesOn = false;
  readonly #cut = new CutPublish();
  /** Where the body begins of the publish that was measured last. */
  #bodyAt = 0;

  constructor(client: InnerClient, lane: Lane) {
    this.#client = client;
    this.#lane = lane;
    this.#memory = lane.options.memory;
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

  /** Its socket is read from now on. */
  begin(): void {
    this.#memory.add(this);
  }

  /** Takes the publishes from a chunk; from the first other packet on the library reads it. What is kept of it is copied. */
  read(chunk: Buffer): void {
    // Its socket was told to pause, but may have had more at hand.
    if (this.#putOff !== undefined) this.#putOffTo(Buffer.concat([this.#putOff, chunk]));
    else this.#take(chunk, false);
  }

  /** @param isOwn the memory stays as it is */
  #take(chunk: Buffer, isOwn: boolean): void {
    const client = this.#client;
    const packetsAtOnce = this.#lane.packetsAtOnce;
    let at = this.#cut.isEmpty ? 0 : this.#complete(chunk);
    for (let packets = 0; at < chunk.length && packets < packetsAtOnce && !client.closed; packets++) {
      const end = this.#isReady ? this.#measure(chunk, at, chunk.length) : 0;
      if (end > 0 && this.#takeBytes(chunk, at, end)) at = end;
      else if (end < 0) {
        this.#cut.neededBytes = -end;
        at = this.#cut.gather(chunk, at);
      } else {
        at += this.#leaveToLibrary(
          chunk.subarray(at),
          Math.ceil((packetsAtOnce - packets) / LIBRARY_PACKETS),
        );
        break;
      }
    }
    if (client.closed) return;
    if (at < chunk.length) this.#putOffTo(isOwn ? chunk.subarray(at) : Buffer.from(chunk.subarray(at)));
    // Answers to what it asks, such as the time, count for nothing here; who does not take them is not read on.
    if (client.conn.writableNeedDrain) this.#drain();
    // [MQTT-3.1.2-24]: any packet shows that the client is alive.
    if (client._keepaliveInterval > 0) client._keepaliveTimer?.refresh();
    if (this.#putOff !== undefined || !this.#mayReadOn()) this.pause();
    this.readOn();
  }

  #putOffTo(rest: Buffer | undefined): void {
    this.#lane.putOff((rest?.length ?? 0) - (this.#putOff?.length ?? 0));
    this.#putOff = rest;
  }

  #goOn(): void {
    this.#goesOn = false;
    const rest = this.#putOff;
    if (rest === undefined || this.#client.closed || !this.#mayReadOn()) return;
    this.#putOffTo(undefined);
    this.#take(rest, true);
  }

  acknowledge(packetId: number, payloadBytes: number): void {
    if (this.#isClosed) return;
    this.#waits(-payloadBytes - PUBLISH_BYTES);
    if (packetId !== NO_PACKET_ID)
      this.#pubacks += String.fromCharCode(PUBACK, 2, packetId >>> 8, packetId & 0xff);
    if (this.#answers++ === 0) this.#lane.due(this);
  }

  /** Of one that the library answers: its answer has come. */
  answered(payloadBytes: number): void {
    if (this.#isClosed) return;
    this.#waits(-payloadBytes - PUBLISH_BYTES);
    this.#memory.roomCame();
  }

  /** One that the library answers is taken. */
  taken(payloadBytes: number): void {
    if (!this.#isClosed) this.#waits(payloadBytes + PUBLISH_BYTES);
  }

  #waits(bytes: number): void {
    this.#waitingBytes += bytes;
    this.#lane.waits(bytes);
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
    if (this.#putOff === undefined) {
      this.#isPaused = false;
      this.#client.conn.resume();
    } else if (!this.#goesOn) {
      this.#goesOn = true;
      setImmediate(() => this.#goOn());
    }
  }

  /** What waits for an answer will not get one: the connection is gone. */
  close(): void {
    this.#isClosed = true;
    this.#lane.waits(-this.#waitingBytes);
    this.#waitingBytes = 0;
    this.#putOffTo(undefined);
    this.#cut.forget();
    this.#memory.forget(this);
  }

  keepAlive(): void {
    if (this.#client._keepaliveInterval > 0) this.#client._keepaliveTimer?.refresh();
  }

  end(): void {
    this.#lane.options.tooSlow(this.#client);
  }

  /** The library has answered CONNECT, holds no packet back, and is in the midst of none. */
  get #isReady(): boolean {
    const { connackSent, _parser: parser } = this.#client;
    return this.session !== undefined && connackSent && parser._queue === null && this.#lengths.isBetween;
  }

  #mayReadOn(): boolean {
    if (this.#isDraining || this.#client._parsingBatch > 0 || this.session?.withheld) return false;
    if (this.#waitingBytes > MAX_WAITING_BYTES || this.#lane.isStopped) return false;
    if (this.#waitingBytes > 0 && this.#lane.isFull) {
      this.#lane.hold(this);
      return false;
    }
    const { isEmpty, neededBytes, haveBytes } = this.#cut;
    if (!isEmpty) return this.#memory.mayReadOn(this, neededBytes, haveBytes);
    const { packetBytes, bodyLeft } = this.#lengths;
    return this.#memory.mayReadOn(this, packetBytes, packetBytes - bodyLeft);
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#client.conn.pause();
  }

  /** @returns how many bytes are done with */
  #leaveToLibrary(bytes: Buffer, maxPackets = Number.POSITIVE_INFINITY): number {
    const { bodyLeft } = this.#lengths;
    const passed = this.#lengths.pass(bytes, maxPackets);
    if (bodyLeft > 0 && passed >= bodyLeft) this.#memory.whole(this);
    if (passed < 0) {
      this.#lane.options.tooLarge(this.#client);
      return bytes.length;
    }
    // The library keeps what is not whole.
    this.#client._parser.parse(Buffer.from(bytes.subarray(0, passed)));
    return passed;
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
    this.#hand({ destination, qos, dup: (head & 0x08) !== 0, packetId, bytes, from, end });
    return true;
  }

  /** A publish that the library has parsed, behind or before a packet of its own. */
  #takePacket({ cmd, qos, dup, topic, messageId, payload }: PublishPacket): boolean {
    if (cmd !== "publish" || qos === 2 || !isPublishTopic(topic)) return false;
    const bytes = typeof payload === "string" ? Buffer.from(payload) : payload;
    const destination = this.#lane.options.destinations.of(topic);
    this.#hand({
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

  #hand(publish: Publish): void {
    this.#waits(publish.end - publish.from + PUBLISH_BYTES);
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

  /** Takes from the chunk what was missing. Returns where the next packet begins. */
  #complete(chunk: Buffer): number {
    const cut = this.#cut;
    let at = 0;
    for (;;) {
      at = cut.gather(chunk, at);
      if (!cut.isWhole) return at;
      const end = this.#measure(cut.bytes, 0, cut.bytes.length);
      if (end < 0) {
        cut.neededBytes = -end;
        continue;
      }
      const whole = cut.bytes;
      if (end === 0 || !this.#takeBytes(whole, 0, end)) this.#leaveToLibrary(whole);
      cut.letGo();
      if (this.promisedBytes > 0) this.#memory.whole(this);
      return at;
    }
  }
}
