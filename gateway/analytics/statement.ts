/**
 * One running statement: consumer of its input stream, idempotent producer of its output stream. Where gateways
 * share the store it runs on the one that has the lease; the others stand by.
 * Each commit has three steps, and docs/design/0007-window-results.md says what a crash between any
 * two of them leaves:
 *
 *   1 checkpoint (positions, windows, result frames) → 2 frames to the output → 3 consumer's checkpoint
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { StatementConfig } from "../../config/gateway-config.ts";
import type { BatchRecord } from "../../protocol/record-batch.ts";
import { Backoff, pause } from "../../runtime/backoff.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import {
  type Consumer,
  LeaseHeldError,
  LeaseLostError,
  STAND_BY_MS,
  type Streams,
} from "../streams/streams.ts";
import type { StatementStatus } from "./analytics.ts";
import type { AnalyticsMetrics } from "./analytics-metrics.ts";
import { AnalyticsStateError, type Checkpoint, type Totals } from "./checkpoint.ts";
import { CheckpointFile, HandedCheckpoint } from "./checkpoint-place.ts";
import type { Partials } from "./engines/duckdb-partials.ts";
import { type Group, StateFullError } from "./panes.ts";
import { asFrame, resultFrames, resultRecord, sinkDevice } from "./results.ts";
import { leaveOutWhatWasRead, resumeSession, type Session } from "./session.ts";
import type { Plan } from "./sql/plan.ts";
import type { WindowState } from "./window-state.ts";

/** Reads at the tip wait for nothing, there may be 4,096 shards, and the event loop is everybody's. */
const READS_A_TURN = 16;
const GATHER_MS = 100;
/** Idleness is a matter of time, so no wait is longer. */
const MAX_WAIT_MS = 1_000;
const CHECKPOINT_EVERY_MS = 5_000;
/** As many windows as the state holds may close at once, and the event loop is everybody's. */
const RESULTS_A_TURN = 1_000;
const LATE_LOG_EVERY_MS = 60_000;
const CROWDED_LOG_EVERY_MS = 60_000;

/** The durable steps of a commit, in their order. */
export type CommitStep = "checkpoint" | "frames" | "consumer";

export interface StatementParts {
  readonly dir: string;
  readonly config: StatementConfig;
  readonly plan: Plan;
  readonly streams: Streams;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: AnalyticsMetrics;
  readonly maxGroups: number;
  readonly openPartials: () => Promise<Partials>;
  /** Called after each step; tests end the process there. */
  readonly onStep: (step: CommitStep) => void | Promise<void>;
}

export class Statement {
  readonly #parts: StatementParts & { readonly planHash: string };
  readonly #file: CheckpointFile;
  readonly #stop = new AbortController();
  #state: "running" | "failed" = "running";
  #totals: Totals = { records: 0, late: 0, rejected: 0, results: 0, trimmed: 0, skipped: 0 };
  #counted: Totals | undefined;
  /** Written last, without its windows, and without the results that are in the output. */
  #former: Checkpoint | undefined;
  #watermarkMs: number | undefined;
  #lastError: string | undefined;
  #failing = false;
  #lateLogged = { count: 0, atMs: Number.NEGATIVE_INFINITY };
  #crowdedLoggedMs = Number.NEGATIVE_INFINITY;
  #running: Promise<void> | undefined;

  constructor(parts: StatementParts) {
    const planHash = createHash("sha256").update(JSON.stringify(parts.plan)).digest("hex");
    this.#parts = { ...parts, planHash };
    this.#file = new CheckpointFile(join(parts.dir, "checkpoint"), parts.config.name);
  }

