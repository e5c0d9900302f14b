/**
 * Gives streams in on-demand mode the shards that their traffic needs. It knows only the face of the
 * streams, and makes one change of a stream at a time:
 *
 *   look (once a second) → measured load (shard-load.ts) → decide (on-demand-policy.ts) → split | merge
 *
 * It keeps nothing on disk: after a start it measures again before it changes anything.
 */
import type { Counter } from "prom-client";
import { pause } from "../../runtime/backoff.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import { type Decision, decide } from "./on-demand-policy.ts";
import { StreamLoad } from "./shard-load.ts";
import { BadReshardError, StreamNotFoundError, type Streams, StreamsClosedError } from "./streams.ts";

const LOOK_EVERY_MS = 1_000;
/** Going up is urgent; going down is not. */
const MERGE_EVERY_MS = 60_000;
/** After a change that failed. */
const WAIT_AFTER_FAILURE_MS = 30_000;
const CLOSE_WITHIN_MS = 3_000;

export interface OnDemandOptions {
  readonly streams: Pick<Streams, "listStreams" | "settings" | "describe" | "splitShard" | "mergeShards">;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

interface Watched {
  readonly name: string;
  readonly load: StreamLoad;
  /** On the monotonic clock. */
  nextMergeMs: number;
  waitUntilMs: number;
}

export class OnDemand {
  readonly #options: OnDemandOptions;
  readonly #reshards: Counter<"stream" | "kind" | "reason">;
  /** By stream id. */
  readonly #watched = new Map<string, Watched>();
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;

  constructor(options: OnDemandOptions) {
    this.#options = options;
    const { metrics, streams } = options;
    this.#reshards = metrics.counter("headwater_reshards_total", "Shards split or merged by on-demand mode", [
      "stream",
      "kind",
      "reason",
    ] as const);
    metrics.gauge("headwater_stream_open_shards", "Shards that take records", ["stream"], function () {
      this.reset();
      for (const stream of namesOf(streams)) {
        this.set({ stream }, streams.settings(stream).shards);
      }
    });
  }

  start(): void {
    this.#timer ??= setInterval(() => {
      // A change that takes long lets looks go by.
      this.#looking ??= this.look().finally(() => {
        this.#looking = undefined;
      });
    }, LOOK_EVERY_MS).unref();
  }

  /** A change that gets no answer for long, as of a cluster that is down, holds nobody up. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    const done = new AbortController();
    void (this.#looking ?? Promise.resolve()).finally(() => done.abort());
    await pause(CLOSE_WITHIN_MS, done.signal);
  }

  /** Looks at every stream in on-demand mode and changes what has to be, one shard or pair in each. Never rejects. */
  async look(): Promise<void> {
    const { streams, log } = this.#options;
    const seen = new Set<string>();
    for (const name of namesOf(streams)) {
      try {
        const { streamId, mode } = streams.settings(name);
        if (mode !== "on-demand") continue;
        seen.add(streamId);
        await this.#lookAt(name, streamId);
      } catch (error) {
        if (error instanceof StreamNotFoundError || error instanceof StreamsClosedError) continue;
        log.error({ stream: name, error: describeError(error) }, "on-demand scaling failed");
      }
    }
    for (const streamId of this.#watched.keys()) if (!seen.has(streamId)) this.#watched.delete(streamId);
  }

  async #lookAt(name: string, streamId: string): Promise<void> {
    const { streams, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    let watched = this.#watched.get(streamId);
    if (watched === undefined) {
      watched = { name, load: new StreamLoad(), nextMergeMs: 0, waitUntilMs: 0 };
      this.#watched.set(streamId, watched);
    }
    const shards = watched.load.measure(nowMs, streams.describe(name).shardList);
    if (nowMs < watched.waitUntilMs) return;
    const decision = decide(shards);
    if (decision === undefined || (decision.kind === "merge" && nowMs < watched.nextMergeMs)) return;
    await this.#apply(watched, decision, shards.length, nowMs);
  }

  async #apply(watched: Watched, decision: Decision, openShards: number, nowMs: number): Promise<void> {
    const { streams, log } = this.#options;
    const { name: stream } = watched;
    const { kind, reason, shardId, utilisation } = decision;
    try {
      if (kind === "split") await streams.splitShard(stream, shardId, decision.startingHash);
      else await streams.mergeShards(stream, shardId, decision.adjacentShardId);
    } catch (error) {
      watched.waitUntilMs = nowMs + WAIT_AFTER_FAILURE_MS;
      // Somebody else changed the shards meanwhile: that is looked at anew.
      if (error instanceof BadReshardError) return;
      throw error;
    }
    if (kind === "merge") watched.nextMergeMs = nowMs + MERGE_EVERY_MS;
    this.#reshards.inc({ stream, kind, reason });
    log.info(
      {
        stream,
        shardId,
        ...(kind === "merge" && { adjacentShardId: decision.adjacentShardId }),
        reason,
        utilisation: Math.round(utilisation * 100) / 100,
        openShards: openShards + (kind === "split" ? 1 : -1),
      },
      kind === "split" ? "a busy shard was split" : "two idle shards were merged",
    );
  }
}

/** Nobody is there once the streams are closed. */
function namesOf(streams: Pick<Streams, "listStreams">): string[] {
  try {
    return streams.listStreams();
  } catch (error) {
    if (error instanceof StreamsClosedError) return [];
    throw error;
  }
}
