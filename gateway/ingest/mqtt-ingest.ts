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
import { Aedes, type AuthenticateError, type Client, type PublishPacket } from "aedes";
import { decodeFrames, type Frame, MAX_FRAME_BYTES } from "../../protocol/frame.ts";
import { limitPackets } from "../../protocol/mqtt-packet-limit.ts";
import {
  type ControlMessage,
  isReservedTopic,
  parseTopic,
  type TopicKind,
  topicOf,
} from "../../protocol/topics.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError, HeadwaterError } from "../../runtime/errors.ts";
import { listenOn } from "../../runtime/listen.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { Streams } from "../streams/streams.ts";
import { parseDrained, parseStatus } from "./agent-messages.ts";
import type { DeviceDirectory } from "./device-directory.ts";
import type { DeviceStatus, Ingest, QuarantineStatus } from "./ingest.ts";
import { newPlainSession, PlainPublishes, type PlainSession } from "./plain-publishes.ts";
import { PublishLane } from "./publish-lane.ts";
import type { Quarantine } from "./quarantine.ts";
import type { TopicRules } from "./topic-rules.ts";

/** One publish carries a few frames; the largest single frame must fit, with its topic. */
const MAX_PACKET_BYTES = MAX_FRAME_BYTES + 1_024;
const MAX_CONNECTIONS = 10_000;
/** MQTT allows 65,535 bytes, and what is remembered of a client is kept under its id. */
const MAX_CLIENT_ID_CHARACTERS = 256;
/** A name that is only a label is shown in the console. */
const MAX_LABEL_CHARACTERS = 128;
/** What a publish is replaced by once it is stored: nobody is subscribed to it, and QoS 2 would be kept until PUBREL. */
const NO_PAYLOAD = Buffer.alloc(0);
const NO_TOPIC = "stored";
const RETRY_AFTER_MS = 1_000;
/** Time for the control message to leave before its connection ends. */
const BUSY_GRACE_MS = 500;

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
}

/** What is known of one connection. */
interface Session extends PlainSession {
  /** Set when a publish had to be left unanswered; nothing later may overtake it. */
  withheld: boolean;
}

function newSession(device: string): Session {
  return { ...newPlainSession(device), withheld: false };
}

/** The client may not do this; its connection ends. */
class NotAllowedError extends HeadwaterError {
  constructor(what: string) {
    super("NOT_ALLOWED", { message: what });
  }
}