  /** Before anything is appended. A checkpoint that cannot be used is told of when it runs. */
  async prepare(): Promise<void> {
    await leaveOutWhatWasRead(this.#parts, this.#file).catch(() => undefined);
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  status(): StatementStatus {
    const { config, plan } = this.#parts;
    return {
      name: config.name,
      sql: config.sql,
      input: plan.inputStream,
      output: plan.outputStream,
      state: this.#state,
      ...this.#totals,
      watermarkUs: this.#watermarkMs === undefined ? undefined : this.#watermarkMs * 1_000,
      ...(this.#lastError !== undefined && { lastError: this.#lastError }),
      failing: this.#failing,
    };
  }

  async #run(): Promise<void> {
    const { log } = this.#parts;
    const backoff = new Backoff();
    let standsBy = false;
    while (!this.#stop.signal.aborted && this.#state === "running") {
      let consumer: Consumer | undefined;
      let partials: Partials | undefined;
      try {
        consumer = await this.#openConsumer();
        standsBy = false;
        partials = await this.#parts.openPartials();
        const session = await this.#resume(consumer, partials);
        try {
          await this.#work(session, () => backoff.reset());
        } finally {
          session.news.close();
        }
      } catch (error) {
        standsBy = this.#failed(error, standsBy);
      }
      try {
        partials?.close();
      } catch (error) {
        log.warn({ error: describeError(error) }, "the statement's tables were not given back");
      }
      try {
        await consumer?.close();
      } catch (error) {
        log.warn({ error: describeError(error) }, "the statement's lease was not given back");
      }
      if (standsBy) backoff.reset();
      if (!this.#stop.signal.aborted && this.#state === "running") {
        await pause(standsBy ? STAND_BY_MS : backoff.nextMs(), this.#stop.signal);
      }
    }
  }

  #openConsumer(): Promise<Consumer> {
    const { streams, plan, config } = this.#parts;
    return streams.openConsumer(plan.inputStream, `analytics/${config.name}`);
  }

  async #resume(consumer: Consumer, partials: Partials): Promise<Session> {
    const { config } = this.#parts;
    const { handover } = consumer;
    const place =
      handover === undefined ? this.#file : new HandedCheckpoint(config.name, handover, this.#file);
    const { signal } = this.#stop;
    const session = await resumeSession(this.#parts, place, this.#former, consumer, partials, signal);
    const { restored } = session;
    // Of an input that was made anew nothing is read twice, and another gateway may have begun it with less.
    const isAnew = this.#former !== undefined && this.#former.streamId !== session.streamId;
    // Those of another gateway were counted there.
    this.#counted = isAnew ? { ...restored } : largest(this.#counted, restored);
    // Also when nothing changed: a kill between rename and sync leaves a checkpoint seen but not yet durable.
    await this.#commit(session);
    return session;
  }

  /** @returns whether another gateway runs it: that is no failure, and told once */
  #failed(error: unknown, standsBy: boolean): boolean {
    const { config, log, metrics, plan, streams } = this.#parts;
    this.#lastError = describeError(error);
    const isThere = (name: string): boolean => streams.listStreams().includes(name);
    // Streams may be made by API at any time: by a gateway that is called failing meanwhile nobody could.
    this.#failing =
      !(error instanceof LeaseHeldError) && isThere(plan.inputStream) && isThere(plan.outputStream);
    if (error instanceof LeaseHeldError) {
      metrics.groups.set({ statement: config.name }, 0);
      if (!standsBy)
        log.info({ reason: this.#lastError }, "another gateway runs the statement; this one stands by");
      return true;
    }
    metrics.errors.inc({ statement: config.name });
    if (error instanceof AnalyticsStateError || error instanceof StateFullError) {
      this.#state = "failed";
      log.error({ error: this.#lastError }, "the statement has stopped");
    } else log.warn({ error: this.#lastError }, "the statement failed, will be tried again");
    return false;
  }

  async #work(session: Session, worked: () => void): Promise<void> {
    const { clock, plan } = this.#parts;
    const { consumer, state } = session;
    // To take up the checkpoint, and to write it, may have taken longer than a shard may be silent.
    for (const shardId of consumer.shards) state.watermark.active(shardId, clock.monotonicMs());
    while (!this.#stop.signal.aborted) {
      // Without records nothing else would notice.
      if (consumer.lost.aborted) throw new LeaseLostError(plan.inputStream, consumer.name);
      this.#follow(session);
      // Who is idle is judged as of here: to read and decode a round of many shards may take longer than they may be silent.
      const nowMs = clock.monotonicMs();
      const read = await this.#gather(session);
      const closed = await state.advance(nowMs);
      if (closed.length > 0) await this.#emit(session, closed);
      const due = session.moved && clock.monotonicMs() - session.checkpointMs >= CHECKPOINT_EVERY_MS;
      // The children of a closed shard are read once the checkpoint is behind its end.
      const ended = session.moved && session.input.ended.size > 0;
      if (closed.length > 0 || due || ended) await this.#commit(session);
      this.#report(state);
      this.#lastError = undefined;
      this.#failing = false;
      // What is read from now on is told by the positions, until it fails again.
      session.unread = undefined;
      worked();
      if (!read && !this.#follow(session)) await this.#news(session);
    }
    // So that whoever goes on reads, and counts, nothing twice.
    if (session.moved && !consumer.lost.aborted) await this.#commit(session);
  }

  /** Takes in the shards that have come, and leaves those that are done with. @returns true when there were any */
  #follow({ consumer, input, news, state }: Session): boolean {
    const { streams, plan, clock } = this.#parts;
    const same = consumer.shards.length === input.open.size;
    if (same && consumer.shards.every((shardId) => input.open.has(shardId))) return false;
    const { shardList } = streams.describe(plan.inputStream);
    const { come, gone } = input.follow(consumer.positions(), shardList);
    for (const shardId of gone) news.leave(shardId);
    for (const shardId of come) news.add(shardId);
    state.watermark.follow(consumer.shards, shardList, clock.monotonicMs());
    return come.length + gone.length > 0;
  }

  /**
   * Reads each shard once of which there is news; where very many windows are open, only those that hold the watermark
   * back, or nearly. @returns true when anything was read
   */
  async #gather(session: Session): Promise<boolean> {
    const { streams, plan, clock, log } = this.#parts;
    const { state, input, news } = session;
    let progressed = false;
    let reads = 0;
    const crowded = state.isCrowded;
    const aheadMs = crowded ? this.#slowestMs(session) + plan.windowMs : Number.POSITIVE_INFINITY;
    // Each once: what is found to have more comes to the end.
    for (let due = news.due(); due > 0; due--) {
      const shardId = news.take();
      if (state.isBatchFull(crowded) || state.watermark.isBeyond(shardId, aheadMs)) {
        // Not read this time, so nobody knows whether it is silent.
        state.watermark.active(shardId, clock.monotonicMs());
        news.add(shardId);
        continue;
      }
      const from = input.open.get(shardId)!;
      if (++reads % READS_A_TURN === 0) await nextTurn();
      const maxBytes = state.readBytes(crowded ? input.open.size : 1);
      const result = await streams.read(plan.inputStream, shardId, from, maxBytes);
      if (result.trimmed > 0) {
        const records = result.trimmedRecords ?? result.trimmed;
        state.totals.trimmed += records;
        log.error({ shardId, records }, "retention removed records before they were read");
      }
      const taken = await state.gather(shardId, result.parts, from);
      result.release?.();
      news.read(shardId, result);
      if (result.next === from && !result.ended) continue;
      // Who sends only garbage, or only what is late, holds nobody up; what waits behind it may be better.
      if (taken > 0 || result.behindMs > 0) state.watermark.active(shardId, clock.monotonicMs());
      input.moved(shardId, result.next, result.ended);
      progressed = true;
    }
    session.moved ||= progressed;
    return progressed;
  }

  #slowestMs({ input, state }: Session): number {
    const { clock, log } = this.#parts;
    const nowMs = clock.monotonicMs();
    if (nowMs - this.#crowdedLoggedMs >= CROWDED_LOG_EVERY_MS) {
      this.#crowdedLoggedMs = nowMs;
      log.warn(
        { windows: state.panes.groups },
        "very many windows are open: shards wait for those that bring older records, or have yet to bring any",
      );
    }
    return state.watermark.slowestMs(input.unended(), nowMs);
  }

  async #emit(session: Session, closed: readonly Group[]): Promise<void> {
    const { config, plan, clock } = this.#parts;
    const sink = { device: sinkDevice(config.name), stream: plan.outputStream, epoch: session.epoch };
    const records: BatchRecord[] = [];
    for (const group of closed) {
      records.push(resultRecord(plan, group));
      if (records.length % RESULTS_A_TURN === 0) await nextTurn();
    }
    session.pending = await resultFrames(sink, session.nextSequence, Math.floor(clock.nowUs()), records);
    session.nextSequence += BigInt(session.pending.length);
    session.state.totals.results += records.length;
  }

  async #commit(session: Session): Promise<void> {
    const { streams, clock, plan, onStep } = this.#parts;
    const { state, consumer } = session;
    // A stream that was made anew meanwhile is read under this one's positions; nobody may see what came of it.
    if (consumer.lost.aborted) throw new LeaseLostError(plan.inputStream, consumer.name);
    const checkpoint: Checkpoint = {
      planHash: this.#parts.planHash,
      streamId: session.streamId,
      positions: session.input.all(),
      watermarkMs: state.watermark.ms,
      maxTimes: state.watermark.maxTimes(),
      arrivals: state.watermark.arrivals(),
      groups: state.panes.all(),
      totals: state.totals,
      epoch: session.epoch,
      nextSequence: session.nextSequence,
      pending: session.pending,
      unread: session.unread,
    };
    await session.place.write(checkpoint, session.input.open);
    const former = { ...checkpoint, totals: { ...checkpoint.totals }, groups: [] };
    this.#former = former;
    // Before anybody can read the results: what is counted never lags behind what is seen.
    this.#report(state);
    await onStep("checkpoint");
    for (const frame of session.pending) await streams.appendFrame(asFrame(frame));
    this.#former = { ...former, pending: [] };
    await onStep("frames");
    // Only for retention and the console: after a crash the checkpoint's positions count.
    await consumer.checkpoint(session.input.open);
    await onStep("consumer");
    session.pending = [];
    session.moved = false;
    session.checkpointMs = clock.monotonicMs();
  }

  /** Resolves when any shard has news, when shards come or go, or after a while. */
  async #news({ consumer, news }: Session): Promise<void> {
    await news.wait(consumer, MAX_WAIT_MS, this.#stop.signal);
    // Records come in bursts, and a query for each would cost more than it tells.
    await pause(GATHER_MS, this.#stop.signal);
  }

  #report(state: WindowState): void {
    const { config, log, metrics, clock } = this.#parts;
    const labels = { statement: config.name };
    this.#counted ??= { ...state.totals };
    for (const name of ["records", "late", "rejected", "results", "trimmed", "skipped"] as const) {
      // After a failure the totals begin again at the checkpoint, behind what was counted.
      const more = state.totals[name] - this.#counted[name];
      if (more <= 0) continue;
      metrics[name].inc(labels, more);
      this.#counted[name] += more;
    }
    this.#totals = { ...state.totals };
    this.#watermarkMs = state.watermark.ms;
    metrics.groups.set(labels, state.panes.groups);
    const troubled = state.totals.late + state.totals.rejected;
    if (
      troubled > this.#lateLogged.count &&
      clock.monotonicMs() - this.#lateLogged.atMs >= LATE_LOG_EVERY_MS
    ) {
      const { late, rejected } = state.totals;
      log.warn(
        { late, rejected, lastRejection: state.lastRejection },
        "records are late or cannot be decoded",
      );
      this.#lateLogged = { count: troubled, atMs: clock.monotonicMs() };
    }
  }
}

function largest(a: Totals | undefined, b: Totals): Totals {
  if (a === undefined) return { ...b };
  const { records, late, rejected, results, trimmed, skipped } = a;
  return {
    records: Math.max(records, b.records),
    late: Math.max(late, b.late),
    rejected: Math.max(rejected, b.rejected),
    results: Math.max(results, b.results),
    trimmed: Math.max(trimmed, b.trimmed),
    skipped: Math.max(skipped, b.skipped),
  };
}
