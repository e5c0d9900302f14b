/**
 * Builds the gateway's rooms and joins them. The only place that constructs adapters.
 *
 *   ingest → streams → delivery | analytics        ingest → video        api, console
 */
import { readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { GatewayConfig } from "../config/gateway-config.ts";
import type { Clock } from "../runtime/clock.ts";
import { foreignFolder, makeDataFolder } from "../runtime/data-folder.ts";
import { maxDescriptors } from "../runtime/descriptors.ts";
import { probeDisk } from "../runtime/disk-probe.ts";
import { DiskReserve } from "../runtime/disk-reserve.ts";
import type { Log } from "../runtime/log.ts";
import { Metrics } from "../runtime/metrics.ts";
import { accessKeysOf } from "./access-keys.ts";
import { openAnalytics, streamsOfStatement } from "./analytics/open-analytics.ts";
import { Api } from "./api/api.ts";
import { missingStreams, prepareStreams } from "./configured-streams.ts";
import { lockDataFolder } from "./data-lock.ts";
import { openDelivery } from "./delivery/open-delivery.ts";
import { announcedPlaces, type DoorPlaces, doorPlaces, tooFewFiles } from "./door-places.ts";
import { DeviceDirectory } from "./ingest/device-directory.ts";
import { MqttIngest } from "./ingest/mqtt-ingest.ts";
import { Quarantine } from "./ingest/quarantine.ts";
import { RtspIngest } from "./ingest/rtsp-ingest.ts";
import { TopicRules } from "./ingest/topic-rules.ts";
import { openIdentity, openSecureDoors, type SecurePorts } from "./secure-doors.ts";
import { OnDemand } from "./streams/on-demand.ts";
import { openLocalStreams } from "./streams/stores/local/local.ts";
import type { Streams } from "./streams/streams.ts";
import { Previews } from "./video/preview.ts";
import { openVideo } from "./video/video-archive.ts";

export interface GatewayParts {
  /** Relative paths of the config are taken from here. */
  readonly configDir: string;
  readonly clock: Clock;
  readonly log: Log;
  /** Its own when left out. */
  readonly metrics?: Metrics;
}

type StoreParts = Required<GatewayParts>;
/** Hands a part back, and has it closed with the gateway. */
type Keep = <T extends { close(): Promise<void> }>(part: T) => T;

export interface Gateway {
  readonly addresses: {
    readonly http: string;
    readonly mqtt: string;
    readonly rtsp: string;
    /** Only where `tls` is configured. */
    readonly https?: string;
    readonly mqtts?: string;
    readonly rtsps?: string;
  };
  /** A link that signs in once, to the console. */
  signInUrl(): string;
  /** One synced write in the data folder: rejects or hangs when its disk does. */
  probe(): Promise<void>;
  close(): Promise<void>;
}

/** Resolves when every door is open. What was started is closed again when a later part fails. */
export async function startGateway(config: GatewayConfig, parts: GatewayParts): Promise<Gateway> {
  const { log } = parts;
  const dataDir = resolve(parts.configDir, config.dataDir);
  const metrics = parts.metrics ?? new Metrics();
  /** Closed from the last to the first: doors, then stages, then what they stand on. */
  const open: Array<{ close(): Promise<void> }> = [];
  const keep: Keep = (part) => {
    open.push(part);
    return part;
  };
  const closeAll = async (): Promise<void> => {
    for (let part = open.pop(); part !== undefined; part = open.pop()) await part.close();
  };
  const maxFiles = maxDescriptors();
  let streams = 0;
  try {
    await makeDataFolder(dataDir);
    streams = await streamsIn(dataDir);
    doorPlaces(maxFiles, streams);
    const lock = await lockDataFolder(dataDir);
    if (lock !== undefined) keep(lock);
    const reserve = new DiskReserve(dataDir, log);
    const stores = await reserve.during(async () => {
      // On a full disk there is room for it only now.
      const late = lock === undefined ? await lockDataFolder(dataDir) : undefined;
      if (late !== undefined) keep(late);
      return openStores(config, { ...parts, metrics }, dataDir, keep);
    });
    streams = stores.streams.listStreams().length;
    // Those of a cluster are not files here.
    const places = announcedPlaces(maxFiles, config.store === "local" ? streams : 0, log);
    const { api, addresses } = await openDoors(config, { ...parts, metrics }, dataDir, stores, places, keep);
    let closing: Promise<void> | undefined;
    return {
      addresses,
      probe: () => probeDisk(dataDir),
      signInUrl: () => `${addresses.http}/open?token=${api.signInToken()}`,
      close: () => {
        stores.streams.hurry?.();
        closing ??= closeAll();
        return closing;
      },
    };
  } catch (error) {
    await closeAll();
    throw foreignFolder(error, dataDir) ?? tooFewFiles(error, maxFiles, streams) ?? error;
  }
}

/** That are there on the disk already. */
async function streamsIn(dataDir: string): Promise<number> {
  return (await readdir(join(dataDir, "streams", "logs")).catch(() => [])).length;
}

/** RFC 3986 §3.2.2: an IPv6 address stands in brackets. */
function addressOf(scheme: string, host: string, port: number): string {
  return `${scheme}://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/** All that keeps something on disk, read back and at work; the doors to it are opened afterwards. */
async function openStores(
  config: GatewayConfig,
  { configDir, clock, log, metrics }: StoreParts,
  dataDir: string,
  keep: Keep,
) {
  const accessKeys = await accessKeysOf(config.accessKeys, dataDir, log);
  const streamsLog = log.child({ room: "streams" });
  const streams = keep(await openStreams(config, dataDir, { configDir, clock, log: streamsLog, metrics }));
  await prepareStreams(streams, config.streams, streamsLog);
  const missing = missingStreams(config, config.analytics.map(streamsOfStatement), streams.listStreams());
  if (missing.length > 0) streamsLog.warn({ missing }, "the config names streams that are not there");
  keep(new OnDemand({ streams, clock, log: streamsLog, metrics })).start();
  const video = keep(
    await openVideo({
      dir: join(dataDir, "video"),
      clock,
      log: log.child({ room: "video" }),
      metrics,
      retentionHours: config.video.retentionHours,
      maxBytes: config.video.maxBytes,
    }),
  );
  await video.start();
  const delivery = keep(
    await openDelivery({
      dir: join(dataDir, "delivery"),
      streams,
      deliveries: config.delivery.map((entry) => ({
        ...entry,
        destination: { ...entry.destination, path: resolve(configDir, entry.destination.path) },
      })),
      clock,
      log: log.child({ room: "delivery" }),
      metrics,
    }),
  );
  await delivery.start();
  const analytics = keep(
    await openAnalytics({
      dir: join(dataDir, "analytics"),
      streams,
      statements: config.analytics,
      clock,
      log: log.child({ room: "analytics" }),
      metrics,
    }),
  );
  await analytics.start();
  const quarantine = keep(
    new Quarantine(join(dataDir, "quarantine"), log.child({ room: "ingest" }), metrics),
  );
  await quarantine.start();
  const identityParts = { dataDir, configDir, clock, log: log.child({ room: "identity" }), metrics };
  const identity = config.tls && keep(await openIdentity(config.tls, identityParts));
  return { accessKeys, streams, video, delivery, analytics, quarantine, identity };
}

/** Api and ingest, on their ports. */
async function openDoors(
  config: GatewayConfig,
  { clock, log, metrics }: StoreParts,
  dataDir: string,
  stores: Awaited<ReturnType<typeof openStores>>,
  places: DoorPlaces,
  keep: Keep,
) {
  const { accessKeys, streams, video, delivery, analytics, quarantine, identity } = stores;
  const ingestLog = log.child({ room: "ingest" });
  const rtsp = keep(
    new RtspIngest({
      ...config.rtsp,
      maxConnections: places.rtsp,
      video,
      devices: config.devices,
      clock,
      log: ingestLog,
      metrics,
    }),
  );
  await rtsp.start();
  const previews = keep(
    new Previews({ urlOf: (camera) => rtsp.readerUrl(camera), log: log.child({ room: "video" }) }),
  );
  const directory = new DeviceDirectory(config.devices, clock);
  const rules = new TopicRules(config.rules);
  const mqttParts = {
    maxConnections: places.mqtt,
    streams,
    directory,
    quarantine,
    rules,
    clock,
    log: ingestLog,
    metrics,
  };
  const mqtt = keep(new MqttIngest({ ...config.mqtt, ...mqttParts }));
  const securePorts: SecurePorts = { https: 0, mqtts: 0, rtsps: 0 };
  const api = keep(
    new Api({
      ...config.http,
      maxConnections: places.http,
      clock,
      log: log.child({ room: "api" }),
      metrics,
      accessKeys,
      streams,
      ingest: mqtt,
      delivery,
      analytics,
      video,
      previews,
      joining: identity && { identity, ports: () => securePorts },
      consoleDir: fileURLToPath(new URL("./console/", import.meta.url)),
    }),
  );
  await api.start();
  await mqtt.start();
  if (config.tls !== undefined && identity !== undefined) {
    const { handshakes: maxHandshakes } = places;
    const doors = { dataDir, identity, api, mqtt, rtsp, cameras: video, maxHandshakes };
    keep(await openSecureDoors(config.tls, securePorts, { ...doors, log: log.child({ room: "identity" }) }));
  }
  const http = addressOf("http", config.http.host, api.address.port);
  return {
    api,
    addresses: {
      http,
      mqtt: addressOf("mqtt", config.mqtt.host, mqtt.port),
      rtsp: addressOf("rtsp", config.rtsp.host, rtsp.port),
      ...(config.tls !== undefined && {
        https: addressOf("https", config.tls.host, securePorts.https),
        mqtts: addressOf("mqtts", config.tls.host, securePorts.mqtts),
        rtsps: addressOf("rtsps", config.tls.host, securePorts.rtsps),
      }),
    },
  };
}

/** The store that the config chooses. Code of NATS is loaded only when it is chosen. */
async function openStreams(config: GatewayConfig, dataDir: string, parts: StoreParts): Promise<Streams> {
  if (config.store === "local") {
    const { clock, log, metrics } = parts;
    return openLocalStreams({ dir: join(dataDir, "streams"), clock, log, metrics });
  }
  const { openJetStreamStreams } = await import("./streams/stores/jetstream/jetstream.ts");
  const { servers, replicas, credentialsFile } = config.store.jetstream;
  return openJetStreamStreams({
    servers,
    replicas,
    ...(credentialsFile !== undefined && { credentialsFile: resolve(parts.configDir, credentialsFile) }),
    clock: parts.clock,
    log: parts.log,
    metrics: parts.metrics,
  });
}
