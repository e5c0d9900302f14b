/**
 * One camera's footage on its way to the gateway: a RECORD session that sends its units oldest
 * first, learns from GET_PARAMETER `persisted` which of them the gateway has on disk, and gives
 * only those back to the buffer. Whatever breaks, the next session begins with the oldest unit
 * that is still there.
 *
 * It sends behind the records: where a cap holds it takes what they leave, and where the link's mode
 * forbids footage it ends its session with the unit that is under way.
 */
import type { ConnectionOptions } from "node:tls";
import type { FootageUnit } from "../../protocol/footage.ts";
import {
  encodeUnitBegin,
  encodeUnitEnd,
  PERSISTED_PARAMETER,
  parsePersisted,
  UnitDigest,
} from "../../protocol/footage.ts";
import { RtspClient } from "../../protocol/rtsp/client-session.ts";
import { encodeSenderReport } from "../../protocol/rtsp/rtcp.ts";
import { Backoff, pause } from "../../runtime/backoff.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError, HeadwaterError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { FootageBuffer, UnitPlace } from "../buffer/footage-buffer.ts";
import type { LinkRules } from "./link-rules.ts";
import { outgoing } from "./outgoing.ts";
import { SilenceWatch } from "./silence.ts";
import { Wait } from "./wait.ts";

export interface FootageLaneOptions {
  readonly camera: string;
  /** Of the publication: rtsp://gateway/<device>/<camera>. */
  readonly url: string;
  readonly credentials: { readonly username: string; readonly password: string } | undefined;
  readonly tls?: (() => ConnectionOptions) | undefined;
  readonly buffer: FootageBuffer;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly random: (() => number) | undefined;
  /** A unit that arrived and is not persisted for so long is sent again, on a new connection. */
  readonly persistTimeoutMs: number;
  /** Without them everything goes, at once. */
  readonly rules?: Pick<LinkRules, "pacer" | "sendsFootage" | "footageMayGo"> | undefined;
  /** How a connection that is open on this side alone is found. */
  readonly silence?: { readonly quietMs: number; readonly answerMs: number } | undefined;
}

/** Sent and not yet persisted, at most: more would only be sent again after a break. */
const MAX_UNITS_IN_FLIGHT = 8;
const MAX_BYTES_IN_FLIGHT = 24 * 1_048_576;
/** How soon after a unit's end the gateway is asked; then ever later, up to a second. */
const FIRST_POLL_MS = 50;
const SLOWEST_POLL_MS = 1_000;
/** A session that has nothing to send is ended: the camera may be gone for good. */
const IDLE_MS = 60_000;
/** An answer may come behind all that waits to be sent; whether the gateway lives is the silence watch's matter. */
const REQUEST_TIMEOUT_MS = 600_000;
/** What is taken of the cap at a time. */
const PACED_BYTES = 16_384;
/** A question for `persisted`, about. */
const POLL_BYTES = 300;

/** The server does not answer `persisted`: it cannot say what it holds, so nothing may be deleted. */
export class NotAGatewayError extends HeadwaterError {
  constructor(url: string) {
    super("UPLINK_NOT_A_GATEWAY", {
      message: `${url} takes footage but cannot say what it has stored`,
      hint: "gateway.rtsp must be the address of a Headwater gateway",
    });
  }
}

/** The gateway takes footage and does not get it onto its disk. */
export class NotPersistedError extends HeadwaterError {
  constructor(camera: string, timeoutMs: number) {
    super("UPLINK_NOT_PERSISTED", {
      retryable: true,
      message: `the gateway did not store footage of ${camera} within ${timeoutMs} ms`,
      hint: "check the gateway's log and disk; the footage is sent again",
    });
  }
}

/** The gateway did not answer, and the network did not say that it is away. */
export class SilentGatewayError extends HeadwaterError {
  constructor(url: string, silentMs: number) {
    super("UPLINK_SILENT", {
      retryable: true,
      message: `nothing came from ${url} for ${Math.round(silentMs)} ms`,
      hint: "the connection is tried again; check the network between here and the gateway",
    });
  }
}

interface InFlight extends UnitPlace {
  readonly bytes: number;
  /** Since when the gateway is known to have all of it; undefined before. */
  arrivedMs: number | undefined;
}

export class FootageLane {
  readonly #options: FootageLaneOptions;
  readonly #log: Log;
  readonly #backoff: Backoff;
  readonly #counts: ReturnType<typeof countsOf>;
  #inFlight: InFlight[] = [];
  #bytesInFlight = 0;
  /** One after a break, until something is persisted: a gateway with a full disk would get all of them in vain. */
  #maxUnitsInFlight = MAX_UNITS_IN_FLIGHT;
  /** Taken of the cap and not sent yet. */
  #pacedBytes = 0;
  /** Called when something in flight was persisted. */
  #persisted: () => void = () => {};
  /** Called when a unit was sent. */
  #sent: () => void = () => {};

