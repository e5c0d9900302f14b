/**
 * One way through a connection: read → pack → pace → publish → acknowledged. What is published leaves
 * in the order in which it was read.
 *
 *   buffer ─read behind `from`→ whose? ─mine→ pack ─→ pace ─→ publish ─PUBACK→ done up to here
 *                                 └─ passed over: done, another lane's, or held
 *
 * A lane ends when its turn does, and fails as soon as one publish does: the gateway would take a later
 * one, and then the one that was left out for a repeat. What it has read and not published is given up:
 * it is read again.
 */
import type { Frame } from "../../protocol/frame.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { FramePlace, RecordBuffer } from "../buffer/record-buffer.ts";
import { Batch, type Duty } from "./batch.ts";
import { FrameWindow, type Underway } from "./frame-window.ts";
import type { ShortQueue } from "./short-queue.ts";
import type { LaneName, UplinkMeters } from "./uplink-meters.ts";

export interface Packed {
  /** As it travels. */
  readonly payload: Buffer;
  /** Of the frames as they are. */
  readonly frameBytes: number;
}

/** Makes publishes of frames; calls overlap and resolve in their order. */
export interface LanePacker {
  pack(frames: readonly Frame[]): Promise<Packed>;
}

/** What holds a lane back. */
export interface LaneRules {
  readonly pacer: {
    /** Resolves when so much may leave; false when `signal` was aborted before, or nothing leaves any more. */
    take(bytes: number, traffic: "live" | "backlog", signal: AbortSignal): Promise<boolean>;
    /** How large a publish should be where `wanted` would do. */
    publishBytes(wanted: number): number;
  };
  /** Whether frames of the stream may leave now. */
  sends(stream: string): boolean;
  /** Frames wait: resolves when they have had company for long enough. */
  gather(signal: AbortSignal): Promise<void>;
  /** Resolves at once unless no stream may go; then when one may, or `signal` aborts. */
  mayGo(signal: AbortSignal): Promise<void>;
  /** Calls when any of this has changed. @returns ends that */
  onChange(listener: () => void): () => void;
}

export interface UplinkLaneOptions {
  readonly name: LaneName;
  readonly buffer: RecordBuffer;
  readonly clock: Clock;
  readonly meters: UplinkMeters;
  /** It reads what is behind this. */
  readonly from: FramePlace | undefined;
  readonly publishBytes: number;
  readonly windowBytes: number;
  /** Decides over the window instead, and over the size of publishes. */
  readonly queue?: ShortQueue | undefined;
  readonly rules: LaneRules | undefined;
  readonly packer: LanePacker;
  readonly duty: (frame: Frame) => Duty;
  /** Calls back once it is acknowledged; never when the connection ends before. */
  readonly publish: (payload: Buffer, acknowledged: () => void) => void;
  /** The gateway has it. */
  readonly onAcknowledged: (batch: Batch) => void;
  /** Asked before each batch is sent; false ends the lane before it. */
  readonly goesOn?: (batch: Batch) => boolean;
  /** Nothing waits any more. */
  readonly onCaughtUp?: () => void;
}

/** Publishes that are being packed, or wait for their pace, while the next one is read. */
const MAX_UNSENT = 3;
/** A lane that takes few of the frames that it reads looks at so many times what it may publish. */
const MAX_LOOKED_AT = 8;

export class UplinkLane {
  readonly #options: UplinkLaneOptions;
  /** Aborts with the turn, and when a publish failed. */
  readonly #end = new AbortController();
  readonly window: FrameWindow;
  #cursor: FramePlace | undefined;
  #held: bigint | undefined;
  /** Of publishes that are not sent yet, one behind another. */
  #unsent: Promise<void>[] = [];
  #last: Promise<void> = Promise.resolve();
  #changed = (): void => {};

  /** @param turn ends when the lane shall */
  constructor(options: UplinkLaneOptions, turn: AbortSignal) {
    this.#options = options;
    const end = (): void => this.#end.abort();
    if (turn.aborted) end();
    else turn.addEventListener("abort", end, { once: true });
    this.#cursor = options.from;
    this.window = new FrameWindow(options.queue?.limitBytes ?? options.windowBytes);
  }

