/**
 * The MQTT door. A publish is answered in one of four ways:
 *
 *   stored (or known already)  → PUBACK, after fdatasync
 *   invalid                    → quarantined, then PUBACK: refused, it would come again for ever
 *   temporary trouble          → no PUBACK; the agent is told by its control topic, and nothing
 *                                later is taken on that connection, which ends soon after
 *   not allowed                → disconnected and counted
 */
import type { EventEmitter } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { Aedes, type AuthenticateError, type Client, type PublishPacket } from "aedes";
import { MAX_FRAME_BYTES } from "../../protocol/frame.ts";
import { limitPackets } from "../../protocol/mqtt-packet-limit.ts";
import { parseTopic } from "../../protocol/topics.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import { listenOn } from "../../runtime/listen.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import { readPlain, readShared } from "../../runtime/shared-read.ts";
import type { Streams } from "../streams/streams.ts";
import { Admission, MAX_LABEL_CHARACTERS } from "./admission.ts";
import { AgentPublishes } from "./agent-publishes.ts";
import { ConnectionRoom } from "./connection-room.ts";
import { ContestedIds } from "./contested-ids.ts";
import { Destinations } from "./destinations.ts";
import type { DeviceDirectory } from "./device-directory.ts";
import type { DeviceStatus, Ingest, QuarantineStatus } from "./ingest.ts";
import type { LaneConnection } from "./lane-connection.ts";
import { PlainPublishes } from "./plain-publishes.ts";
import { NO_PACKET_ID, newSession, type Session } from "./publish.ts";
import { PublishDesk } from "./publish-desk.ts";
import { PublishLane } from "./publish-lane.ts";
import type { PublishMemoryOptions } from "./publish-memory.ts";
import { PublishRoutes } from "./publish-routes.ts";
import type { Quarantine } from "./quarantine.ts";
import type { TopicRules } from "./topic-rules.ts";
import { watchedMemory } from "./watched-memory.ts";

/** One publish carries a few frames; the largest single frame must fit, with its topic. */
const MAX_PACKET_BYTES = MAX_FRAME_BYTES + 1_024;
export const MAX_CONNECTIONS = 10_000;
/** A peer of which so long nothing comes is asked for by TCP: with MQTT's keep-alive at 0 nobody else notices that it is gone. */
const ASK_PEER_MS = 60_000;
/** MQTT allows 65,535 bytes, and what is remembered of a client is kept under its id. */
const MAX_CLIENT_ID_CHARACTERS = 256;
/**
 * Packets that may come along with CONNECT, before it is answered: as many as a client may have under way
 * (docs/reference/wire.md), and some. They come in one piece at most, as no more is read meanwhile.
 */
const MAX_EARLY_PACKETS = 1_000;
/** So long a closing door waits for the disk. */
const LAST_ANSWERS_MS = 2_000;
/** MQTT 3.1.1 §3.9.3: the subscription was not granted. */
const REFUSED = 0x80;
/** What a publish is replaced by once it is stored: nobody is subscribed to it, and QoS 2 would be kept until PUBREL. */
const NO_PAYLOAD = Buffer.alloc(0);
const NO_TOPIC = "stored";

export interface MqttIngestOptions {
  readonly host: string;
  readonly port: number;
  readonly streams: Streams;
  readonly directory: DeviceDirectory;
  readonly quarantine: Quarantine;
  readonly rules: TopicRules;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** 10,000 unless given: of plain ones, and of all with those by TLS. */
  readonly maxConnections?: number;
  readonly memory?: PublishMemoryOptions;
}

