/** A small RTSP server for tests: whoever publishes is relayed to whoever reads, and all that came is kept. */

import { Relay } from "../../protocol/rtsp/relay.ts";
import { type Authenticator, RtspServer, type RtspServerOptions } from "../../protocol/rtsp/server.ts";
import { systemClock } from "../../runtime/clock.ts";
import { silentLog } from "../../runtime/log.ts";

export interface ReceivedPacket {
  readonly track: number;
  readonly isRtcp: boolean;
  readonly bytes: Buffer;
}

export interface RelayServer {
  readonly server: RtspServer;
  readonly relays: Map<string, Relay>;
  readonly received: ReceivedPacket[];
  readonly events: string[];
  url(path: string): string;
}

export async function startRelayServer(
  authenticate?: Authenticator,
  more: Partial<RtspServerOptions> = {},
): Promise<RelayServer> {
  const relays = new Map<string, Relay>();
  const received: ReceivedPacket[] = [];
  const events: string[] = [];
  const server = new RtspServer({
    host: "127.0.0.1",
    port: 0,
    log: silentLog,
    clock: systemClock,
    ...(authenticate && { authenticate }),
    ...more,
    handler: {
      publish(path, sdp, session) {
        const relay = new Relay({ sdp });
        relays.set(path, relay);
        events.push(`publish ${path} by ${session.user}`);
        return {
          record: (clockUs) => void events.push(`record ${clockUs}`),
          packet(track, bytes) {
            received.push({ track, isRtcp: false, bytes });
            relay.packet(track, bytes);
          },
          rtcp(track, bytes) {
            received.push({ track, isRtcp: true, bytes });
            relay.rtcp(track, bytes);
          },
          getParameter: (name) => (name === "count" ? String(received.length) : undefined),
          close(reason) {
            relays.delete(path);
            relay.close(reason);
            events.push(`close ${reason}`);
          },
        };
      },
      describe: (path) => relays.get(path)?.sdp,
      play: (path, session) => relays.get(path)!.play(session),
    },
  });
  await server.start();
  return { server, relays, received, events, url: (path) => `rtsp://127.0.0.1:${server.port}/${path}` };
}

/** Resolves once `holds` does, asked every few milliseconds. @throws after `timeoutMs` */
export async function until(holds: () => boolean, what: string, timeoutMs = 60_000): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  while (!holds()) {
    if (performance.now() > endMs) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
