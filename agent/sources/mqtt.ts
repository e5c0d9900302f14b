/**
 * The agent's own MQTT broker, to which sensors publish. PUBACK means: on disk.
 *
 * A publish is never refused once its client is let in: a 3.1.1 client would send it again, first,
 * for ever. What no format fits is stored raw, with the reason. While the buffer is full PUBACK is
 * withheld. No sessions are kept: a client that asks for one gets a fresh one (§3.2.2.2 allows it).
 */
import { createHash, timingSafeEqual } from "node:crypto";
import type { EventEmitter } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { Aedes, type Client, type PublishPacket } from "aedes";
import type { MqttSourceConfig } from "../../config/agent-config.ts";
import { limitPackets } from "../../protocol/mqtt-packet-limit.ts";
import type { SourceStatus } from "../../protocol/topics.ts";
import { pause } from "../../runtime/backoff.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import { listenOn } from "../../runtime/listen.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { BufferRecord, RecordBuffer } from "../buffer/record-buffer.ts";
import { ClientMemories } from "./client-memories.ts";
import { decodePublish } from "./decode/publish.ts";
import { type LeadingPublishes, type PublishMemory, publishKey } from "./publish-memory.ts";
import { readingRecord } from "./reading-record.ts";
import type { Source } from "./source.ts";
import { type SourceMeters, sourceMeters } from "./source-meters.ts";
import { topicMatches } from "./topic-filter.ts";

/** A larger payload is no reading; it is acknowledged, counted and reported without its bytes. */
const MAX_PAYLOAD_BYTES = 262_144;
/** A packet above this ends its connection at its header; up to here a payload is at least accounted for. */
const MAX_PACKET_BYTES = 4 * 1_048_576;
const MAX_CLIENTS = 2_000;
const MAX_CLIENT_ID_CHARACTERS = 128;
/** A client whose publish the full buffer refused is disconnected after so long, and sends it again. */
const REFUSED_CLOSE_MS = 1_000;
const CLOSE_WAIT_MS = 2_000;

export interface MqttSourceOptions {
  readonly config: MqttSourceConfig;
  readonly device: string;
  readonly buffer: RecordBuffer;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

interface Connection {
  readonly memory: PublishMemory;
  /** Begins with its first publish: until then the connection that it takes over may store more. */
  leading: LeadingPublishes | undefined;
  /** Once one publish was refused, those behind it must be too: order per client. */
  refused: boolean;
}

export class MqttSource implements Source {
  readonly #options: MqttSourceOptions;
  readonly #memories: ClientMemories;
  readonly #meters: SourceMeters;
  readonly #connections = new WeakMap<Client, Connection>();
  readonly #anonymous = new WeakSet<Client>();
  /** Those that asked for a session that outlives its connection: they send again also after a DISCONNECT. */
  readonly #keepsSession = new WeakSet<Client>();
  readonly #sockets = new Set<Socket>();
  readonly #pending = new Set<Promise<void>>();
  /** When the oldest append began that is still not on disk, by its promise's order. */
  #pendingSinceMs: number | undefined;
  #broker: Aedes | undefined;
  #server: Server | undefined;
  #closing = false;

  constructor(options: MqttSourceOptions) {
    this.#options = options;
    this.#memories = new ClientMemories(options.buffer, options.config.name);
    this.#meters = sourceMeters(options.metrics, options.config.name, "mqtt");
  }

  get name(): string {
    return this.#options.config.name;
  }

