/**
 * The agent's own MQTT broker, to which sensors publish. PUBACK means: on disk.
 *
 * A publish is never refused once its client is let in: a 3.1.1 client would send it again, first,
 * for ever. What no format fits is stored raw, with the reason. While the buffer is full PUBACK is
 * withheld. No sessions are kept: a client that asks for one gets a fresh one (§3.2.2.2 allows it).
 */
import { createHash } from "node:crypto";
import type { EventEmitter } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { Aedes, type Client, type PublishPacket } from "aedes";
import type { MqttSourceConfig } from "../../config/source-config.ts";
import { limitPackets } from "../../protocol/mqtt-packet-limit.ts";
import { pause } from "../../runtime/backoff.ts";
import { ConnectionPlaces } from "../../runtime/connection-places.ts";
import { describeError } from "../../runtime/errors.ts";
import { listenOn } from "../../runtime/listen.ts";
import type { BufferRecord, Mark } from "../buffer/record-buffer.ts";
import { Assembly } from "./assembly.ts";
import { PublishDecoder } from "./decode/publish.ts";
import type { Arrived } from "./intake.ts";
import { isUser } from "./mqtt/broker-users.ts";
import { ClientMemories } from "./mqtt/client-memories.ts";
import { DiscoveryMemory } from "./mqtt/discovery-memory.ts";
import { type LeadingPublishes, type PublishMemory, publishKey } from "./mqtt/publish-memory.ts";
import { topicMatches } from "./mqtt/topic-filter.ts";
import type { Decoded, Source, SourceParts, SourceReport } from "./source.ts";
import type { Life } from "./supervisor.ts";

/** A larger payload is no reading; it is acknowledged, counted and reported without its bytes. */
const MAX_PAYLOAD_BYTES = 262_144;
/** A packet above this ends its connection at its header; up to here a payload is at least accounted for. */
const MAX_PACKET_BYTES = 4 * 1_048_576;
const MAX_CLIENTS = 2_000;
/** Connections, also of those that never say who they are: each takes one of the descriptors that the buffer needs, too. */
const MAX_CONNECTIONS = MAX_CLIENTS + 200;
/** Who has not said by then who it is need not be waited for. */
const CONNECT_MS = 10_000;
const NO_CONNECT = "connect did not arrive in time";
/** A longer topic is no convention's, and nothing is remembered of it. */
const MAX_TOPIC_CHARACTERS = 1_024;
/** A subscriber that leaves more unread is disconnected, or one that reads nothing for so long: publishers wait for it. */
const MAX_UNREAD_BYTES = 1_048_576;
const UNREAD_MS = 2_000;
const UNREAD = "a subscriber that does not read";
const MAX_CLIENT_ID_CHARACTERS = 128;
/** A client whose publish the full buffer refused is disconnected after so long, and sends it again. */
const REFUSED_CLOSE_MS = 1_000;
const CLOSE_WAIT_MS = 2_000;

export interface MqttSourceOptions extends SourceParts {
  readonly config: MqttSourceConfig;
}

interface Connection {
  readonly memory: PublishMemory;
  /** Begins with its first publish: until then the connection that it takes over may store more. */
  leading: LeadingPublishes | undefined;
  /** Settles when the publish before has its PUBACK, or will not get one. Never rejects. */
  acknowledged: Promise<void> | undefined;
  /** Once one publish was refused, those behind it must be too: order per client. */
  refused: boolean;
}

export class MqttSource implements Source {
  readonly #options: MqttSourceOptions;
  readonly #memories: ClientMemories;
  readonly #assembly: Assembly;
  readonly #decoder: PublishDecoder;
  readonly #discovery: DiscoveryMemory;
  readonly #connections = new WeakMap<Client, Connection>();
  readonly #anonymous = new WeakSet<Client>();
  /** Those that asked for a session that outlives its connection: they send again also after a DISCONNECT. */
  readonly #keepsSession = new WeakSet<Client>();
  readonly #sockets = new Set<Socket>();
  readonly #places = new ConnectionPlaces(MAX_CONNECTIONS, (reason) => this.#assembly.meters.fault(reason));
  readonly #pending = new Set<Promise<void>>();
  /** When the oldest append began that is still not on disk, by its promise's order. */
  #pendingSinceMs: number | undefined;
  #broker: Aedes | undefined;
  #server: Server | undefined;
  #closing = false;