  /**
   * Resolves when the turn has ended and nothing of it can be published any more. Rejects when the
   * buffer cannot be read or a publish failed; none behind that one leaves.
   */
  async run(): Promise<void> {
    const { buffer, rules, goesOn, onCaughtUp } = this.#options;
    const { signal } = this.#end;
    while (!signal.aborted) {
      if (this.window.room === 0) {
        await this.#whenChanged(signal);
        continue;
      }
      const batch = await this.#gather();
      if (signal.aborted) break;
      if (batch.seen === 0) {
        onCaughtUp?.();
        if (signal.aborted) break;
        await buffer.waiting(this.#cursor, signal);
        await rules?.gather(signal);
        continue;
      }
      if (batch.frames.length > 0 && goesOn?.(batch) === false) break;
      this.#cursor = batch.last;
      this.#held = batch.held;
      await this.#send(batch);
    }
    await Promise.all(this.#unsent);
    this.window.dropUnsent();
    this.#changed();
  }

  /** Resolves when all that was published is acknowledged, or `end` aborts. */
  async settled(end: AbortSignal): Promise<void> {
    while (!this.window.isEmpty && !end.aborted) await this.#whenChanged(end);
  }

  /** Frames for one publish; few where others' stand between them. */
  async #gather(): Promise<Batch> {
    const { buffer, rules, duty, queue } = this.#options;
    const largest = Math.min(this.#options.publishBytes, queue?.publishBytes ?? Number.POSITIVE_INFINITY);
    const wanted = rules?.pacer.publishBytes(largest) ?? largest;
    const maxBytes = Math.min(wanted, this.window.room);
    const batch = new Batch(this.#held);
    let lookedAt = 0;
    while (!this.#end.signal.aborted) {
      const frames = await buffer.read(batch.last ?? this.#cursor, maxBytes - batch.bytes);
      if (frames.length === 0) break;
      for (const frame of frames) {
        batch.take(frame, duty(frame));
        lookedAt += frame.bytes.length;
      }
      const tookAll = batch.frames.length === batch.seen;
      if (tookAll || batch.bytes >= maxBytes / 2 || lookedAt >= MAX_LOOKED_AT * maxBytes) break;
    }
    return batch;
  }

  async #send(batch: Batch): Promise<void> {
    const underway = this.window.add(batch);
    if (batch.frames.length === 0) {
      this.#acknowledged(underway);
      return;
    }
    // Packing begins now; what was read before leaves before.
    const packed = this.#options.packer.pack(batch.frames);
    packed.catch(() => {});
    this.#last = this.#last.then(async () => this.#publish(underway, await packed));
    // Whatever is behind it fails with it, and `run` hears of it from there, also where it waits for frames.
    this.#last.catch(() => this.#end.abort());
    this.#unsent.push(this.#last);
    if (this.#unsent.length >= MAX_UNSENT) await this.#unsent.shift();
  }

  async #publish(underway: Underway, { payload, frameBytes }: Packed): Promise<void> {
    const { rules, clock, meters, name, publish } = this.#options;
    const { signal } = this.#end;
    // It stays so: nothing behind this is published either.
    if (signal.aborted) return;
    const traffic = name === "live" ? "live" : "backlog";
    const goes = (await rules?.pacer.take(payload.length, traffic, signal)) ?? true;
    if (signal.aborted) return;
    if (!goes) throw new Error("what paces the uplink was closed");
    this.window.sent(underway, payload.length, clock.monotonicMs());
    meters.sent(underway.batch.frames.length, frameBytes, payload.length);
    publish(payload, () => this.#acknowledged(underway));
  }

  #acknowledged(underway: Underway): void {
    const { batch } = underway;
    const { meters, name, clock, onAcknowledged, queue } = this.#options;
    const [oldest] = batch.frames;
    if (queue !== undefined && underway.sentMs !== undefined) {
      const wasFull = this.window.bytes > this.window.limitBytes / 2;
      queue.acknowledged(underway.sentMs, clock.monotonicMs(), wasFull);
      this.window.limitBytes = queue.limitBytes;
    }
    if (oldest !== undefined) meters.acknowledged(name, batch.frames.length, clock.nowUs() - oldest.storedUs);
    for (const done of this.window.acknowledge(underway)) onAcknowledged(done);
    this.#changed();
  }

  /** Resolves when something was acknowledged or failed, or `signal` aborts. */
  #whenChanged(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        this.#changed = () => {};
        signal.removeEventListener("abort", done);
        resolve();
      };
      this.#changed = done;
      signal.addEventListener("abort", done, { once: true });
    });
  }
}
