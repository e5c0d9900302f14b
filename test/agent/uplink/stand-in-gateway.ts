/** A gateway's RTSP side in a few lines: it checks units, keeps them in memory, and can fail on request. */
import { formatPersisted, parseUnitMark, type UnitBegin, UnitDigest } from "../../../protocol/footage.ts";
import { epochName } from "../../../protocol/frame.ts";
import { parseRtcp } from "../../../protocol/rtsp/rtcp.ts";
import { type Publication, type PublisherSession, RtspServer } from "../../../protocol/rtsp/server.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";

export interface ArrivedUnit {
  readonly path: string;
  readonly sdp: string;
  readonly begin: UnitBegin;
  readonly packets: Buffer[];
  readonly senderReports: { readonly rtpTime: number; readonly utcUs: number }[];
}

export class StandInGateway {
  readonly server: RtspServer;
  /** Whole ones, in order of arrival, also repeated ones. */
  readonly arrived: ArrivedUnit[] = [];
  readonly persisted = new Map<string, ArrivedUnit>();
  readonly sessions: PublisherSession[] = [];
  readonly recordedFrom: (number | undefined)[] = [];
  /** Answers and stores nothing while false. */
  persists = true;
  knowsPersisted = true;
  /** Cuts the connection at so many packets of the next unit. */
  cutAfterPackets = Number.POSITIVE_INFINITY;
  mismatches = 0;
  #onArrival: (() => void)[] = [];

  constructor(port = 0, password?: string) {
    this.server = new RtspServer({
      host: "127.0.0.1",
      port,
      log: silentLog,
      clock: systemClock,
      ...(password !== undefined && {
        authenticate: (user: string) => (user === "pi" ? password : undefined),
      }),
      handler: { publish: (path, sdp, session) => this.#publish(path, sdp, session) },
    });
  }

  get url(): string {
    return `rtsp://127.0.0.1:${this.server.port}`;
  }

  /** Resolves when `enough()` holds after some arrival or poll. */
  async until(enough: () => boolean): Promise<void> {
    while (!enough()) await new Promise<void>((resolve) => this.#onArrival.push(resolve));
  }

  #tell(): void {
    for (const resolve of this.#onArrival.splice(0)) resolve();
  }

  #publish(path: string, sdp: string, session: PublisherSession): Publication {
    this.sessions.push(session);
    let unit: ArrivedUnit | undefined;
    let digest = new UnitDigest();
    return {
      record: (clockUs) => {
        this.recordedFrom.push(clockUs);
        this.#tell();
      },
      packet: (track, rtp) => {
        unit?.packets.push(rtp);
        digest.add(track, rtp);
        if (unit !== undefined && unit.packets.length >= this.cutAfterPackets) {
          this.cutAfterPackets = Number.POSITIVE_INFINITY;
          session.close("cut");
        }
      },
      rtcp: (_track, bytes) => {
        for (const packet of parseRtcp(bytes)) {
          if (packet.type === "sr") unit?.senderReports.push(packet);
          if (packet.type !== "app") continue;
          const mark = parseUnitMark(packet);
          if (mark?.kind === "begin") {
            unit = { path, sdp, begin: mark, packets: [], senderReports: [] };
            digest = new UnitDigest();
          } else if (mark?.kind === "end" && unit !== undefined) {
            const whole = mark.packetCount === digest.packetCount && mark.sha256.equals(digest.digest());
            if (!whole) this.mismatches++;
            else this.#take(unit);
            unit = undefined;
          }
        }
      },
      getParameter: (name) => {
        this.#tell();
        if (name !== "persisted" || !this.knowsPersisted) return undefined;
        return formatPersisted(
          [...this.persisted.values()]
            .filter((one) => one.path === path)
            .map(({ begin }) => ({ epoch: begin.epoch, first: begin.sequence, last: begin.sequence })),
        );
      },
      close: () => this.#tell(),
    };
  }

  #take(unit: ArrivedUnit): void {
    this.arrived.push(unit);
    const key = `${unit.path} ${epochName(unit.begin.epoch)}/${unit.begin.sequence}`;
    if (this.persists) this.persisted.set(key, unit);
    this.#tell();
  }
}