export class MqttIngest implements Ingest {
  readonly #options: MqttIngestOptions;
  readonly #server: Server;
  readonly #room: ConnectionRoom;
  readonly #sessions = new WeakMap<Client, Session>();
  /** Those that asked for a session that outlives its connection: they send again also after a DISCONNECT. */
  readonly #keepsSession = new WeakSet<Client>();
  /** Those that were let in and have not left. */
  readonly #present = new WeakSet<Client>();
  readonly #desk: PublishDesk;
  readonly #plain: PlainPublishes;
  readonly #agents: AgentPublishes;
  readonly #routes: PublishRoutes;
  readonly #destinations: Destinations;
  readonly #lane: PublishLane;
  readonly #lanes = new WeakMap<Client, LaneConnection>();
  readonly #admission: Admission;
  readonly #contested: ContestedIds;
  #broker: Aedes | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: MqttIngestOptions) {
    this.#options = options;
    const { metrics } = options;
    this.#desk = new PublishDesk(options);
    this.#contested = new ContestedIds({ ...options, desk: this.#desk });
    this.#admission = new Admission(options.directory, this.#desk);
    this.#plain = new PlainPublishes({ ...options, desk: this.#desk });
    this.#agents = new AgentPublishes({ ...options, desk: this.#desk });
    this.#routes = new PublishRoutes({ plain: this.#plain, agents: this.#agents, desk: this.#desk });
    this.#destinations = new Destinations(options.rules);
    this.#lane = new PublishLane({
      destinations: this.#destinations,
      maxPacketBytes: MAX_PACKET_BYTES,
      take: (session, publish, answers) => this.#routes.take(session, publish, answers),
      tooLarge: (client) => this.#tooLarge(client.conn as Socket),
      memory: watchedMemory(options.memory, { metrics, desk: this.#desk }),
      tooSlow: (client) => this.#tooSlow(client),
    });
    this.#server = createServer((socket) => this.#connection(socket));
    this.#room = new ConnectionRoom(options.maxConnections ?? MAX_CONNECTIONS);
    metrics.gauge("headwater_ingest_connections", "Open MQTT connections", [], () => {
      metrics.gauge("headwater_ingest_connections", "").set(this.#room.size);
    });
  }

