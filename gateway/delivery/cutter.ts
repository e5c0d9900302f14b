/**
 * One delivery: reads a stream as its consumer, decides when an object is due, and brings it out
 * exactly once. docs/design/0006-delivery-cuts.md goes through every place where it can be killed.
 *
 *   count (positions only) → due → build from the log → manifest → object → checkpoint → ledger
 */
import { isDeepStrictEqual, promisify } from "node:util";
import { gzip } from "node:zlib";
import type { DeliveryConfig } from "../../config/gateway-config.ts";
import { Backoff, pause } from "../../runtime/backoff.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import { type Consumer, LeaseLostError, type Streams } from "../streams/streams.ts";
import {
  CutLedger,
  type CutManifest,
  type Ledger,
  MAX_RECENT_OBJECTS,
  newManifest,
  objectName,
} from "./cut-ledger.ts";
import type { DeliveredObject, DeliveryStatus } from "./delivery.ts";
import type { DeliveryMetrics } from "./delivery-metrics.ts";
import type { Destination } from "./destinations/destination.ts";
import { LineWriter } from "./ndjson.ts";
import { readRange } from "./range-reader.ts";
import { Waiting } from "./waiting.ts";

const compress = promisify(gzip);
/** Sensor JSON measured: as small as level 6 (0.2 % more) in 70 % of its time; level 4 saves a fifth more but is 11 % larger. */
const GZIP_LEVEL = 5;
/** An object is built in memory; a larger bufferBytes is cut in pieces of this. */
const MAX_CUT_BYTES = 128 * 1_048_576;
/** The clock may jump and retention may move, so no wait is longer. */
const MAX_WAIT_MS = 1_000;
/** Appends come in bursts; reading each alone would cost more than it tells. */
const GATHER_MS = 50;

/** The durable steps of a cut, in their order. `built` comes before the first of them. */
export type CutStep = "built" | "manifest" | "object" | "checkpoint" | "ledger";

export interface CutterParts {
  readonly dir: string;
  readonly config: DeliveryConfig;
  readonly streams: Streams;
  /** Absolute paths. Called for the config's destination, and for that of an older manifest. */
  readonly openDestination: (config: DeliveryConfig["destination"]) => Destination;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: DeliveryMetrics;
  /** Called after each step; tests end the process there. */
  readonly onStep: (step: CutStep) => void | Promise<void>;
}

interface Built {
  readonly object: Uint8Array | undefined;
  readonly errorObject: Uint8Array | undefined;
  readonly records: number;
  readonly failedRecords: number;
  readonly trimmedRecords: number;
}

export class Cutter {
  readonly #parts: CutterParts;
  readonly #state: CutLedger;
  readonly #destination: Destination;
  readonly #stop = new AbortController();
  readonly #maxBytes: number;
  #waiting: Waiting | undefined;
  #lastError: string | undefined;
  #running: Promise<void> | undefined;

  private constructor(parts: CutterParts, state: CutLedger) {
    this.#parts = parts;
    this.#state = state;
    this.#destination = parts.openDestination(parts.config.destination);
    this.#maxBytes = Math.min(parts.config.bufferBytes, MAX_CUT_BYTES);
  }

  /** @throws DeliveryStateError */
  static async open(parts: CutterParts): Promise<Cutter> {
    return new Cutter(parts, await CutLedger.open(parts.dir));
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
      destination: this.#destination.description,
      deliveredObjects: ledger.objects,
      deliveredRecords: ledger.records,
      failedRecords: ledger.failedRecords,
      trimmedRecords: ledger.trimmedRecords,
      waitingMs: this.#waitingMs(),
      ...(this.#lastError !== undefined && { lastError: this.#lastError }),
    };
  }

  recent(): DeliveredObject[] {
    return this.#state.ledger.recent.map((object) => ({ delivery: this.#parts.config.name, ...object }));
  }