  /** The port it listens on; 0 before `start`. */
  get port(): number {
    return (this.#server?.address() as AddressInfo | null)?.port ?? 0;
  }

  /** @throws PortBusyError, PortUnusableError */
  async start(): Promise<void> {
    await this.#memories.start();
    const broker = await Aedes.createBroker({ concurrency: 1_000, queueLimit: 1_000 });
    this.#broker = broker;
    broker.preConnect = (client, packet, done) => {
      const clientId = packet.clientId ?? "";
      if (clientId === "") this.#anonymous.add(client);
      if (packet.clean === false) this.#keepsSession.add(client);
      packet.clean = true;
      const full = broker.connectedClients >= MAX_CLIENTS;
      if (full || clientId.length > MAX_CLIENT_ID_CHARACTERS || this.#closing) {
        this.#meters.fault(full ? `more than ${MAX_CLIENTS} clients` : "a client id that is too long");
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
    broker.on("clientDisconnect", (client) => this.#disconnected(client));
    broker.on("clientError", (_client, error) => this.#options.log.debug({ error: error.message }, "client"));
    broker.on("connectionError", (_c, error) =>
      this.#options.log.debug({ error: error.message }, "connection"),
    );
    // Its types do not know this event; unheard, it would end the process.
    (broker as EventEmitter).on("error", (error: unknown) => this.#meters.fault(describeError(error)));
    const server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      limitPackets(socket, MAX_PACKET_BYTES, () => this.#meters.fault("a packet above the limit"));
      broker.handle(socket);
    });
    this.#server = server;
    const { host, port, name } = this.#options.config;
    await listenOn(server, host, port);
    this.#options.log.info({ source: name, host, port: this.port }, "local broker listens");
  }

  async #authenticate(client: Client, username?: string, password?: Uint8Array): Promise<boolean> {
    const { users } = this.#options.config;
    if (users.length > 0 && !isUser(users, username ?? "", password ?? new Uint8Array())) {
      this.#meters.fault("wrong user name or password");
      return false;
    }
    const memory = await this.#memories.open(client.id);
    this.#connections.set(client, { memory, leading: undefined, refused: false });
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
      this.#meters.ignored();
      // aedes trusts what is published below $SYS.
      if (topic.startsWith("$")) packet.topic = "ignored";
      done(null);
      return;
    }
    const outcome = this.#store(client, packet, topic);
    if (outcome === undefined) return;
    outcome.then(
      () => done(null),
      (error: unknown) => this.#notStored(client, packet, error, done),
    );
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
      return this.#append([this.#record(topic, payload, arrivalUs)]);
    }
    if (connection.refused || this.#closing) return undefined;
    const key = publishKey(messageId, topic, payload);
    connection.leading ??= connection.memory.leading();
    const before = connection.leading.match(key, packet.dup);
    if (before !== undefined) {
      this.#meters.repeated();
      return before;
    }
    const record = this.#record(topic, payload, arrivalUs);
    if (this.#options.buffer.refuses([record])) {
      connection.refused = true;
      this.#meters.fault("the buffer is full");
      void pause(REFUSED_CLOSE_MS).then(() => client.close());
      return undefined;
    }
    if (this.#anonymous.has(client)) return this.#append([record]);
    const mark = { source: this.#memories.markName(client.id), value: connection.memory.encodeWith(key) };
    const evicted = this.#memories.touch(client.id, connection.memory);
    if (evicted.length > 0) this.#options.buffer.setMarks(evicted).catch(() => {});
    const stored = this.#append([{ ...record, mark }]);
    connection.memory.add(key, stored);
    return stored;
  }

  #record(topic: string, payload: Uint8Array, arrivalUs: number): BufferRecord {
    const { device, config } = this.#options;
    const tooLarge = payload.length > MAX_PAYLOAD_BYTES;
    const decoded = tooLarge
      ? { reason: `a payload of ${payload.length} bytes; at most ${MAX_PAYLOAD_BYTES} are read` }
      : decodePublish(topic, payload, arrivalUs);
    if (decoded.reading !== undefined)
      return readingRecord(device, config.stream, decoded.reading, arrivalUs);
    this.#meters.rejected(decoded.reason);
    const fields = {
      reason: decoded.reason,
      ...(tooLarge
        ? { bytes: payload.length, sha256: createHash("sha256").update(payload).digest("hex") }
        : { raw: Buffer.from(payload).toString("base64") }),
    };
    return readingRecord(device, config.stream, { sensor: topic, timeUs: undefined, fields }, arrivalUs);
  }

  #append(records: readonly BufferRecord[]): Promise<void> {
    const stored = this.#options.buffer.append(records).then(() => this.#meters.stored(records.length));
    this.#pendingSinceMs ??= this.#options.clock.monotonicMs();
    this.#pending.add(stored);
    const settled = (): void => {
      this.#pending.delete(stored);
      this.#pendingSinceMs = this.#pending.size === 0 ? undefined : this.#options.clock.monotonicMs();
    };
    stored.then(settled, settled);
    return stored;
  }

  /** PUBACK stays away, so that the client sends it again. */
  #notStored(client: Client | null, packet: PublishPacket, error: unknown, done: () => void): void {
    this.#meters.fault(describeError(error));
    if (client === null || packet.qos === 0) {
      done();
      return;
    }
    const connection = this.#connections.get(client);
    if (connection !== undefined) connection.refused = true;
    void pause(REFUSED_CLOSE_MS).then(() => client.close());
  }

  status(): SourceStatus {
    const since = this.#pendingSinceMs;
    const held = since !== undefined && this.#options.clock.monotonicMs() - since > 2_000;
    const listening = this.#server?.listening === true;
    return {
      name: this.name,
      type: "mqtt",
      state: !listening ? "stopped" : held ? "stalled" : "running",
      ...this.#meters.status(),
    };
  }

  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    this.#server?.close();
    // What waits for a full buffer has no PUBACK and comes again.
    await Promise.race([Promise.allSettled([...this.#pending]), pause(CLOSE_WAIT_MS)]);
    await new Promise<void>((resolve) =>
      this.#broker === undefined ? resolve() : this.#broker.close(resolve),
    );
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** Takes as long for a wrong name as for a wrong password. */
function isUser(
  users: readonly { username: string; password: string }[],
  username: string,
  password: Uint8Array,
): boolean {
  const digest = (value: string | Uint8Array): Buffer => createHash("sha256").update(value).digest();
  const given = [digest(username), digest(password)] as const;
  let found = false;
  for (const user of users) {
    const sameName = timingSafeEqual(digest(user.username), given[0]);
    const samePassword = timingSafeEqual(digest(user.password), given[1]);
    if (sameName && samePassword) found = true;
  }
  return found;
}