  async start(): Promise<void> {
    this.#broker = await Aedes.createBroker({
      maxClientsIdLength: MAX_LABEL_CHARACTERS + 1 + MAX_CLIENT_ID_CHARACTERS,
      concurrency: 1_000,
      queueLimit: MAX_EARLY_PACKETS,
      preConnect: (client, packet, done) => {
        // No session is kept: its QoS 2 publishes and its will would stay in memory for a client
        // that may never return (§3.2.2.2 allows it). A will is no reading.
        const keepsSession = packet.clean === false;
        packet.clean = true;
        delete (packet as { will?: unknown }).will;
        if ((packet.clientId ?? "").length > MAX_CLIENT_ID_CHARACTERS) {
          this.#desk.refuse("client id too long");
          return done(new Error("client id too long"), false);
        }
        if (keepsSession) this.#keepsSession.add(client);
        packet.clientId = this.#admission.clientId(client, packet.username, packet.clientId);
        done(null, true);
      },
      authenticate: (client, username, password, done) =>
        this.#authenticate(client, username, password, done),
      authorizePublish: (client, packet, done) => this.#authorizePublish(client, packet, done),
      authorizeSubscribe: (client, subscription, done) =>
        done(null, this.#maySubscribe(client, subscription.topic) ? subscription : null),
    });
    this.#broker.on("clientReady", (client) => {
      // It may have ended while it was let in.
      if (client.closed) return;
      const session = this.#session(client);
      this.#room.letIn(client.conn as Socket, session.device);
      this.#present.add(client);
      this.#contested.claim(session);
      this.#options.directory.connected(session.device);
      const lane = this.#lanes.get(client);
      if (lane !== undefined) lane.session = session;
    });
    this.#broker.on("clientDisconnect", (client) => {
      this.#gone(client);
      this.#endOfSession(client);
    });
    this.#broker.on("subscribe", (subscriptions, client) => {
      for (const { topic, qos } of subscriptions) {
        const listener = parseTopic(topic);
        if ((qos as number) !== REFUSED && listener !== undefined)
          this.#agents.greet(this.#session(client), listener.device, this.#contested.has(client.id));
      }
    });
    // Its types do not know this event; unheard, it would end the process.
    (this.#broker as EventEmitter).on("error", (error: unknown) =>
      this.#options.log.error({ error: describeError(error) }, "the MQTT broker failed"),
    );
    const unusable = (client: Client, error: Error): void => {
      this.#desk.refuse("protocol");
      this.#options.log.debug({ client: client.id, error: error.message }, "MQTT connection ended");
    };
    this.#broker.on("clientError", unusable);
    this.#broker.on("connectionError", unusable);
    await listenOn(this.#server, this.#options.host, this.#options.port);
  }

  /** The port that is listened on. */
  get port(): number {
    const address = this.#server.address();
    return address !== null && typeof address === "object" ? address.port : this.#options.port;
  }

  /**
   * A connection that came by TLS. @param device what its certificate proves; without one it needs a
   * configured device's password, also where the plain port is open
   */
  adopt(socket: TLSSocket, device: string | undefined): void {
    this.#admission.cameByTls(socket, device);
    this.#connection(socket);
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
      for (const socket of this.#room) socket.pause();
      await this.#answerAll();
      for (const socket of this.#room) socket.destroy();
      await closed;
      const broker = this.#broker;
      if (broker !== undefined) await new Promise<void>((resolve) => broker.close(() => resolve()));
    })();
    return this.#closing;
  }

  /** What is taken already comes to the disk, and its client shall know: it would send it again. */
  async #answerAll(): Promise<void> {
    this.#plain.flush();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, LAST_ANSWERS_MS);
    });
    await Promise.race([this.#lane.stop(), late]);
    clearTimeout(timer);
    // What was answered in this turn leaves at its end.
    await new Promise((resolve) => setImmediate(resolve));
  }

  devices(): DeviceStatus[] {
    return this.#options.directory.list();
  }

  quarantine(): QuarantineStatus {
    return this.#options.quarantine.status();
  }

  #connection(socket: Socket): void {
    if (this.#closing !== undefined || !this.#makeRoom(socket)) {
      socket.destroy();
      return;
    }
    this.#room.add(socket);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, ASK_PEER_MS);
    socket.on("close", () => this.#room.forget(socket));
    socket.on("error", () => {});
    const client = this.#broker?.handle(socket);
    const lane = client && this.#lane.attach(client);
    if (client !== undefined) socket.on("close", () => this.#gone(client));
    if (client === undefined || lane === undefined) {
      limitPackets(socket, MAX_PACKET_BYTES, () => this.#tooLarge(socket));
      return;
    }
    this.#lanes.set(client, lane);
    socket.on("close", () => lane.close());
    // What TLS has decrypted is in memory of its own already.
    const read = this.#admission.isByTls(socket) ? readPlain : readShared;
    read(socket, (chunk) => lane.read(chunk));
    lane.begin();
  }

  /** Called by the library, and when the socket has closed: of a client whose id two others take at a time, the library says nothing. */
  #gone(client: Client): void {
    if (!this.#present.delete(client)) return;
    const session = this.#session(client);
    this.#contested.release(session);
    this.#options.directory.disconnected(session.device);
    this.#agents.gone(session);
  }

  /** @returns false when all others keep their places */
  #makeRoom({ remoteAddress }: Socket): boolean {
    if (!this.#room.isFull) return true;
    const leaving = this.#room.firstToGo();
    this.#desk.refuse("too many connections");
    this.#desk.warn(
      { peer: (leaving ?? { remoteAddress }).remoteAddress },
      "MQTT connection ended: there are too many",
    );
    if (leaving === undefined) return false;
    this.#room.forget(leaving);
    leaving.destroy();
    return true;
  }

  #tooLarge(socket: Socket): void {
    this.#desk.refuse("packet too large");
    this.#desk.warn({ peer: socket.remoteAddress }, "MQTT packet above the limit; disconnected");
    socket.destroy();
  }

  #tooSlow({ id, conn }: Client): void {
    this.#desk.refuse("packet too slow");
    this.#desk.warn({ client: id }, "MQTT packet did not come to its end while others waited; disconnected");
    conn.destroy();
  }

  #authenticate(
    client: Client,
    username: string | undefined,
    password: Buffer | undefined,
    done: (error: AuthenticateError | null, success: boolean | null) => void,
  ): void {
    const session = this.#admission.admit(client, username, password);
    if (session !== undefined) {
      this.#sessions.set(client, session);
      session.letInMs = this.#options.clock.monotonicMs();
      // The library will end that one.
      const other = this.#connected[client.id];
      if (other !== undefined && this.#present.has(other))
        this.#contested.take(this.#session(other as Client));
      done(null, true);
      return;
    }
    // MQTT 3.1.1 §3.2.2.3: not authorised.
    const returnCode = 5 as AuthenticateError["returnCode"];
    done(Object.assign(new Error("not authorised"), { returnCode }), false);
  }

  #session(client: Client): Session {
    let session = this.#sessions.get(client);
    if (session === undefined) {
      session = newSession(client, client.id);
      this.#sessions.set(client, session);
    }
    return session;
  }

  /**
   * [MQTT-3.1.2-6]: a clean session ends with its DISCONNECT, and nothing of it is sent again. So the
   * same reading under the same packet id on the next connection is a new one. A kill before it is on
   * disk takes one such reading for known.
   */
  #endOfSession(client: Client): void {
    const { _disconnected: inPeace } = client as unknown as { _disconnected: boolean };
    const taken = client.id in this.#connected;
    if (!inPeace || taken || this.#keepsSession.has(client)) return;
    this.#plain.flush();
    this.#options.streams.forgetClient(client.id).catch((error: unknown) => {
      this.#options.log.debug({ client: client.id, error: describeError(error) }, "client not forgotten");
    });
  }

  /** By client id; the library's types do not tell of it. */
  get #connected(): Readonly<Record<string, Client>> {
    return (this.#broker as unknown as { clients: Record<string, Client> } | undefined)?.clients ?? {};
  }

  /** An agent hears its own control topic, and nobody hears anything else: this is a door, not a bus. */
  #maySubscribe(client: Client, topic: string): boolean {
    const session = this.#session(client);
    session.hasSpoken = true;
    const parsed = parseTopic(topic);
    return parsed?.kind === "control" && this.#agents.mayActAs(session, parsed.device);
  }

  /** The library calls this before it answers what does not go by the lane, many at a time, in the order of arrival. */
  #authorizePublish(
    client: Client | null,
    packet: PublishPacket,
    done: (error?: Error | null) => void,
  ): void {
    // Without a client it is the broker's own.
    if (client === null) {
      done(new Error("not from a client"));
      return;
    }
    const { topic, qos, dup, messageId = NO_PACKET_ID } = packet;
    const bytes = typeof packet.payload === "string" ? Buffer.from(packet.payload) : packet.payload;
    const destination = this.#destinations.of(topic);
    const publish = { destination, qos, dup, packetId: messageId, bytes, from: 0, end: bytes.length };
    const lane = this.#lanes.get(client);
    lane?.taken(bytes.length);
    const acknowledge = (): void => {
      lane?.answered(bytes.length);
      done();
    };
    this.#routes.take(this.#session(client), publish, { acknowledge, disconnect: done });
    // It is in the log's hands. The broker trusts what is published below $SYS, and could close other
    // clients by it. Retained messages would be kept for ever, for subscribers that cannot exist.
    packet.payload = NO_PAYLOAD;
    packet.topic = NO_TOPIC;
    packet.retain = false;
  }
}
