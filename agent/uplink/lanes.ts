/**
 * Which frames of the buffer share a connection, and how: strictly oldest first in one lane, or, while
 * streams that go live-first would have to wait behind a backlog, in two.
 *
 *   one lane     everything, oldest first
 *   two lanes    live      frames of live-first streams, of the newest epoch
 *                backlog   all else, oldest first, with a small window, so that live has a short way
 *
 * The gateway takes a stream's frames of an epoch in their order, and streams and epochs independently
 * of one another. So each (epoch, stream) is one lane's alone at any time: lanes change in rounds. At
 * the end of one nothing more is read, what is published is acknowledged, and the next begins at the
 * buffer's head and passes over what is acknowledged. docs/design/0023-live-first.md says why.
 */
import type { Epoch, Frame } from "../../protocol/frame.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { FramePlace, RecordBuffer } from "../buffer/record-buffer.ts";
import type { Batch, Duty } from "./batch.ts";
import { ShortQueue } from "./short-queue.ts";
import { type LanePacker, type LaneRules, UplinkLane } from "./uplink-lane.ts";
import type { LaneName, UplinkMeters } from "./uplink-meters.ts";

/** What one connection leaves to the next. */
export interface UplinkProgress {
  /** Up to here a live lane has nothing left to do. */
  liveTo: FramePlace | undefined;
}

export interface LanesOptions {
  readonly buffer: RecordBuffer;
  readonly clock: Clock;
  readonly meters: UplinkMeters;
  readonly progress: UplinkProgress;
  /** Streams whose new frames do not wait behind old ones. */
  readonly liveFirst: ReadonlySet<string>;
  readonly publishBytes: number;
  readonly windowBytes: number;
  readonly rules: LaneRules | undefined;
  /** Begins with one small publish, and with more as they are acknowledged. */
  readonly probing?: boolean;
  /** One for each lane. */
  readonly packer: () => LanePacker;
  /** Calls back once it is acknowledged. */
  readonly publish: (payload: Buffer, acknowledged: () => void) => void;
  /** The gateway acknowledged something. */
  readonly onProgress: () => void;
  /** Frames were forgotten. */
  readonly onForgotten: () => Promise<void>;
  readonly onFailure: (error: unknown) => void;
}

/** Frames that are older when their turn comes are a backlog. */
export const BACKLOG_US = 2_000_000;
/** What is younger again is none. */
const FRESH_US = 500_000;
/** Less than that is sent before it is worth a lane of its own. */
const SMALL_BACKLOG_BYTES = 64 * 1_024;
/**
 * What may not go is looked through again after so long, and not for more than one part in so many of
 * the time: what went ahead of it since can be forgotten then.
 */
const LOOK_AGAIN_MS = 60_000;
const LOOK_SHARE = 20;
/** Each epoch that is open already doubles how long live frames must have waited for one more. */
const MAX_OPEN_EPOCHS = 16;
/** Of the backlog, so much may be before a live frame on the connection, until it shows how quick that is. */
const QUEUE_START_BYTES = 256 * 1_024;
const QUEUE_MIN_BYTES = 16 * 1_024;
const QUEUE_TARGET_MS = 100;
/** What is sent where nothing got through the last time. Each acknowledgement doubles it. */
const PROBE_BYTES = 4 * 1_024;

export class Lanes {
  readonly #options: LanesOptions;
  #lanes: readonly UplinkLane[] = [];
  /** Acknowledgements reach the buffer one behind another. */
  #acks: Promise<void> = Promise.resolve();
  /** Nothing was acknowledged yet on a connection that begins with little. */
  #probing: boolean;

  constructor(options: LanesOptions) {
    this.#options = options;
    this.#probing = options.probing ?? false;
  }

  /** Whether live-first streams go their own way now. */
  get split(): boolean {
    return this.#lanes.length > 1;
  }

  /** Under way. */
  get bytes(): number {
    return this.#lanes.reduce((sum, { window }) => sum + window.bytes, 0);
  }