  constructor(options: FootageLaneOptions) {
    this.#options = options;
    this.#log = options.log.child({ camera: options.camera });
    this.#backoff = new Backoff(1_000, 30_000, options.random);
    this.#counts = countsOf(options.metrics);
  }

  /** Until `signal` aborts. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { camera, buffer } = this.#options;
    while (!signal.aborted) {
      await buffer.waiting(camera, undefined, signal);
      await this.#options.rules?.footageMayGo(signal);
      if (signal.aborted) return;
      try {
        await this.#session(signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#counts.breaks.inc({ camera });
        this.#maxUnitsInFlight = 1;
        const waitMs = this.#backoff.nextMs();
        this.#log.warn({ error: describeError(error), waitMs }, "footage uplink broken");
        await pause(waitMs, signal);
      }
    }
  }

  /** Resolves when the next unit needs another session, or there is none for a while. */
  async #session(closing: AbortSignal): Promise<void> {
    const { camera, buffer, url, credentials, tls } = this.#options;
    const head = await buffer.read(camera, undefined);
    // The unit that waited was set aside, or the buffer is being closed.
    if (head === undefined) return pause(FIRST_POLL_MS, closing);
    const broken = new AbortController();
    const { signal } = broken;
    const client = new RtspClient({
      url,
      ...(credentials !== undefined && { credentials }),
      tls: tls?.(),
      requestTimeoutMs: REQUEST_TIMEOUT_MS,
      onHeard: () => watch.heard(),
      onClose: (error) => broken.abort(error),
    });
    // Whoever waits for room on the connection is told by its end.
    const breakOff = (reason: unknown): void => {
      broken.abort(reason);
      void client.close();
    };
    const watch = this.#watchSilence(client, breakOff);
    const end = (): void => breakOff(closing.reason);
    closing.addEventListener("abort", end, { once: true });
    this.#inFlight = [];
    this.#bytesInFlight = 0;
    try {
      await client.connect();
      watch.start();
      await client.announce(head.sdp);
      await client.setup("record");
      await client.record(head.producerUs);
      this.#log.info({ url: client.url }, "footage uplink connected");
      // What an earlier session sent may be on disk already; it is not sent again.
      await this.#poll(client);
      const polling = this.#keepPolling(client, signal).catch((error: unknown) => broken.abort(error));
      await this.#sendUnits(client, head.sdp, signal).finally(() => broken.abort());
      await polling;
    } catch (error) {
      // The reason why the connection broke says more than what its next use threw.
      throw broken.signal.reason instanceof HeadwaterError ? broken.signal.reason : error;
    } finally {
      closing.removeEventListener("abort", end);
      watch.close();
      await client.close();
    }
  }

  #watchSilence(client: RtspClient, breakOff: (reason: unknown) => void): SilenceWatch {
    const { clock, silence } = this.#options;
    return new SilenceWatch({
      clock,
      // Its failure is the connection's end, of which we hear anyway.
      ask: () => void client.keepAlive().catch(() => {}),
      silent: (forMs) => breakOff(new SilentGatewayError(client.url, forMs)),
      outgoing: () => outgoing(client.socket),
      ...silence,
    });
  }

  async #sendUnits(client: RtspClient, sdp: string, signal: AbortSignal): Promise<void> {
    const { camera, buffer } = this.#options;
    let after: UnitPlace | undefined;
    for (;;) {
      const idle = new Wait(signal, IDLE_MS);
      await buffer.waiting(camera, after, idle.signal);
      idle.end();
      await this.#room(signal, () => this.#maxUnitsInFlight, MAX_BYTES_IN_FLIGHT);
      signal.throwIfAborted();
      const mayGo = this.#options.rules?.sendsFootage ?? true;
      const unit = mayGo ? await buffer.read(camera, after) : undefined;
      if (unit === undefined || unit.sdp !== sdp) {
        // Nothing came or may go, or what came needs to be announced anew: when all that was sent is on disk.
        await this.#room(signal, () => 1, 1);
        signal.throwIfAborted();
        return;
      }
      const bytes = await this.#send(client, unit, signal);
      after = { epoch: unit.epoch, sequence: unit.sequence };
      this.#inFlight.push({ ...after, bytes, arrivedMs: undefined });
      this.#bytesInFlight += bytes;
      this.#counts.sent.inc({ camera });
      this.#sent();
    }
  }

  /** Resolves when fewer units and bytes than these are in flight, or `signal` aborts. */
  async #room(signal: AbortSignal, units: () => number, bytes: number): Promise<void> {
    while (!signal.aborted && (this.#inFlight.length >= units() || this.#bytesInFlight >= bytes)) {
      const wait = new Wait(signal, IDLE_MS);
      this.#persisted = () => wait.end();
      await wait.over;
    }
  }

  /** The packets go as the camera made them; sender reports ahead of them say what their times mean. */
  async #send(client: RtspClient, unit: FootageUnit, signal: AbortSignal): Promise<number> {
    const first = unit.packets[0];
    const ssrc = ssrcOf(unit, first?.track ?? 0);
    const { epoch, sequence, producerUs, startsWithKeyFrame } = unit;
    client.sendRtcp(0, encodeUnitBegin(ssrc, { epoch, sequence, producerUs, startsWithKeyFrame }));
    for (const { track, rtpTime, utcUs } of unit.clocks) {
      const report = { ssrc: ssrcOf(unit, track), utcUs, rtpTime, packetCount: 0, octetCount: 0 };
      client.sendRtcp(track, encodeSenderReport(report));
    }
    const digest = new UnitDigest();
    let bytes = 0;
    for (const { track, rtp } of unit.packets) {
      digest.add(track, rtp);
      bytes += rtp.length;
      if (this.#pacedBytes < rtp.length) await this.#pace(rtp.length, signal);
      this.#pacedBytes -= rtp.length;
      if (!client.sendRtp(track, rtp)) await client.drained();
    }
    const { packetCount } = digest;
    client.sendRtcp(0, encodeUnitEnd(ssrc, { packetCount, sha256: digest.digest() }));
    await client.drained();
    return bytes;
  }

  /** Resolves when the cap left room for so much, and a little more. */
  async #pace(bytes: number, signal: AbortSignal): Promise<void> {
    const pacer = this.#options.rules?.pacer;
    while (this.#pacedBytes < bytes) {
      const share = pacer?.publishBytes(PACED_BYTES) ?? Number.POSITIVE_INFINITY;
      if (pacer !== undefined && !(await pacer.take(share, "footage", signal))) {
        throw signal.reason ?? new Error("the uplink ends");
      }
      this.#pacedBytes += share;
    }
  }

  /** Asks soon after each unit's end, and about every second while any is in flight. */
  async #keepPolling(client: RtspClient, signal: AbortSignal): Promise<void> {
    let waitMs = FIRST_POLL_MS;
    while (!signal.aborted) {
      let unitSent = false;
      const wait = new Wait(signal, this.#inFlight.length === 0 ? IDLE_MS : waitMs);
      this.#sent = () => {
        unitSent = true;
        wait.end();
      };
      await wait.over;
      if (unitSent) waitMs = FIRST_POLL_MS;
      if (unitSent || signal.aborted || this.#inFlight.length === 0) continue;
      await this.#poll(client);
      waitMs = Math.min(waitMs * 2, SLOWEST_POLL_MS);
      const oldest = this.#inFlight[0];
      const { camera, clock, persistTimeoutMs } = this.#options;
      if (oldest?.arrivedMs !== undefined && clock.monotonicMs() - oldest.arrivedMs > persistTimeoutMs) {
        throw new NotPersistedError(camera, persistTimeoutMs);
      }
    }
  }

  /** Gives back what the gateway has on disk, and nothing else. */
  async #poll(client: RtspClient): Promise<void> {
    const { camera, buffer, clock, rules } = this.#options;
    const sent = [...this.#inFlight];
    rules?.pacer.charge(POLL_BYTES);
    const text = await client.getParameter(PERSISTED_PARAMETER);
    if (text === undefined) throw new NotAGatewayError(client.url);
    // The question came behind them, on the same connection.
    for (const unit of sent) unit.arrivedMs ??= clock.monotonicMs();
    const ranges = parsePersisted(text);
    for (const { epoch, first, last } of ranges) await buffer.ack(camera, epoch, first, last);
    const waiting = this.#inFlight.filter(
      (unit) =>
        !ranges.some(
          ({ epoch, first, last }) => epoch === unit.epoch && first <= unit.sequence && unit.sequence <= last,
        ),
    );
    const persistedUnits = this.#inFlight.length - waiting.length;
    if (persistedUnits === 0) return;
    this.#counts.persisted.inc({ camera }, persistedUnits);
    this.#inFlight = waiting;
    this.#bytesInFlight = waiting.reduce((sum, { bytes }) => sum + bytes, 0);
    this.#backoff.reset();
    this.#maxUnitsInFlight = MAX_UNITS_IN_FLIGHT;
    this.#persisted();
  }
}

/** That of the first packet of `track`; of any when it has none. */
function ssrcOf(unit: FootageUnit, track: number): number {
  const packet = unit.packets.find((one) => one.track === track) ?? unit.packets[0];
  return packet === undefined ? 0 : packet.rtp.readUInt32BE(8);
}

function countsOf(metrics: Metrics) {
  return {
    sent: metrics.counter("headwater_agent_footage_sent_units_total", "Units sent, again counts again", [
      "camera",
    ]),
    persisted: metrics.counter(
      "headwater_agent_footage_persisted_units_total",
      "Units on the gateway's disk",
      ["camera"],
    ),
    breaks: metrics.counter("headwater_agent_footage_uplink_breaks_total", "Sessions that ended badly", [
      "camera",
    ]),
  };
}
