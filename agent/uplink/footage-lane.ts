/**
 * One camera's footage on its way to the gateway: a RECORD session that sends its units oldest
 * first, learns from GET_PARAMETER `persisted` which of them the gateway has on disk, and gives
 * only those back to the buffer. Whatever breaks, the next session begins with the oldest unit
 * that is still there.
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
  /** A unit sent and not persisted for so long is sent again, on a new connection. */
  readonly persistTimeoutMs: number;
}

/** Sent and not yet persisted, at most: more would only be sent again after a break. */
const MAX_UNITS_IN_FLIGHT = 8;
const MAX_BYTES_IN_FLIGHT = 24 * 1_048_576;
/** How soon after a unit's end the gateway is asked; then ever later, up to a second. */
const FIRST_POLL_MS = 50;
const SLOWEST_POLL_MS = 1_000;
/** A session that has nothing to send is ended: the camera may be gone for good. */
const IDLE_MS = 60_000;

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

interface InFlight extends UnitPlace {
  readonly bytes: number;
  readonly sentMs: number;
}

export class FootageLane {
  readonly #options: FootageLaneOptions;
  readonly #log: Log;
  readonly #backoff: Backoff;
  readonly #counts: ReturnType<typeof countsOf>;
  #inFlight: InFlight[] = [];
  #bytesInFlight = 0;
  /** Called when something in flight was persisted. */
  #persisted: () => void = () => {};
  /** Called when a unit was sent. */
  #sent: () => void = () => {};

  constructor(options: FootageLaneOptions) {
    this.#options = options;
    this.#log = options.log.child({ camera: options.camera });
    this.#backoff = new Backoff(250, 30_000, options.random);
    this.#counts = countsOf(options.metrics);
  }

  /** Until `signal` aborts. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { camera, buffer } = this.#options;
    while (!signal.aborted) {
      await buffer.waiting(camera, undefined, signal);
      if (signal.aborted) return;
      try {
        await this.#session(signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#counts.breaks.inc({ camera });
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
    const end = (): void => broken.abort(closing.reason);
    closing.addEventListener("abort", end, { once: true });
    const client = new RtspClient({
      url,
      ...(credentials !== undefined && { credentials }),
      tls: tls?.(),
      onClose: (error) => broken.abort(error),
    });
    this.#inFlight = [];
    this.#bytesInFlight = 0;
    try {
      await client.connect();
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
      await client.close();
    }
  }

  async #sendUnits(client: RtspClient, sdp: string, signal: AbortSignal): Promise<void> {
    const { camera, buffer } = this.#options;
    let after: UnitPlace | undefined;
    for (;;) {
      const idle = new Wait(signal, IDLE_MS);
      await buffer.waiting(camera, after, idle.signal);
      idle.end();
      await this.#room(signal, MAX_UNITS_IN_FLIGHT, MAX_BYTES_IN_FLIGHT);
      signal.throwIfAborted();
      const unit = await buffer.read(camera, after);
      if (unit === undefined || unit.sdp !== sdp) {
        // Nothing came, or what came needs to be announced anew: when all that was sent is on disk.
        await this.#room(signal, 1, 1);
        signal.throwIfAborted();
        return;
      }
      const bytes = await this.#send(client, unit);
      after = { epoch: unit.epoch, sequence: unit.sequence };
      this.#inFlight.push({ ...after, bytes, sentMs: this.#options.clock.monotonicMs() });
      this.#bytesInFlight += bytes;
      this.#counts.sent.inc({ camera });
      this.#sent();
    }
  }

  /** Resolves when fewer units and bytes than these are in flight, or `signal` aborts. */
  async #room(signal: AbortSignal, units: number, bytes: number): Promise<void> {
    while (!signal.aborted && (this.#inFlight.length >= units || this.#bytesInFlight >= bytes)) {
      const wait = new Wait(signal, IDLE_MS);
      this.#persisted = () => wait.end();
      await wait.over;
    }
  }

  /** The packets go as the camera made them; sender reports ahead of them say what their times mean. */
  async #send(client: RtspClient, unit: FootageUnit): Promise<number> {
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
      if (!client.sendRtp(track, rtp)) await client.drained();
    }
    const { packetCount } = digest;
    client.sendRtcp(0, encodeUnitEnd(ssrc, { packetCount, sha256: digest.digest() }));
    await client.drained();
    return bytes;
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
      if (oldest !== undefined && clock.monotonicMs() - oldest.sentMs > persistTimeoutMs) {
        throw new NotPersistedError(camera, persistTimeoutMs);
      }
    }
  }

  /** Gives back what the gateway has on disk, and nothing else. */
  async #poll(client: RtspClient): Promise<void> {
    const { camera, buffer } = this.#options;
    const text = await client.getParameter(PERSISTED_PARAMETER);
    if (text === undefined) throw new NotAGatewayError(client.url);
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
    this.#persisted();
  }
}

/** Ends after `ms`, when `signal` aborts, or when told; leaves neither timer nor listener behind. */
class Wait {
  readonly over: Promise<void>;
  readonly #over = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #outer: AbortSignal;

  constructor(outer: AbortSignal, ms: number) {
    this.#outer = outer;
    this.#timer = setTimeout(this.end, ms);
    this.over = new Promise((resolve) => {
      this.signal.addEventListener("abort", () => resolve(), { once: true });
    });
    outer.addEventListener("abort", this.end, { once: true });
    if (outer.aborted) this.end();
  }

  get signal(): AbortSignal {
    return this.#over.signal;
  }

  readonly end = (): void => {
    clearTimeout(this.#timer);
    this.#outer.removeEventListener("abort", this.end);
    this.#over.abort();
  };
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
