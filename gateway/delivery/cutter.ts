/**
 * One delivery: reads a stream as its consumer, decides when an object is due, and brings it out
 * exactly once. docs/design/0006-delivery-cuts.md goes through every place where it can be killed.
 *
 *   count (positions only) → due → build from the log → manifest → object → checkpoint → ledger
 */
import type { DeliveryConfig } from "../../config/gateway-config.ts";
import { Backoff, pause } from "../../runtime/backoff.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import {
  type Consumer,
  LeaseHeldError,
  LeaseLostError,
  type Offset,
  type ShardId,
  STAND_BY_MS,
  type Streams,
} from "../streams/streams.ts";
import { CutLedger } from "./cut-ledger.ts";
import {
  type Built,
  type CutManifest,
  endsOf,
  factsOf,
  lostOf,
  newAttempt,
  objectName,
} from "./cut-manifest.ts";
import { buildCut, CutObjects } from "./cut-objects.ts";
import type { DeliveredObject, DeliveryStatus } from "./delivery.ts";
import { countCut, type DeliveryMetrics } from "./delivery-metrics.ts";
import type { Destination } from "./destinations/destination.ts";
import { HeldUp } from "./held-up.ts";
import { LOOK_EVERY_MS, TrimmedRecords } from "./trimmed-records.ts";
import { Waiting } from "./waiting.ts";

/** The compressed object is built in memory; a larger bufferBytes is cut in pieces of this. */
const MAX_CUT_BYTES = 128 * 1_048_576;
/** The clock may jump and retention may move, so no wait is longer. */
const MAX_WAIT_MS = 1_000;
/** Appends come in bursts; reading each alone would cost more than it tells. */
const GATHER_MS = 50;

/**
 * The durable steps of a cut, in their order. `built` comes before the first of them. At `confirmed` an object has yet to
 * get its name. Where checkpoint and ledger are one document there is no step `checkpoint`. `trimmed` is of no cut: what
 * retention took is in the ledger.
 */
export type CutStep = "trimmed" | "built" | "manifest" | "confirmed" | "object" | "checkpoint" | "ledger";

export interface CutterParts {
  readonly dir: string;
  readonly config: DeliveryConfig;
  readonly streams: Streams;
  /** Absolute paths. Called for the config's destination, and for that of an older manifest. */
  readonly openDestination: (config: DeliveryConfig["destination"]) => Destination;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: DeliveryMetrics;
  /** How often expired shards are looked for; once a minute unless given. */
  readonly lookEveryMs?: number;
  /** Called after each step; tests end the process there. */
  readonly onStep: (step: CutStep) => void | Promise<void>;
}

export class Cutter {
  readonly #parts: CutterParts;
  readonly #state: CutLedger;
  readonly #objects: CutObjects;
  readonly #stop = new AbortController();
  readonly #maxBytes: number;
  readonly #trimmed: TrimmedRecords;
  readonly #heldUp: HeldUp;
  #waiting: Waiting | undefined;
  #lastError: string | undefined;
  #running: Promise<void> | undefined;

  private constructor(parts: CutterParts, state: CutLedger) {
    this.#parts = parts;
    this.#state = state;
    this.#objects = new CutObjects(parts);
    // None would always be full.
    this.#maxBytes = Math.max(1, Math.min(parts.config.bufferBytes, MAX_CUT_BYTES));
    const { streams, config, log, metrics, lookEveryMs = LOOK_EVERY_MS } = parts;
    const counted = (records: number) => metrics.trimmedRecords.inc({ delivery: config.name }, records);
    this.#trimmed = new TrimmedRecords({ streams, state, log, lookEveryMs, counted });
    this.#heldUp = new HeldUp({ ...parts, stream: config.stream, consumer: consumerOf(config) });
  }

