/**
 * The RTSP door: cameras and agents publish at `/<device>/<camera>` or `/<camera>`, and whoever may read
 * gets the live packets at the same path.
 *
 *   publisher ─RTP→ feed of gateway/video (stored, then listed in GET_PARAMETER `persisted`)
 *                 └→ relay → readers
 *
 * With devices configured everybody authenticates by Digest with a device's name and password, a path that
 * names a device is that device's alone, and so is what it publishes, under either path. Without, the door is
 * open; the config allows that on loopback only.
 */
import { randomBytes } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { formatPersisted, PERSISTED_PARAMETER } from "../../protocol/footage.ts";
import { Relay } from "../../protocol/rtsp/relay.ts";
import {
  type Playback,
  type Publication,
  type PublisherSession,
  type ReaderSession,
  RtspError,
  RtspServer,
} from "../../protocol/rtsp/server.ts";
import { DEVICE_NAME } from "../../protocol/topics.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError, HeadwaterError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import { SparingLog } from "../../runtime/sparing-log.ts";
import { type CameraFeed, CameraTakenError, TooManyOfDeviceError, type Video } from "../video/video.ts";
import { Brake, type MemoryAccount, PublishersMemory, publishersMemoryBytes } from "./rtsp-memory.ts";

/** A publisher that is so far ahead of the disk is read no further until the disk has caught up. */
const MAX_WAITING_BYTES = 16 * 1_048_576;
/** What a publisher costs beside its packets: its connection, and its description some times over. */
const PUBLISHER_COST_BYTES = 65_536;
const SDP_COPIES = 8;
/** The gateway's own readers, for the preview. No device can have such a name, as it holds a space. */
const OWN_READER = "headwater gateway ";
/** A login of theirs that nobody used for so long is void. */
const OWN_LOGIN_MS = 30_000;
const MAX_OWN_LOGINS = 64;

export interface RtspIngestOptions {
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  readonly video: Video;
  /** None: everybody may publish and read. */
  readonly devices: readonly { readonly id: string; readonly password: string }[];
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** For all publishers together; by the machine's memory unless told. */
  readonly maxMemoryBytes?: number;
  /** 1,024 unless given. */
  readonly maxConnections?: number;
  /** How long publishers are held up for one that is stuck; 10 s unless told. */
  readonly patienceMs?: number;
}

interface Publisher {
  /** Whose paths lead to it beside `/<camera>`. */
  readonly device: string | undefined;
  readonly session: PublisherSession;
  readonly relay: Relay;
}

/** What a path means. */
interface Place {
  /** Undefined for `/<camera>`. */
  readonly device: string | undefined;
  readonly camera: string;
}

export class RtspIngest {
  readonly #options: RtspIngestOptions;
  readonly #log: Log;
  readonly #refusals: SparingLog;
  readonly #passwords: ReadonlyMap<string, string>;
  /** By user; each is good for one DESCRIBE. */
  readonly #ownLogins = new Map<string, { readonly password: string; readonly untilMs: number }>();
  readonly #server: RtspServer;
  /** Of each camera the publishers that are connected, the newest last: that one is read. */
  readonly #publishers = new Map<string, Publisher[]>();
  readonly #closingFeeds = new Set<Promise<void>>();
  readonly #publications;
  readonly #memory: PublishersMemory;