  /** Whether frames of the epoch are under way, perhaps not published yet. */
  carries(epoch: Epoch): boolean {
    return this.#lanes.some(({ window }) => window.carries(epoch));
  }

  /** When the oldest publish that is not acknowledged was sent. */
  get oldestSentMs(): number | undefined {
    const sent = this.#lanes.flatMap(({ window }) => window.oldestSentMs ?? []);
    return sent.length === 0 ? undefined : Math.min(...sent);
  }

  /** Sends what waits until `end` aborts. Rejects when the buffer cannot be read. */
  async run(end: AbortSignal): Promise<void> {
    let split = false;
    while (!end.aborted) {
      await this.#options.rules?.mayGo(end);
      split = await this.#round(split, end);
    }
    await this.#acks.catch(() => {});
  }

  /** @returns whether the next one has two lanes */
  async #round(split: boolean, end: AbortSignal): Promise<boolean> {
    const turn = new AbortController();
    const endTurn = (): void => turn.abort();
    end.addEventListener("abort", endTurn, { once: true });
    const stopListening = this.#options.rules?.onChange(endTurn);
    let next = split;
    const change = (to = !split): void => {
      next = to;
      turn.abort();
    };
    try {
      if (end.aborted) return next;
      this.#lanes = split ? await this.#twoLanes(turn.signal, change) : [this.#oneLane(turn.signal, change)];
      await Promise.all(this.#lanes.map((lane) => lane.run()));
      await Promise.all(this.#lanes.map((lane) => lane.settled(end)));
      await this.#acks;
      return next;
    } finally {
      turn.abort();
      stopListening?.();
      end.removeEventListener("abort", endTurn);
    }
  }

  #oneLane(turn: AbortSignal, change: () => void): UplinkLane {
    const { liveFirst, publishBytes, windowBytes } = this.#options;
    const goesOn = (batch: Batch): boolean => {
      if (liveFirst.size === 0 || !this.#isBacklog(batch)) return true;
      change();
      return false;
    };
    const part = { name: "in-order", publishBytes, windowBytes, from: undefined, goesOn } as const;
    return this.#lane({ ...part, duty: (frame) => this.#duty(frame) }, turn);
  }

  async #twoLanes(turn: AbortSignal, change: (split?: boolean) => void): Promise<UplinkLane[]> {
    const { liveFirst, publishBytes, windowBytes, progress, clock } = this.#options;
    const from = await this.#liveFrom();
    progress.liveTo = from;
    // One lane would pass over what may not go before it came to what is new.
    let holds = false;
    const beganMs = clock.monotonicMs();
    let lookedMs: number | undefined;
    const duty = (frame: Frame): Duty => {
      const its = this.#duty(frame);
      holds ||= its === "hold";
      return its;
    };
    const caughtUp = (): void => {
      const nowMs = clock.monotonicMs();
      lookedMs ??= nowMs;
      const pauseMs = Math.max(LOOK_AGAIN_MS, LOOK_SHARE * (lookedMs - beganMs));
      if (!holds) change();
      else if (nowMs - lookedMs >= pauseMs) change(true);
    };
    const backlog = this.#lane(
      {
        name: "backlog",
        publishBytes,
        windowBytes,
        queue: new ShortQueue({
          startBytes: this.#probing ? PROBE_BYTES : QUEUE_START_BYTES,
          minBytes: QUEUE_MIN_BYTES,
          maxBytes: windowBytes,
          targetMs: QUEUE_TARGET_MS,
        }),
        from: undefined,
        duty: (frame) => (isLive(frame, liveFirst, from.epoch) ? this.#passed(frame) : duty(frame)),
        goesOn: (batch) => {
          if (holds || !this.#isFresh(batch)) return true;
          change();
          return false;
        },
        onCaughtUp: caughtUp,
      },
      turn,
    );
    const live = (frame: Frame): Duty => (isLive(frame, liveFirst, from.epoch) ? this.#duty(frame) : "pass");
    return [this.#lane({ name: "live", publishBytes, windowBytes, from, duty: live }, turn), backlog];
  }

  #lane(part: LanePart, turn: AbortSignal): UplinkLane {
    const { buffer, clock, meters, rules, packer, publish } = this.#options;
    const { name } = part;
    const windowBytes = this.#probing ? Math.min(PROBE_BYTES, part.windowBytes) : part.windowBytes;
    const onAcknowledged = (batch: Batch): void => {
      if (batch.frames.length > 0) {
        this.#probing = false;
        // A short queue grows by itself.
        if (part.queue === undefined)
          lane.window.limitBytes = Math.min(part.windowBytes, 2 * lane.window.limitBytes);
      }
      this.#acknowledged(name, batch);
    };
    const shared = { buffer, clock, meters, rules, packer: packer(), publish, onAcknowledged };
    const lane = new UplinkLane({ ...shared, ...part, windowBytes }, turn);
    return lane;
  }

  #duty(frame: Frame): Duty {
    if (this.#options.buffer.isAhead(frame)) return "pass";
    return this.#options.rules?.sends(frame.stream) === false ? "hold" : "send";
  }

  /** Another lane's: done once that has it. */
  #passed(frame: Frame): Duty {
    return this.#options.buffer.isAhead(frame) ? "pass" : "hold";
  }

  #isBacklog(batch: Batch): boolean {
    const { buffer, clock } = this.#options;
    if (clock.nowUs() - batch.frames[0]!.storedUs <= BACKLOG_US) return false;
    return buffer.usage().waitingBytes > SMALL_BACKLOG_BYTES;
  }

