/** What the console shows at a glance: one object, put together when it is asked for. */

import type { Clock } from "../../../runtime/clock.ts";
import { VERSION } from "../../../runtime/version.ts";
import type { Analytics } from "../../analytics/analytics.ts";
import type { Delivery } from "../../delivery/delivery.ts";
import type { Ingest } from "../../ingest/ingest.ts";
import { recordsBetween, type StreamDescription, type Streams } from "../../streams/streams.ts";
import type { CameraPreviews, Video } from "../../video/video.ts";

/** The parts of the gateway that the console looks at. */
export interface GatewayParts {
  readonly streams: Streams;
  readonly ingest: Ingest;
  readonly delivery: Delivery;
  readonly analytics: Analytics;
  readonly video: Video;
  readonly previews: CameraPreviews;
}

const SHOWN_OBJECTS = 20;
/** Records per second are a mean over this long, or over the time between two questions if that is longer. */
const RATE_WINDOW_MS = 5_000;
const SAMPLE_EVERY_MS = 250;

interface Sample {
  readonly atMs: number;
  /** `streamId/shardId` → its records so far. */
  readonly appended: ReadonlyMap<string, number>;
}

export class ConsoleState {
  readonly #parts: GatewayParts;
  readonly #clock: Clock;
  #samples: Sample[] = [];

  constructor(parts: GatewayParts, clock: Clock) {
    this.#parts = parts;
    this.#clock = clock;
  }

  async read(): Promise<object> {
    const { streams, ingest, delivery, analytics, video } = this.#parts;
    const descriptions = describeAll(streams);
    const rates = this.#measure(descriptions);
    return {
      nowMs: Math.floor(this.#clock.nowUs() / 1000),
      version: VERSION,
      devices: ingest.devices(),
      quarantine: ingest.quarantine(),
      unreachable: streams.unreachable ?? null,
      streams: await Promise.all(descriptions.map((stream) => describeStream(streams, stream, rates))),
      deliveries: delivery.status(),
      objects: delivery.recent(SHOWN_OBJECTS),
      statements: analytics.status(),
      cameras: video.cameras(),
    };
  }

  /** Compares with what stood there when it was last asked: nobody asking costs nothing. */
  #measure(descriptions: readonly StreamDescription[]): Map<string, number> {
    const nowMs = this.#clock.monotonicMs();
    const appended = new Map<string, number>();
    for (const { streamId, shardList } of descriptions) {
      for (const { shardId, appendedRecords } of shardList)
        appended.set(`${streamId}/${shardId}`, appendedRecords);
    }
    // The oldest sample is as old as the window, or the one before it if nobody asked meanwhile.
    while (this.#samples.length > 1 && nowMs - this.#samples[0]!.atMs > RATE_WINDOW_MS) this.#samples.shift();
    const before = this.#samples[0];
    const rates = new Map<string, number>();
    if (before !== undefined && nowMs > before.atMs) {
      for (const [shard, count] of appended) {
        const records = Math.max(0, count - (before.appended.get(shard) ?? 0));
        rates.set(shard, Math.round((records / (nowMs - before.atMs)) * 1e5) / 100);
      }
    }
    const newest = this.#samples.at(-1);
    if (newest === undefined || nowMs - newest.atMs >= SAMPLE_EVERY_MS)
      this.#samples.push({ atMs: nowMs, appended });
    return rates;
  }
}

function describeAll(streams: Streams): StreamDescription[] {
  return streams.listStreams().map((name) => streams.describe(name));
}

async function describeStream(
  streams: Streams,
  stream: StreamDescription,
  rates: ReadonlyMap<string, number>,
): Promise<object> {
  // A stream that is deleted at this moment has no consumers to show.
  const consumers = await streams.consumers(stream.name).catch(() => []);
  const count = (shardId: string, from: number, to: number): number => {
    if (to <= from) return 0;
    try {
      return recordsBetween(streams, stream.name, shardId, from, to);
    } catch {
      // Deleted, or expired, at this moment.
      return 0;
    }
  };
  return {
    name: stream.name,
    damagedBytes: stream.damagedBytes ?? 0,
    refusing: stream.refusing ?? null,
    retentionHours: stream.retentionHours,
    mode: stream.mode,
    openShards: stream.shardList.filter((shard) => shard.closedMs === undefined).length,
    shards: stream.shardList.map((shard) => ({
      shardId: shard.shardId,
      open: shard.closedMs === undefined,
      latest: shard.latest,
      trimHorizon: shard.trimHorizon,
      records: count(shard.shardId, shard.trimHorizon, shard.latest),
      storedBytes: shard.storedBytes,
      recordsPerSecond: rates.get(`${stream.streamId}/${shard.shardId}`) ?? 0,
    })),
    consumers: consumers.map((consumer) => ({
      name: consumer.name,
      behind: stream.shardList.reduce((sum, shard) => {
        const position = consumer.positions.get(shard.shardId) ?? shard.trimHorizon;
        return sum + count(shard.shardId, Math.max(position, shard.trimHorizon), shard.latest);
      }, 0),
    })),
  };
}

export interface Health {
  readonly status: "ok" | "failing";
  readonly version: string;
  /** What is wrong, by part; empty when nothing is. */
  readonly problems: readonly string[];
}

/**
 * Failing means that somebody should look: the store cannot be reached, a stream cannot be written, a statement stopped or does not get on, or a
 * delivery does not get rid of its records.
 */
export function healthOf(parts: GatewayParts): Health {
  const { unreachable } = parts.streams;
  const problems = unreachable === undefined ? [] : [unreachable];
  for (const { refusing } of describeAll(parts.streams)) if (refusing !== undefined) problems.push(refusing);
  for (const statement of parts.analytics.status()) {
    if (statement.state === "failed" || statement.failing)
      problems.push(`statement ${statement.name}: ${statement.lastError ?? "failed"}`);
  }
  for (const delivery of parts.delivery.status()) {
    const isStuck = delivery.state === "failed" || delivery.waitingMs > 0;
    if (delivery.lastError !== undefined && isStuck)
      problems.push(`delivery ${delivery.name}: ${delivery.lastError}`);
  }
  return { status: problems.length === 0 ? "ok" : "failing", version: VERSION, problems };
}