export class MqttIngest implements Ingest {
  readonly #options: MqttIngestOptions;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #sessions = new WeakMap<Client, Session>();
  /** Those that asked for a session that outlives its connection: they send again also after a DISCONNECT. */
  readonly #keepsSession = new WeakSet<Client>();
  readonly #plain: PlainPublishes;
  readonly #publishes;
  readonly #refused;
  #broker: Aedes | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: MqttIngestOptions) {
    this.#options = options;
    this.#plain = new PlainPublishes(options);
    this.#server = createServer((socket) => this.#connection(socket));
    this.#server.maxConnections = MAX_CONNECTIONS;
    const { metrics } = options;
    this.#publishes = metrics.counter(
      "headwater_ingest_publishes_total",
      "MQTT publishes by how they were answered",
      ["answer"],
    );
    this.#refused = metrics.counter(
      "headwater_ingest_refused_total",
      "MQTT clients refused or disconnected",
      ["reason"],
    );
    metrics.gauge("headwater_ingest_connections", "Open MQTT connections", [], () => {
      metrics.gauge("headwater_ingest_connections", "").set(this.#sockets.size);
    });
  }

  async start(): Promise<void> {
    this.#broker = await Aedes.createBroker({
      maxClientsIdLength: 256,
      concurrency: 1_000,
      preConnect: (client, packet, done) => {
        // No session is kept: its QoS 2 publishes and its will would stay in memory for a client
        // that may never return (§3.2.2.2 allows it). A will is no reading.
        const keepsSession = packet.clean === false;
        packet.clean = true;
        delete (packet as { will?: unknown }).will;
        if ((packet.clientId ?? "").length > MAX_CLIENT_ID_CHARACTERS) {
          this.#refused.inc({ reason: "client id too long" });
          return done(new Error("client id too long"), false);
        }
        if (keepsSession) this.#keepsSession.add(client);
        done(null, true);
      },
      authenticate: (client, username, password, done) =>
        this.#authenticate(client, username, password, done),
      authorizePublish: (client, packet, done) => this.#authorizePublish(client, packet, done),
      authorizeSubscribe: (client, subscription, done) =>
        done(null, this.#maySubscribe(client, subscription.topic) ? subscription : null),
    });
    const lane = new PublishLane((client, packet, done) => this.#authorizePublish(client, packet, done));
    this.#broker.on("clientReady", (client) => {
      this.#options.directory.connected(this.#session(client).device);
      lane.open(client);
    });
    this.#broker.on("clientDisconnect", (client) => {
      this.#options.directory.disconnected(this.#session(client).device);
      this.#endOfSession(client);
    });
    // Its types do not know this event; unheard, it would end the process.
    (this.#broker as EventEmitter).on("error", (error: unknown) =>
      this.#options.log.error({ error: describeError(error) }, "the MQTT broker failed"),
    );
    const unusable = (client: Client, error: Error): void => {
      this.#refused.inc({ reason: "protocol" });
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

  close(): Promise<void> {
    this.#closing ??= (async () => {
      const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
      for (const socket of this.#sockets) socket.destroy();
      await closed;
      const broker = this.#broker;
      if (broker !== undefined) await new Promise<void>((resolve) => broker.close(() => resolve()));
    })();
    return this.#closing;
  }

  devices(): DeviceStatus[] {
    return this.#options.directory.list();
  }

  quarantine(): QuarantineStatus {
    return this.#options.quarantine.status();
  }

  #connection(socket: Socket): void {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("error", () => {});
    limitPackets(socket, MAX_PACKET_BYTES, () => {
      this.#refused.inc({ reason: "packet too large" });
      this.#options.log.warn({ peer: socket.remoteAddress }, "MQTT packet above the limit; disconnected");
    });
    this.#broker?.handle(socket);
  }

  #authenticate(
    client: Client,
    username: string | undefined,
    password: Buffer | undefined,
    done: (error: AuthenticateError | null, success: boolean | null) => void,
  ): void {
    const { directory, log } = this.#options;
    if (directory.admits(username, password)) {
      // Without configured devices a name is only a label, and the client's id serves as well.
      const device = username ?? client.id;
      this.#sessions.set(client, newSession(device.slice(0, MAX_LABEL_CHARACTERS)));
      done(null, true);
      return;
    }
    this.#refused.inc({ reason: "credentials" });
    log.warn(
      { client: client.id, device: username?.slice(0, 64) },
      "device refused: unknown, or wrong password",
    );
    done(
      Object.assign(new Error("not authorised"), { returnCode: 5 as AuthenticateError["returnCode"] }),
      false,
    );
  }

  #session(client: Client): Session {
    let session = this.#sessions.get(client);
    if (session === undefined) {
      session = newSession(client.id);
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
    const taken = this.#broker !== undefined && this.#isConnected(client.id);
    if (!inPeace || taken || this.#keepsSession.has(client)) return;
    this.#options.streams.forgetClient(client.id).catch((error: unknown) => {
      this.#options.log.debug({ client: client.id, error: describeError(error) }, "client not forgotten");
    });
  }

  #isConnected(clientId: string): boolean {
    return clientId in (this.#broker as unknown as { clients: object }).clients;
  }

  /** An agent hears its own control topic, and nobody hears anything else: this is a door, not a bus. */
  #maySubscribe(client: Client, topic: string): boolean {
    const parsed = parseTopic(topic);
    return parsed?.kind === "control" && this.#mayActAs(client, parsed.device);
  }

  #mayActAs(client: Client, device: string): boolean {
    return this.#options.directory.open || this.#session(client).device === device;
  }

  /** The library calls this before it answers, many at a time, in the order of arrival. */
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
    const session = this.#session(client);
    if (session.withheld) return;
    // Retained messages would be kept in memory for ever, for subscribers that cannot exist.
    packet.retain = false;
    const { topic } = packet;
    const stored = this.#store(client, session, packet);
    // It is in the log's hands. The broker trusts what is published below $SYS, and could close other
    // clients by it.
    packet.payload = NO_PAYLOAD;
    packet.topic = NO_TOPIC;
    stored.then(
      (answer) => {
        if (session.withheld) return;
        this.#publishes.inc({ answer });
        done();
      },
      (error: unknown) => {
        if (error instanceof NotAllowedError) {
          this.#refused.inc({ reason: "not allowed" });
          this.#options.log.warn({ client: client.id, error: describeError(error) }, "device disconnected");
          done(error);
          return;
        }
        this.#withhold(client, session, topic, error);
      },
    );
  }

  /** What was stored is answered; appends are queued before the first await, so order is kept. */
  #store(client: Client, session: Session, packet: PublishPacket): Promise<string> {
    const parsed = parseTopic(packet.topic);
    const payload = typeof packet.payload === "string" ? Buffer.from(packet.payload) : packet.payload;
    if (parsed !== undefined) {
      if (!this.#mayActAs(client, parsed.device)) {
        return Promise.reject(new NotAllowedError(`${session.device} published as ${parsed.device}`));
      }
      return this.#storeAgentMessage(client, parsed.device, parsed.kind, packet, payload);
    }
    if (isReservedTopic(packet.topic))
      return this.#quarantine(client, packet, payload, "unknown topic below headwater/");
    return this.#plain.store(client.id, session, packet, payload);
  }

  #storeAgentMessage(
    client: Client,
    device: string,
    kind: TopicKind,
    packet: PublishPacket,
    payload: Buffer,
  ): Promise<string> {
    switch (kind) {
      case "frames":
        return this.#storeFrames(client, device, packet, payload);
      case "drained": {
        const message = parseDrained(payload);
        if (message === undefined) return this.#quarantine(client, packet, payload, "no drained message");
        const { streams } = this.#options;
        return Promise.all(
          message.epochs.map((epoch) => streams.forgetEpoch(device, BigInt(`0x${epoch}`))),
        ).then(() => "stored");
      }
      case "status": {
        const message = parseStatus(payload);
        if (message === undefined) return this.#quarantine(client, packet, payload, "no status message");
        this.#options.directory.status(device, message);
        return Promise.resolve("stored");
      }
      case "control":
        return Promise.reject(new NotAllowedError("control messages come from the gateway"));
    }
  }

  #storeFrames(client: Client, device: string, packet: PublishPacket, payload: Buffer): Promise<string> {
    let frames: Frame[];
    try {
      frames = decodeFrames(payload);
    } catch (error) {
      return this.#quarantine(client, packet, payload, describeError(error));
    }
    if (frames.some((frame) => frame.device !== device)) {
      return Promise.reject(new NotAllowedError(`${device} sent a frame of another device`));
    }
    const known = new Set(this.#options.streams.listStreams());
    return Promise.all(frames.map((frame) => this.#storeFrame(client, packet, frame, known))).then(
      (outcomes) => (outcomes.includes("stored") ? "stored" : (outcomes[0] ?? "stored")),
    );
  }

  async #storeFrame(
    client: Client,
    packet: PublishPacket,
    frame: Frame,
    known: ReadonlySet<string>,
  ): Promise<string> {
    const { streams, directory } = this.#options;
    if (!known.has(frame.stream)) {
      return this.#quarantine(client, packet, frame.bytes, `there is no stream ${frame.stream}`);
    }
    const outcome = await streams.appendFrame(frame);
    directory.frame(frame.device, frame.epoch, frame.sequence, frame.recordCount, outcome);
    return outcome;
  }

  async #quarantine(
    client: Client,
    packet: PublishPacket,
    payload: Uint8Array,
    reason: string,
  ): Promise<string> {
    const { quarantine, clock } = this.#options;
    await quarantine.keep({ timeUs: clock.nowUs(), client: client.id, topic: packet.topic, reason, payload });
    return "quarantined";
  }

  /** No PUBACK, so the client keeps the publish and sends it again on its next connection. */
  #withhold(client: Client, session: Session, topic: string, error: unknown): void {
    if (session.withheld) return;
    session.withheld = true;
    this.#publishes.inc({ answer: "withheld" });
    const reason = describeError(error);
    this.#options.log.warn({ client: client.id, reason }, "publish not stored; PUBACK withheld");
    const end = (): void => client.close();
    const device = parseTopic(topic)?.device;
    if (device !== undefined) {
      const message: ControlMessage = {
        type: "busy",
        reason: "the gateway cannot store for now",
        retryAfterMs: RETRY_AFTER_MS,
      };
      client.publish(
        {
          cmd: "publish",
          topic: topicOf(device, "control"),
          payload: JSON.stringify(message),
          qos: 0,
          retain: false,
          dup: false,
        },
        () => {},
      );
    }
    setTimeout(end, BUSY_GRACE_MS).unref();
  }
}