  constructor(options: RtspIngestOptions) {
    this.#options = options;
    this.#log = options.log.child({ part: "rtsp" });
    this.#refusals = new SparingLog(this.#log);
    this.#passwords = new Map(options.devices.map(({ id, password }) => [id, password]));
    const ended = options.metrics.counter(
      "headwater_rtsp_connections_ended_total",
      "Connections of the RTSP port that were ended because there were too many, by whose",
      ["whose"],
    );
    this.#server = new RtspServer({
      host: options.host,
      port: options.port,
      log: this.#log,
      clock: options.clock,
      onFull: (whose) => ended.inc({ whose }),
      ...(options.maxConnections !== undefined && {
        maxConnections: options.maxConnections,
        maxStrangers: Math.min(256, options.maxConnections),
      }),
      handler: {
        publish: (path, sdp, session) => this.#publish(path, sdp, session),
        describe: (path, user) => this.#publisherAt(path, user)?.relay.sdp,
        play: (path, session) => this.#play(path, session),
      },
      ...(this.#passwords.size > 0 && {
        authenticate: (user, path, method) => this.#passwordOf(user, path, method),
      }),
    });
    this.#publications = options.metrics.counter(
      "headwater_rtsp_publications_total",
      "Publishers that announced, by answer: accepted, refused, too_many_of_device",
      ["result"],
    );
    this.#memory = this.#openMemory(options);
    const publishers = this.#publishers;
    options.metrics.gauge("headwater_rtsp_publishers", "Publishers connected", [], function collect() {
      this.set([...publishers.values()].reduce((sum, list) => sum + list.length, 0));
    });
    options.metrics.gauge("headwater_rtsp_readers", "Readers connected", [], function collect() {
      this.set([...publishers.values()].flat().reduce((sum, { relay }) => sum + relay.readers, 0));
    });
  }

  #openMemory({ metrics, clock, maxMemoryBytes, patienceMs }: RtspIngestOptions): PublishersMemory {
    const pauses = metrics.counter(
      "headwater_rtsp_memory_pauses_total",
      "Devices of which nothing was read for a while, as they held too large a part of the publishers' memory",
    );
    const ended = metrics.counter(
      "headwater_rtsp_memory_ended_total",
      "Publishers disconnected because others waited for the memory that they held",
    );
    const maxBytes = maxMemoryBytes ?? publishersMemoryBytes();
    const memory = new PublishersMemory({
      maxBytes,
      patienceMs,
      onPause: (owner) => {
        pauses.inc();
        const heldBytes = memory.heldBytes;
        this.#refusals.warn(clock.nowUs(), { of: owner, heldBytes, maxBytes }, "publishers wait for memory");
      },
      onEnd: (owner, openBytes) => {
        ended.inc();
        this.#refusals.warn(clock.nowUs(), { of: owner, openBytes }, "publisher disconnected: others wait");
      },
    });
    metrics.gauge(
      "headwater_rtsp_memory_bytes",
      "Held for publishers: units under way, units that wait for the disk, and what joiners are sent",
      [],
      function collect() {
        this.set(memory.heldBytes);
      },
    );
    return memory;
  }

  /** @throws PortBusyError, PortUnusableError */
  start(): Promise<void> {
    return this.#server.start();
  }

  /**
   * A connection that came by TLS. @param device what its certificate proves: it publishes and reads at
   * its own paths. Without one a configured device's password is needed, also where the plain port is open.
   */
  adopt(socket: TLSSocket, device: string | undefined): void {
    const mayUse = (path: string): boolean => placeOf(path)?.device === device;
    this.#server.adopt(socket, {
      authenticate: (user, path, method) => this.#passwordOf(user, path, method),
      proven: device === undefined ? undefined : { user: device, mayUse },
    });
  }

  /** Ends all sessions; resolves when what they sent is archived. Safe to call twice. */
  async close(): Promise<void> {
    await this.#server.close();
    await Promise.all(this.#closingFeeds);
    this.#memory.close();
  }

  /** Where it listens, after start. */
  get port(): number {
    return this.#server.port;
  }

  /**
   * For one connection of the gateway's own reader, to be made at once. That reader is a program whose arguments
   * every user of this machine can list, so the login in it is worth nothing once it was used.
   */
  readerUrl(camera: string): string {
    const { host, port } = this.#server.address;
    const name = host.includes(":") ? `[${host}]` : host;
    return `rtsp://${this.#passwords.size === 0 ? "" : this.#ownLogin()}${name}:${port}/${camera}`;
  }

  #ownLogin(): string {
    const user = `${OWN_READER}${randomBytes(8).toString("hex")}`;
    const password = randomBytes(18).toString("hex");
    const [oldest] = this.#ownLogins.keys();
    if (oldest !== undefined && this.#ownLogins.size >= MAX_OWN_LOGINS) this.#ownLogins.delete(oldest);
    this.#ownLogins.set(user, { password, untilMs: this.#options.clock.monotonicMs() + OWN_LOGIN_MS });
    return `${encodeURIComponent(user)}:${password}@`;
  }

  #useOwnLogin(user: string, method: string): string | undefined {
    const login = this.#ownLogins.get(user);
    if (login === undefined || method !== "DESCRIBE") return undefined;
    this.#ownLogins.delete(user);
    return login.untilMs > this.#options.clock.monotonicMs() ? login.password : undefined;
  }

  #passwordOf(user: string, path: string, method: string): string | undefined {
    if (user.startsWith(OWN_READER)) return this.#useOwnLogin(user, method);
    const place = placeOf(path);
    if (place === undefined || (place.device !== undefined && place.device !== user)) return undefined;
    return this.#passwords.get(user);
  }

  #publish(path: string, sdp: string, session: PublisherSession): Publication {
    try {
      const publication = this.#accept(path, sdp, session);
      this.#publications.inc({ result: "accepted" });
      return publication;
    } catch (error) {
      const isGreedy = error instanceof TooManyOfDeviceError;
      this.#publications.inc({ result: isGreedy ? "too_many_of_device" : "refused" });
      const fields = { path, from: session.remoteAddress, reason: describeError(error) };
      this.#refusals.warn(this.#options.clock.nowUs(), fields, "camera refused");
      throw asRtspError(error);
    }
  }

  #accept(path: string, sdp: string, session: PublisherSession): Publication {
    const place = placeOf(path);
    if (place === undefined) throw new RtspError(404, "Not Found");
    const { camera } = place;
    const device = session.user ?? place.device;
    const others = this.#publishers.get(camera) ?? [];
    // A device may come again before its old connection is known to be dead; another may not take its camera over.
    if (others.some((other) => other.device !== device)) throw new CameraTakenError(camera, "another device");
    const owner = device ?? `camera ${camera}`;
    if (!this.#memory.mayOpen(owner)) throw new RtspError(503, "Service Unavailable");
    const relay = new Relay({ sdp });
    const brake = new Brake(session);
    const account = this.#memory.open(owner, {
      pause: () => brake.hold("memory"),
      resume: () => brake.release("memory"),
      end: () => session.close("others wait for the memory that it holds"),
    });
    const costBytes = PUBLISHER_COST_BYTES + SDP_COPIES * sdp.length;
    const holds = (openBytes: number, waitingBytes: number): void =>
      account.set(costBytes + relay.heldBytes + openBytes, waitingBytes);
    holds(0, 0);
    let feed: CameraFeed;
    try {
      feed = this.#options.video.openFeed(camera, sdp, device, {
        holds,
        get isScarce() {
          return account.isScarce;
        },
      });
    } catch (error) {
      account.close();
      throw error;
    }
    if (feed.waitingBytes() > MAX_WAITING_BYTES) {
      // Whoever comes again while the disk stands still would leave a little more behind each time.
      this.#closeFeed(camera, feed, account);
      throw new RtspError(503, "Service Unavailable");
    }
    const publisher: Publisher = { device, session, relay };
    this.#publishers.set(camera, [...others, publisher]);
    this.#log.info({ camera, path, from: session.remoteAddress }, "camera publishes");
    return {
      record: (clockUs) => {
        if (clockUs !== undefined) feed.startsAt(clockUs);
      },
      packet: (track, rtp) => {
        // The relay first, as the feed then tells what both hold.
        relay.packet(track, rtp);
        feed.packet(track, rtp);
        slowDown(feed, brake);
      },
      rtcp: (track, bytes) => {
        relay.rtcp(track, bytes);
        feed.rtcp(track, bytes);
        slowDown(feed, brake);
      },
      getParameter: (name) => (name === PERSISTED_PARAMETER ? formatPersisted(feed.persisted()) : undefined),
      close: (reason) => {
        relay.close("the publisher left");
        this.#leave(camera, publisher);
        this.#log.info({ camera, reason }, "camera left");
        this.#closeFeed(camera, feed, account);
      },
    };
  }

  #leave(camera: string, publisher: Publisher): void {
    const left = (this.#publishers.get(camera) ?? []).filter((other) => other !== publisher);
    if (left.length > 0) this.#publishers.set(camera, left);
    else this.#publishers.delete(camera);
  }

  #closeFeed(camera: string, feed: CameraFeed, account: MemoryAccount): void {
    const closing = feed
      .close()
      .catch((error: unknown) => this.#log.error({ camera, error: describeError(error) }, "footage lost"))
      .finally(() => {
        account.close();
        this.#closingFeeds.delete(closing);
      });
    this.#closingFeeds.add(closing);
  }

  /**
   * Names of cameras are no secrets: a device finds no camera of another, neither under its own name nor under none.
   * @param user who asks; undefined where the door is open
   */
  #publisherAt(path: string, user: string | undefined): Publisher | undefined {
    const place = placeOf(path);
    const publisher = place && this.#publishers.get(place.camera)?.at(-1);
    const asked = user === undefined || user.startsWith(OWN_READER) ? place?.device : user;
    return asked === undefined || asked === publisher?.device ? publisher : undefined;
  }

  #play(path: string, session: ReaderSession): Playback {
    const publisher = this.#publisherAt(path, session.user);
    if (publisher === undefined) throw new RtspError(404, "Not Found");
    return publisher.relay.play(session);
  }
}

function slowDown(feed: CameraFeed, brake: Brake): void {
  if (feed.waitingBytes() <= MAX_WAITING_BYTES) return;
  brake.hold("disk");
  void feed.drained().then(() => brake.release("disk"));
}

function placeOf(path: string): Place | undefined {
  const parts = path.split("/");
  if (parts.length > 2 || !parts.every((part) => DEVICE_NAME.test(part))) return undefined;
  return parts.length === 2
    ? { device: parts[0], camera: parts[1]! }
    : { device: undefined, camera: parts[0]! };
}

function asRtspError(error: unknown): unknown {
  if (error instanceof RtspError || !(error instanceof HeadwaterError)) return error;
  if (error instanceof CameraTakenError) return new RtspError(403, "Another Device Publishes This Camera");
  if (error instanceof TooManyOfDeviceError) return new RtspError(403, "Too Many Cameras Of This Device");
  if (error.code === "BAD_NAME") return new RtspError(404, "Not Found");
  if (error.retryable || error.code === "VIDEO_TOO_MANY_CAMERAS")
    return new RtspError(503, "Service Unavailable");
  // What is left is a description that nothing can be stored of.
  return new RtspError(415, "Unsupported Media Type");
}