  /** Whatever fails, the next round begins from what is on disk; so there is one way to recover. */
  async #run(): Promise<void> {
    const { config, streams, log, metrics } = this.#parts;
    const backoff = new Backoff();
    while (!this.#stop.signal.aborted) {
      let consumer: Consumer | undefined;
      try {
        consumer = await streams.openConsumer(config.stream, `delivery/${config.name}`);
        await this.#recover(consumer);
        await this.#deliver(consumer, () => backoff.reset());
      } catch (error) {
        this.#lastError = describeError(error);
        metrics.errors.inc({ delivery: config.name });
        log.warn({ error: this.#lastError }, "delivery failed, will be tried again");
      }
      this.#waiting = undefined;
      try {
        await consumer?.close();
      } catch (error) {
        log.warn({ error: describeError(error) }, "the delivery's lease was not given back");
      }
      if (!this.#stop.signal.aborted) await pause(backoff.nextMs(), this.#stop.signal);
    }
  }

  /** Ends the cut that a crash or a failing destination interrupted. */
  async #recover(consumer: Consumer): Promise<void> {
    const manifest = this.#state.pending;
    if (manifest === undefined) return;
    const { config, streams, log } = this.#parts;
    const { streamId } = streams.describe(config.stream);
    if (streamId !== manifest.streamId) {
      log.error(
        { cut: manifest.cut, object: manifest.object },
        "its stream was deleted; the cut is given up",
      );
      const lost = manifest.ranges.reduce((sum, range) => sum + range.to - range.from, 0);
      await this.#countTrimmed(lost);
      await this.#state.finish(manifest.cut, {});
      return;
    }
    // Past it, the object was there: it may have been taken away since, and must not come again.
    if (await this.#isPast(consumer, manifest)) {
      await this.#finish(manifest, manifest.records, manifest.failedRecords);
      return;
    }
    log.info({ cut: manifest.cut, object: manifest.object }, "a cut is delivered again from its manifest");
    // A kill between the manifest's rename and the sync of its folder leaves it seen but not yet durable.
    await this.#state.begin(manifest);
    await this.#bring(consumer, manifest, await this.#build(manifest.ranges));
  }

  /**
   * One checkpoint covers all ranges of a cut, so any shard that is still read tells. When all of
   * them are closed and gone from the consumer, it was through with them, or retention was.
   */
  async #isPast(consumer: Consumer, manifest: CutManifest): Promise<boolean> {
    const positions = consumer.positions();
    for (const { shardId, to } of manifest.ranges) {
      const position = positions.get(shardId);
      if (position !== undefined) return position >= to;
    }
    const known = await this.#parts.streams.consumers(consumer.stream);
    const kept = known.find(({ name }) => name === consumer.name)?.positions;
    return manifest.ranges.every(({ shardId, to }) => (kept?.get(shardId) ?? to) >= to);
  }