  constructor(options: MqttSourceOptions) {
    this.#options = options;
    this.#memories = new ClientMemories(options.buffer, options.config.name);
    const { config } = options;
    this.#decoder = new PublishDecoder({
      discoveryPrefix: config.discoveryPrefix,
      onMissing: (topic, count) =>
        this.#assembly.meters.fault(`${count} messages are missing before one on ${topic}`),
    });
    this.#discovery = new DiscoveryMemory(this.#decoder.catalog, options.buffer, config.name);
    this.#assembly = new Assembly(options, (life) => this.#live(life));
  }

  get name(): string {
    return this.#options.config.name;
  }

  /** The port it listens on; 0 before `start`. */
  get port(): number {
    return (this.#server?.address() as AddressInfo | null)?.port ?? 0;
  }

  /** A port that cannot be had is tried again, for ever. */
  async start(): Promise<void> {
    await this.#memories.start();
    await this.#discovery.load();
    await this.#assembly.start();
  }

  async #live(life: Life): Promise<void> {
    const { host, port } = this.#config;
    const broker = await this.#makeBroker();
    this.#broker = broker;
    const server = createServer((socket) => {
      this.#places.admit(socket);
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      limitPackets(socket, MAX_PACKET_BYTES, () => this.#assembly.meters.fault("a packet above the limit"));
      broker.handle(socket);
    });
    this.#server = server;
    const ended = new Promise<void>((resolve, reject) => {
      life.signal.addEventListener("abort", () => resolve(), { once: true });
      if (life.signal.aborted) resolve();
      server.once("close", resolve);
      server.on("error", reject);
    });
    // Awaited below; a port that is busy is told by listenOn.
    ended.catch(() => {});
    try {
      await listenOn(server, host, port);
      life.running();
      this.#options.log.info({ host, port: this.port }, "local broker listens");
      await ended;
    } finally {
      await this.#stopListening(broker, server);
    }
  }

  async #stopListening(broker: Aedes, server: Server): Promise<void> {
    server.close();
    // What waits for a full buffer has no PUBACK and comes again.
    await Promise.race([Promise.allSettled([...this.#pending]), pause(CLOSE_WAIT_MS)]);
    await new Promise<void>((resolve) => broker.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
  }

  async #makeBroker(): Promise<Aedes> {
    const broker = await Aedes.createBroker({
      concurrency: 1_000,
      queueLimit: 1_000,
      drainTimeout: UNREAD_MS,
      connectTimeout: CONNECT_MS,
    });
    broker.preConnect = (client, packet, done) => {
      const clientId = packet.clientId ?? "";
      if (clientId === "") this.#anonymous.add(client);
      if (packet.clean === false) this.#keepsSession.add(client);
      packet.clean = true;
      const full = broker.connectedClients >= MAX_CLIENTS;
      if (full || clientId.length > MAX_CLIENT_ID_CHARACTERS || this.#closing) {
        this.#assembly.meters.fault(
          full ? `more than ${MAX_CLIENTS} clients` : "a client id that is too long",
        );
        done(new Error("refused"), false);
      } else done(null, true);
    };
    broker.authenticate = (client, username, password, done) => {
      this.#authenticate(client, username, password).then(
        (allowed) => done(null, allowed),
        () => done(null, false),
      );
    };
    broker.authorizePublish = (client, packet, done) => this.#publish(client, packet, done);
    broker.authorizeForward = (client, packet) => {
      if ((client.conn as Socket).writableLength <= MAX_UNREAD_BYTES) return packet;
      this.#assembly.meters.fault(UNREAD);
      client.close();
      return null;
    };
    broker.on("clientDisconnect", (client) => this.#disconnected(client));
    broker.on("clientError", (_client, error) => {
      if (error.message === "drain timeout") this.#assembly.meters.fault(UNREAD);
      this.#options.log.debug({ error: error.message }, "client");
    });
    broker.on("connectionError", (_c, error) => {
      if (error.message === NO_CONNECT)
        this.#assembly.meters.fault("a connection that does not say who it is");
      this.#options.log.debug({ error: error.message }, "connection");
    });
    // Its types do not know this event; unheard, it would end the process.
    (broker as EventEmitter).on("error", (error: unknown) =>
      this.#assembly.meters.fault(describeError(error)),
    );
    return broker;
  }

  async #authenticate(client: Client, username?: string, password?: Uint8Array): Promise<boolean> {
    const { users } = this.#options.config;
    if (users.length > 0 && !isUser(users, username ?? "", password ?? new Uint8Array())) {
      this.#assembly.meters.fault("wrong user name or password");
      return false;
    }
    this.#places.keep(client.conn as Socket);
    const memory = await this.#memories.open(client.id);
    this.#connections.set(client, { memory, leading: undefined, acknowledged: undefined, refused: false });
    return true;
  }

  #disconnected(client: Client): void {
    // Only a DISCONNECT packet says that the client means to go; a broken connection does not.
    const { _disconnected: clean } = client as unknown as { _disconnected: boolean };
    // Where another connection has taken over, the memory is that one's.
    if (!clean || this.#keepsSession.has(client)) return;
    if (this.#broker !== undefined && client.id in (this.#broker as unknown as { clients: object }).clients)
      return;
    this.#memories.forget(client.id).catch(() => {
      // The buffer failed, which its appends already say.
    });
  }

  /** `done` sends PUBACK; it is never called with an error. */
  #publish(client: Client | null, packet: PublishPacket, done: (error?: Error | null) => void): void {
    // Nothing is retained: a broker for ingest would hold one payload a topic in memory for ever.
    packet.retain = false;
    const { topic } = packet;
    const stored = this.#config.topics.some((filter) => topicMatches(filter, topic));
    if (!stored || topic.startsWith("$")) {
      this.#assembly.meters.ignored();
      // aedes trusts what is published below $SYS.
      if (topic.startsWith("$")) packet.topic = "ignored";
      done(null);
      return;
    }
    const outcome = this.#store(client, packet, topic);
    if (outcome === undefined) return;
    // [MQTT-4.6.0-2] PUBACKs go out in the order of the publishes, also of those that are left out.
    const connection = client === null ? undefined : this.#connections.get(client);
    const before = connection?.acknowledged;
    const acknowledged = outcome
      .then(() => before)
      .then(
        () => done(null),
        (error: unknown) => this.#notStored(client, packet, error, done),
      );
    if (connection !== undefined) connection.acknowledged = acknowledged;
  }

  get #config(): MqttSourceConfig {
    return this.#options.config;
  }

  /** @returns undefined when its connection stores nothing more */
  #store(client: Client | null, packet: PublishPacket, topic: string): Promise<void> | undefined {
    const connection = client === null ? undefined : this.#connections.get(client);
    const { messageId, qos } = packet as { messageId?: number; qos: number };
    const payload = typeof packet.payload === "string" ? Buffer.from(packet.payload) : packet.payload;
    const arrivalUs = this.#options.clock.nowUs();
    // A will, and QoS 0, come once at most by their nature.
    if (client === null || connection === undefined || qos === 0 || messageId === undefined) {
      return this.#append(this.#arrived(topic, payload, arrivalUs));
    }
    if (connection.refused || this.#closing) return undefined;
    const key = publishKey(messageId, topic, payload);
    connection.leading ??= connection.memory.leading();
    const before =
      connection.leading.match(key, packet.dup) ??
      (packet.dup ? connection.memory.sentBefore(key, connection.leading) : undefined);
    if (before !== undefined) {
      this.#assembly.meters.repeated();
      return before;
    }
    const arrived = this.#arrived(topic, payload, arrivalUs);
    // Asked before anything is shaped: what is refused comes again, and must not be known by then.
    const unshaped = this.#assembly.intake.unshaped(arrived);
    if (this.#options.buffer.refuses(this.#assembly.intake.bounded(unshaped))) {
      connection.refused = true;
      this.#assembly.meters.fault("the buffer is full");
      void pause(REFUSED_CLOSE_MS).then(() => client.close());
      return undefined;
    }
    if (this.#anonymous.has(client)) {
      const stored = this.#append(arrived);
      connection.memory.add(key, stored, connection.leading);
      return stored;
    }
    const mark = { source: this.#memories.markName(client.id), value: connection.memory.encodeWith(key) };
    const evicted = this.#memories.touch(client.id, connection.memory);
    if (evicted.length > 0) this.#options.buffer.setMarks(evicted).catch(() => {});
    const stored = this.#append(arrived, mark, unshaped);
    connection.memory.add(key, stored, connection.leading);
    return stored;
  }

  #arrived(topic: string, payload: Uint8Array, arrivalUs: number): Arrived[] {
    const tooLarge = payload.length > MAX_PAYLOAD_BYTES;
    const { readings, reason } = tooLarge
      ? { reason: `a payload of ${payload.length} bytes; at most ${MAX_PAYLOAD_BYTES} are read` }
      : topic.length > MAX_TOPIC_CHARACTERS
        ? { reason: `a topic of ${topic.length} characters; at most ${MAX_TOPIC_CHARACTERS} are read` }
        : this.#decode(topic, payload, arrivalUs);
    if (reason === undefined) {
      this.#discovery.keep(topic);
      if (readings.length === 0) this.#assembly.meters.ignored();
      return readings.map((reading) => ({ reading, arrivalUs }));
    }
    if (!tooLarge) return [{ reading: this.#assembly.intake.raw(topic, reason, payload), arrivalUs }];
    this.#assembly.meters.rejected(reason);
    const fields = {
      reason,
      bytes: payload.length,
      sha256: createHash("sha256").update(payload).digest("hex"),
    };
    return [{ reading: { sensor: topic, timeUs: undefined, fields }, arrivalUs }];
  }

  /** A mistake in a decoder must not end the agent, nor make the client send the same for ever. */
  #decode(topic: string, payload: Uint8Array, arrivalUs: number): Decoded {
    try {
      return this.#decoder.decode(topic, payload, arrivalUs);
    } catch (error) {
      return { reason: `the decoder failed: ${describeError(error).slice(0, 120)}` };
    }
  }

  /**
   * @param mark stored with the last of the records; with none there is nothing to be known by it
   * @param unshaped as made before, where that was needed
   */
  #append(arrived: readonly Arrived[], mark?: Mark, unshaped?: readonly BufferRecord[]): Promise<void> {
    const { buffer, clock } = this.#options;
    const { intake, meters, shaped } = this.#assembly;
    const made = (shaped ? undefined : unshaped) ?? intake.records(arrived);
    const append = async (all: readonly BufferRecord[]): Promise<void> => {
      if (all.length === 0) return;
      const records = intake.bounded(all);
      if (records !== all) meters.rejected("a reading that is too large for a record");
      const marked = mark === undefined ? records : [...records.slice(0, -1), { ...records.at(-1)!, mark }];
      await buffer.append(marked);
      meters.stored(marked.length);
    };
    // At once where nothing has to be waited for: the order of calls is the order of storing.
    const stored = made instanceof Promise ? made.then(append) : append(made);
    this.#pendingSinceMs ??= clock.monotonicMs();
    this.#pending.add(stored);
    const settled = (): void => {
      this.#pending.delete(stored);
      this.#pendingSinceMs = this.#pending.size === 0 ? undefined : clock.monotonicMs();
    };
    stored.then(settled, () => {
      settled();
      intake.notStored();
    });
    return stored;
  }

  /** PUBACK stays away, so that the client sends it again. */
  #notStored(client: Client | null, packet: PublishPacket, error: unknown, done: () => void): void {
    this.#assembly.meters.fault(describeError(error));
    if (client === null || packet.qos === 0) {
      done();
      return;
    }
    const connection = this.#connections.get(client);
    if (connection !== undefined) connection.refused = true;
    void pause(REFUSED_CLOSE_MS).then(() => client.close());
  }

  status(): SourceReport {
    const since = this.#pendingSinceMs;
    const held = since !== undefined && this.#options.clock.monotonicMs() - since > 2_000;
    const report = this.#assembly.report();
    return held && report.state === "running" ? { ...report, state: "stalled" } : report;
  }

  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    await this.#assembly.close();
  }
}
