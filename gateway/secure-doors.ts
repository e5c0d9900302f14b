/**
 * Joins what `tls` in the config asks for: the identity, the TLS ports of the three doors, and the socket
 * by which the commands reach it. The plain ports stay as they are.
 */
import { join, resolve } from "node:path";
import type { GatewayConfig } from "../config/gateway-config.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Log } from "../runtime/log.ts";
import type { Metrics } from "../runtime/metrics.ts";
import type { Api } from "./api/api.ts";
import { ControlSocket } from "./api/control-socket.ts";
import type { Identity } from "./identity/identity.ts";
import type { MqttIngest } from "./ingest/mqtt-ingest.ts";
import type { RtspIngest } from "./ingest/rtsp-ingest.ts";
import type { CameraOwners } from "./video/video.ts";

export type TlsConfig = NonNullable<GatewayConfig["tls"]>;

export interface IdentityParts {
  readonly dataDir: string;
  /** Relative paths of the config are taken from here. */
  readonly configDir: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

/** Its code, and that of certificates, is loaded only here. Started. */
export async function openIdentity(config: TlsConfig, parts: IdentityParts): Promise<Identity> {
  const { Identity } = await import("./identity/identity.ts");
  const { dataDir, configDir, clock, log, metrics } = parts;
  const { certFile, keyFile, names, deviceDays, lookSeconds } = config;
  const given =
    certFile === undefined || keyFile === undefined
      ? undefined
      : { certFile: resolve(configDir, certFile), keyFile: resolve(configDir, keyFile) };
  const dir = join(dataDir, "identity");
  const lookMs = lookSeconds * 1_000;
  const identity = new Identity({ dir, names, given, deviceDays, lookMs, clock, log, metrics });
  await identity.start();
  return identity;
}

export interface DoorParts {
  readonly dataDir: string;
  readonly identity: Identity;
  readonly api: Api;
  readonly mqtt: MqttIngest;
  readonly rtsp: RtspIngest;
  readonly cameras: CameraOwners;
  /** That are under way at a port. */
  readonly maxHandshakes: number;
  readonly log: Log;
}

/** Which ports the doors got. */
export interface SecurePorts {
  https: number;
  mqtts: number;
  rtsps: number;
}

/**
 * Opens the TLS ports, and then the control socket. What `close` leaves are connections; each door closes
 * its own.
 */
export async function openSecureDoors(
  { host, https, mqtts, rtsps }: TlsConfig,
  ports: SecurePorts,
  { dataDir, identity, api, mqtt, rtsp, cameras, maxHandshakes, log }: DoorParts,
): Promise<{ close(): Promise<void> }> {
  const control = new ControlSocket({ dataDir, identity, ingest: mqtt, cameras, log });
  const close = async (): Promise<void> => {
    await identity.close();
    await control.close();
  };
  try {
    const listen = async (port: number, door: Omit<Parameters<Identity["listen"]>[0], "host" | "port">) =>
      (await identity.listen({ host, port, maxHandshakes, ...door })).port;
    ports.mqtts = await listen(mqtts, { take: (socket, peer) => mqtt.adopt(socket, peer?.device) });
    ports.rtsps = await listen(rtsps, { take: (socket, peer) => rtsp.adopt(socket, peer?.device) });
    // Last, as whoever joins is told of the other two.
    ports.https = await listen(https, {
      protocols: ["h2", "http/1.1"],
      take: (socket, peer) => api.adopt(socket, peer),
    });
    await control.start();
    return { close };
  } catch (error) {
    await close();
    throw error;
  }
}