  /** A cut goes to where it was going when its manifest was made: part of it may be there already. */
  #destinationOf(manifest: CutManifest): Destination {
    const { config, log, openDestination } = this.#parts;
    const then = manifest.destination;
    if (then === undefined || isDeepStrictEqual(then, config.destination)) return this.#destination;
    const destination = openDestination(then);
    log.warn(
      { cut: manifest.cut, object: manifest.object, destination: destination.description },
      "the config names another destination now; the cut under way is finished where it began",
    );
    return destination;
  }

  async #deliver(consumer: Consumer, worked: () => void): Promise<void> {
    const { streams, config, clock } = this.#parts;
    const waiting = new Waiting(streams, consumer, clock);
    this.#waiting = waiting;
    while (!this.#stop.signal.aborted) {
      // Without records nothing else would notice.
      if (consumer.lost.aborted) throw new LeaseLostError(config.stream, consumer.name);
      waiting.follow();
      const trimmed = await waiting.count(this.#maxBytes);
      if (trimmed > 0) {
        await this.#countTrimmed(trimmed);
        // Otherwise the next start would count them again.
        await consumer.checkpoint(waiting.starts());
      }
      const due = waiting.bytes >= this.#maxBytes || waiting.ageMs() >= config.bufferSeconds * 1_000;
      // At the end of a closed shard an object is cut early: its children's records must come behind it.
      if (due || waiting.ended) {
        if (waiting.bytes > 0) await this.#cut(consumer, waiting);
        else await consumer.checkpoint(waiting.starts());
        waiting.clear();
      } else {
        const leftMs = config.bufferSeconds * 1_000 - waiting.ageMs();
        await waiting.more(Math.min(leftMs, MAX_WAIT_MS), this.#stop.signal);
        await pause(Math.min(GATHER_MS, leftMs), this.#stop.signal);
      }
      worked();
      this.#lastError = undefined;
    }
  }

  async #cut(consumer: Consumer, waiting: Waiting): Promise<void> {
    const { config, clock, streams } = this.#parts;
    const { ledger } = this.#state;
    const ranges = waiting.ranges();
    const built = await this.#build(ranges);
    await this.#parts.onStep("built");
    const cut = ledger.lastCut + 1;
    const name = objectName(config.name, ledger.id, cut, waiting.firstArrivalMs ?? 0);
    const manifest = newManifest({
      cut,
      streamId: streams.describe(config.stream).streamId,
      destination: config.destination,
      ranges,
      object: name,
      errorObject: `errors/${name}`,
      firstArrivalMs: waiting.firstArrivalMs ?? 0,
      createdMs: Math.floor(clock.nowUs() / 1_000),
      records: built.records,
      failedRecords: built.failedRecords,
      bytes: built.object?.length ?? 0,
    });
    await this.#state.begin(manifest);
    await this.#parts.onStep("manifest");
    await this.#bring(consumer, manifest, built);
  }

  async #build(ranges: CutManifest["ranges"]): Promise<Built> {
    const { streams, config } = this.#parts;
    const writer = new LineWriter();
    let trimmedRecords = 0;
    for (const range of ranges) {
      trimmedRecords += await readRange(streams, config.stream, range, (payload, place) =>
        writer.add(payload, place),
      );
    }
    const lines = writer.finish();
    return {
      object: await zipped(lines.delivered),
      errorObject: await zipped(lines.failed),
      records: lines.deliveredRecords,
      failedRecords: lines.failedRecords,
      trimmedRecords,
    };
  }

  /** Each step may be repeated after a crash: `put` keeps what is there, a checkpoint may come twice. */
  async #bring(consumer: Consumer, manifest: CutManifest, built: Built): Promise<void> {
    const { onStep } = this.#parts;
    const destination = this.#destinationOf(manifest);
    if (built.errorObject !== undefined) await destination.put(manifest.errorObject, built.errorObject);
    if (built.object !== undefined) await destination.put(manifest.object, built.object);
    await onStep("object");
    // A closed shard whose records all fell to retention is no longer there to be checkpointed.
    const read = new Set(consumer.shards);
    const ends = manifest.ranges.filter(({ shardId }) => read.has(shardId));
    await consumer.checkpoint(new Map(ends.map(({ shardId, to }) => [shardId, to])));
    await onStep("checkpoint");
    // Retention took records between manifest and object, and a crash kept the object from being made before.
    if (built.trimmedRecords > 0) await this.#countTrimmed(built.trimmedRecords);
    await this.#finish(manifest, built.records, built.failedRecords);
  }

  async #finish(manifest: CutManifest, records: number, failedRecords: number): Promise<void> {
    const { config, clock, log, metrics, onStep } = this.#parts;
    const { ledger } = this.#state;
    const changes: Partial<Ledger> = { failedRecords: ledger.failedRecords + failedRecords };
    if (records > 0) {
      const object = {
        name: manifest.object,
        records,
        bytes: manifest.bytes,
        deliveredMs: Math.floor(clock.nowUs() / 1_000),
      };
      changes.objects = ledger.objects + 1;
      changes.records = ledger.records + records;
      changes.recent = [object, ...ledger.recent].slice(0, MAX_RECENT_OBJECTS);
    }
    // Whoever sees the cut in the totals must not see the error that held it up.
    this.#lastError = undefined;
    // Not before they are durable: a ledger that cannot be written is tried again, and counts once.
    await this.#state.finish(manifest.cut, changes, () => {
      const labels = { delivery: config.name };
      if (records > 0) {
        metrics.objects.inc(labels);
        metrics.bytes.inc(labels, manifest.bytes);
      }
      metrics.records.inc(labels, records);
      metrics.failedRecords.inc(labels, failedRecords);
    });
    await onStep("ledger");
    log.debug({ object: manifest.object, records, failedRecords }, "delivered");
    if (failedRecords > 0) log.warn({ object: manifest.errorObject, failedRecords }, "records are no JSON");
  }

  async #countTrimmed(records: number): Promise<void> {
    const { config, log, metrics } = this.#parts;
    log.error({ records }, "retention removed records before they were delivered");
    const trimmedRecords = this.#state.ledger.trimmedRecords + records;
    await this.#state.update({ trimmedRecords }, () =>
      metrics.trimmedRecords.inc({ delivery: config.name }, records),
    );
  }

  #waitingMs(): number {
    const pending = this.#state.pending;
    if (pending !== undefined) {
      return Math.max(0, Math.floor(this.#parts.clock.nowUs() / 1_000) - pending.firstArrivalMs);
    }
    return Math.max(0, Math.round(this.#waiting?.ageMs() ?? 0));
  }
}

async function zipped(lines: Buffer): Promise<Uint8Array | undefined> {
  // The header of node:zlib holds no time and no name, so the same lines give the same bytes.
  return lines.length === 0 ? undefined : await compress(lines, { level: GZIP_LEVEL });
}