  #isFresh(batch: Batch): boolean {
    return this.#options.clock.nowUs() - batch.frames[0]!.storedUs < FRESH_US;
  }

  /**
   * Where the live lane begins. Live frames that have waited for long would be a backlog of their own
   * in it: then what comes from now on gets a new epoch, and they are left to the other lane.
   */
  async #liveFrom(): Promise<FramePlace> {
    const { buffer, clock, progress } = this.#options;
    const { currentEpoch, openEpochs } = buffer.usage();
    const known = progress.liveTo?.epoch === currentEpoch ? progress.liveTo : undefined;
    const from = known ?? { epoch: currentEpoch, sequence: 0n };
    // The first that the lane would look at, of whatever stream: it would have to read all behind it.
    const [first] = await buffer.read(from, 1);
    if (first === undefined || openEpochs >= MAX_OPEN_EPOCHS) return from;
    if (clock.nowUs() - first.storedUs <= BACKLOG_US * 2 ** (openEpochs - 1)) return from;
    return { epoch: await buffer.beginEpoch(), sequence: 0n };
  }

  #acknowledged(name: LaneName, batch: Batch): void {
    const { buffer, progress, onProgress, onForgotten, onFailure } = this.#options;
    for (const place of batch.streams) buffer.ackAhead(place);
    if (batch.frames.length > 0) onProgress();
    const { upTo } = batch;
    if (name === "live") progress.liveTo = upTo.at(-1) ?? progress.liveTo;
    if (name === "live" || upTo.length === 0) return;
    this.#acks = this.#acks.then(async () => {
      for (const { epoch, sequence } of upTo) await buffer.ack(epoch, sequence);
      await onForgotten();
    });
    this.#acks.catch(onFailure);
  }
}

type LanePart = Pick<
  ConstructorParameters<typeof UplinkLane>[0],
  "name" | "from" | "publishBytes" | "windowBytes" | "queue" | "duty" | "goesOn" | "onCaughtUp"
>;

/** Of the newest epoch, which begins where live frames need not wait. */
function isLive({ stream, epoch }: Frame, liveFirst: ReadonlySet<string>, newest: Epoch): boolean {
  return epoch === newest && liveFirst.has(stream);
}