  /** @throws as CutLedger.open does */
  static async open(parts: CutterParts): Promise<Cutter> {
    const state = await CutLedger.open(parts.dir);
    const { pending } = state;
    const stream = pending && streamOf(parts.streams, pending);
    if (pending !== undefined && stream !== undefined) {
      parts.streams.leaveOut(stream, consumerOf(parts.config), endsOf(pending));
    }
    return new Cutter(parts, state);
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  status(): DeliveryStatus {
    const { config } = this.#parts;
    const { ledger } = this.#state;
    return {
      name: config.name,
      stream: config.stream,
      destination: this.#objects.description,
      state: "running",
      deliveredObjects: ledger.objects,
      deliveredRecords: ledger.records,
      failedRecords: ledger.failedRecords,
      trimmedRecords: ledger.trimmedRecords,
      waitingMs: Math.floor(this.#waitingMs()),
      ...(this.#lastError !== undefined && { lastError: this.#lastError }),
    };
  }

  recent(): DeliveredObject[] {
    return this.#state.ledger.recent.map((object) => ({ delivery: this.#parts.config.name, ...object }));
  }

  /** Whatever fails, the next round begins from what is on disk; so there is one way to recover. */
  async #run(): Promise<void> {
    const { config, streams, log } = this.#parts;
    const backoff = new Backoff();
    let standsBy = false;
    while (!this.#stop.signal.aborted) {
      let consumer: Consumer | undefined;
      try {
        consumer = await streams.openConsumer(config.stream, consumerOf(config));
        standsBy = false;
        await this.#takeOver(consumer);
        await this.#trimmed.begin(consumer);
        const unwatch = this.#trimmed.watch(consumer);
        try {
          await this.#recover(consumer);
          await this.#deliver(consumer, () => backoff.reset());
        } finally {
          unwatch();
        }
      } catch (error) {
        standsBy = this.#failed(error, standsBy);
        if (standsBy) this.#heldUp.forget();
        else await this.#heldUp.failed(this.#waitingMs());
      }
      this.#waiting?.close();
      this.#waiting = undefined;
      try {
        await consumer?.close();
      } catch (error) {
        log.warn({ error: describeError(error) }, "the delivery's lease was not given back");
      }
      if (standsBy) backoff.reset();
      if (this.#stop.signal.aborted) return;
      await pause(standsBy ? STAND_BY_MS : backoff.nextMs(), this.#stop.signal);
    }
  }

  /** @returns whether another gateway delivers: that is no failure, and told once */
  #failed(error: unknown, standsBy: boolean): boolean {
    const { config, log, metrics } = this.#parts;
    this.#lastError = describeError(error);
    if (error instanceof LeaseHeldError) {
      if (!standsBy) log.info({ reason: this.#lastError }, "another gateway delivers; this one stands by");
      return true;
    }
    metrics.errors.inc({ delivery: config.name });
    log.warn({ error: this.#lastError }, "delivery failed, will be tried again");
    return false;
  }

  /** From here on the ledger is the one that goes with the lease, where gateways share the store. */
  async #takeOver(consumer: Consumer): Promise<void> {
    const { handover } = consumer;
    if (handover === undefined) return;
    const { streams, log } = this.#parts;
    const { pending } = this.#state;
    if (pending !== undefined && handover.note === undefined) {
      // An earlier version kept it in a file, and wrote that apart from the checkpoint.
      const isOfThis = streamOf(streams, pending) === consumer.stream;
      if (isOfThis && (await this.#isPast(consumer, pending))) await this.#finish(pending);
    }
    if (await this.#state.takeOver(handover)) {
      log.info({ cut: this.#state.ledger.lastCut }, "goes on where another gateway left this delivery");
      this.#heldUp.forget();
      this.#trimmed.forget();
    }
  }

  /** Ends the cut that a crash or a failing destination interrupted. */
  async #recover(consumer: Consumer): Promise<void> {
    const manifest = this.#state.pending;
    if (manifest === undefined) return;
    const { streams, log } = this.#parts;
    const stream = streamOf(streams, manifest);
    if (stream === undefined) return this.#giveUp(manifest);
    if (stream === consumer.stream) return this.#resume(consumer, manifest);
    // Given up, it would come twice once the config names its stream again: the object may be there.
    log.warn(
      { cut: manifest.cut, object: manifest.object, from: stream },
      "the config names another stream now; the cut under way is finished from its own",
    );
    const own = await streams.openConsumer(stream, consumer.name);
    try {
      await this.#resume(own, manifest);
    } finally {
      await own.close();
    }
  }

  /** Its stream was deleted. */
  async #giveUp(manifest: CutManifest): Promise<void> {
    if (await this.#objects.areThere(manifest)) return this.#finish(manifest);
    this.#parts.log.error(
      { cut: manifest.cut, object: manifest.object },
      "its stream was deleted; the cut is given up",
    );
    const { records, failedRecords, trimmedRecords = 0 } = manifest;
    const lost = records + failedRecords + trimmedRecords;
    await this.#finish({ ...manifest, records: 0, failedRecords: 0, trimmedRecords: lost });
  }

  async #resume(consumer: Consumer, manifest: CutManifest): Promise<void> {
    // Past it, the object was there: it may have been taken away since, and must not come again.
    const mayBePast = !this.#state.isKeptWith(consumer);
    if (mayBePast && (await this.#isPast(consumer, manifest))) return this.#finish(manifest);
    const { log } = this.#parts;
    log.info({ cut: manifest.cut, object: manifest.object }, "a cut is delivered again from its manifest");
    await this.#objects.revoke(manifest);
    const isThere = await this.#objects.areThere(manifest);
    // What retention has taken since need not be missed: the object holds it.
    const built = isThere ? undefined : await buildCut(this.#parts.streams, consumer.stream, manifest.ranges);
    const now =
      built === undefined ? manifest : { ...manifest, ...factsOf(built), ...lostOf(manifest, built) };
    // A kill between the manifest's rename and the sync of its folder leaves it seen but not yet durable.
    const attempt = newAttempt(now);
    await this.#state.begin(attempt);
    await this.#bring(consumer, attempt, built);
  }

  /**
   * One checkpoint covers all ranges of a cut, so any of them tells. As it is stored, and not what the
   * consumer may read: a shard may have expired, and one without a checkpoint begins where retention ends.
   */
  async #isPast(consumer: Consumer, manifest: CutManifest): Promise<boolean> {
    const known = await this.#parts.streams.consumers(consumer.stream);
    const stored = known.find(({ name }) => name === consumer.name)?.positions;
    return manifest.ranges.some(({ shardId, to }) => (stored?.get(shardId) ?? 0) >= to);
  }

  async #deliver(consumer: Consumer, worked: () => void): Promise<void> {
    const { streams, config, clock } = this.#parts;
    const waiting = new Waiting(streams, consumer, clock);
    const bufferMs = config.bufferSeconds * 1_000;
    this.#waiting = waiting;
    while (!this.#stop.signal.aborted) {
      // Without records nothing else would notice.
      if (consumer.lost.aborted) throw new LeaseLostError(config.stream, consumer.name);
      waiting.follow();
      const trimmed = await waiting.count(this.#maxBytes, bufferMs, this.#stop.signal);
      if (waiting.firstArrivalMs === undefined) this.#heldUp.forget();
      if (trimmed > 0) {
        await this.#trimmed.count(trimmed, consumer, waiting.starts());
        await this.#parts.onStep("trimmed");
        await this.#checkpoint(consumer, waiting.starts());
      }
      const due = waiting.bytes >= this.#maxBytes || waiting.ageMs() >= bufferMs;
      // At the end of a closed shard an object is cut early: its children's records must come behind it.
      if (due || waiting.ended) {
        if (waiting.bytes > 0) await this.#cut(consumer, waiting);
        // Not even where places were left out may a shard be kept from its end.
        else await this.#checkpoint(consumer, waiting.reached());
        waiting.clear();
      } else {
        const leftMs = bufferMs - waiting.ageMs();
        await waiting.more(Math.min(leftMs, MAX_WAIT_MS), this.#stop.signal);
        await pause(Math.min(GATHER_MS, leftMs), this.#stop.signal);
      }
      worked();
      this.#lastError = undefined;
      await this.#trimmed.settle();
    }
  }

  async #checkpoint(consumer: Consumer, positions: ReadonlyMap<ShardId, Offset>): Promise<void> {
    // A closed shard whose records all fell to retention is no longer there to be checkpointed.
    const read = new Set(consumer.shards);
    await consumer.checkpoint(new Map([...positions].filter(([shardId]) => read.has(shardId))));
    // A cut may be finished in the stream that the config named before.
    if (consumer.stream === this.#parts.config.stream) this.#trimmed.moved(positions);
  }

  async #cut(consumer: Consumer, waiting: Waiting): Promise<void> {
    const { config, clock, streams } = this.#parts;
    const { ledger } = this.#state;
    const ranges = waiting.ranges();
    this.#trimmed.building(endsOf({ ranges }));
    const built = await buildCut(streams, config.stream, ranges);
    await this.#parts.onStep("built");
    // Of a stream that was made anew meanwhile the id would be another one than that of the records.
    if (consumer.lost.aborted) throw new LeaseLostError(config.stream, consumer.name);
    const cut = ledger.lastCut + 1;
    const name = objectName(config.name, ledger.id, cut, waiting.firstArrivalMs ?? 0);
    const manifest = newAttempt({
      cut,
      streamId: streams.describe(config.stream).streamId,
      destination: config.destination,
      ranges,
      object: name,
      errorObject: `errors/${name}`,
      firstArrivalMs: waiting.firstArrivalMs ?? 0,
      createdMs: Math.floor(clock.nowUs() / 1_000),
      ...factsOf(built),
    });
    await this.#state.begin(manifest);
    await this.#parts.onStep("manifest");
    await this.#bring(consumer, manifest, built);
  }

  /**
   * Each step may be repeated after a crash: an object that is there is kept, a checkpoint may come twice.
   * @param built undefined when its objects are there
   */
  async #bring(consumer: Consumer, manifest: CutManifest, built: Built | undefined): Promise<void> {
    const { onStep } = this.#parts;
    if (built !== undefined) {
      await this.#objects.bring(manifest, built, async () => {
        await this.#confirm(consumer);
        await onStep("confirmed");
      });
    }
    await onStep("object");
    const ends = endsOf(manifest);
    if (this.#state.isKeptWith(consumer)) {
      await this.#finish(manifest, ends);
      this.#trimmed.moved(ends);
      return;
    }
    await this.#checkpoint(consumer, ends);
    await onStep("checkpoint");
    await this.#finish(manifest);
  }

  /** @throws LeaseLostError unless it is still held now */
  async #confirm({ lost, stream, name, handover }: Consumer): Promise<void> {
    if (lost.aborted) throw new LeaseLostError(stream, name);
    await handover?.keep(handover.note);
  }

  /** @param ends where the consumer's checkpoint goes with it */
  async #finish(manifest: CutManifest, ends?: ReadonlyMap<ShardId, Offset>): Promise<void> {
    const { config, clock, log, metrics, onStep } = this.#parts;
    const { records, failedRecords, trimmedRecords = 0 } = manifest;
    // Whoever sees the cut in the totals must not see the error that held it up.
    this.#lastError = undefined;
    // Not before they are durable: a ledger that cannot be written is tried again, and counts once.
    const counted = (): void => {
      countCut(metrics, config.name, manifest);
      this.#heldUp.forget();
    };
    await this.#state.finish(manifest, Math.floor(clock.nowUs() / 1_000), counted, ends);
    await onStep("ledger");
    log.debug({ object: manifest.object, records, failedRecords }, "delivered");
    if (failedRecords > 0) log.warn({ object: manifest.errorObject, failedRecords }, "records are no JSON");
    if (trimmedRecords > 0) {
      log.error(
        { records: trimmedRecords, object: manifest.object },
        "records of a cut were no longer there",
      );
    }
  }

  #waitingMs(): number {
    const { clock } = this.#parts;
    const { pending } = this.#state;
    const pendingMs = pending === undefined ? 0 : clock.nowUs() / 1_000 - pending.firstArrivalMs;
    return Math.max(0, pendingMs, this.#heldUp.ms, this.#waiting?.ageMs() ?? 0);
  }
}

function consumerOf(config: DeliveryConfig): string {
  return `delivery/${config.name}`;
}

/** Undefined when it was deleted. */
function streamOf(streams: Streams, { streamId }: CutManifest): string | undefined {
  return streams.listStreams().find((name) => streams.settings(name).streamId === streamId);
}
