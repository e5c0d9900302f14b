/**
 * Brings the groups of one log to the disk, one after the other, each by one write and one
 * fdatasync (one call where the file is written past the page cache: log-file.ts), and makes the log sound again
 * when the disk refused.
 *
 *   [oldest group] → its segment, when that is not there yet → write → fdatasync → stored → [next] …
 *                                       └ refused → all that waits fails → cut back, new segment → goes on
 *
 * A crash between write and fdatasync leaves entries that nobody was told of: the next start keeps
 * those that are sound, so that a repetition of them is recognised, and cuts a torn one. As no group
 * is written before the one in front of it is synced, damage with a later group behind it is real.
 *
 * After a failed fdatasync nobody knows which pages are on disk, and the kernel may call the next
 * one a success. So all that waited is refused, and nothing is taken until the file is cut back to
 * its last good end and a new segment stands, or the last one if room alone lacked and nothing is in it yet. A crash before the cut leaves entries that were
 * refused: the next start keeps those that are sound, and their repetition is recognised as well.
 */
import type { HeadwaterError } from "../../../../../runtime/errors.ts";
import { Refusal } from "../../../refusal.ts";
import { LogFullError, LogWriteError } from "../../../streams.ts";
import { DiskSilence } from "./disk-silence.ts";
import type { Group } from "./group.ts";
import type { LogEnd } from "./log-end.ts";
import type { LogMeters } from "./log-meters.ts";
import type { LogReport } from "./log-report.ts";
import type { SegmentChain } from "./segment-chain.ts";
import { newGeneration } from "./segment-file.ts";
import type { WaitingGroups } from "./waiting-groups.ts";

/** After a failed repair the next one waits so long, and after one that the next failure followed as soon. */
const REPAIR_PAUSE_MS = 500;

export interface GroupWriterOptions {
  /** The stream's. */
  readonly name: string;
  readonly meters: LogMeters;
  readonly monotonicMs: () => number;
}

/** The parts of one log that the writer works on. */
export interface LogParts {
  readonly waiting: WaitingGroups;
  readonly chain: SegmentChain;
  readonly end: LogEnd;
  readonly report: LogReport;
}

/** What the log makes of what the writer did; called within one step, with nothing awaited in between. */
export interface GroupOutcomes {
  /** The oldest group is on disk, behind the active segment's end, which is not moved yet. */
  stored(group: Group): void;
  /** The log ends where `end` says, and takes appends again. */
  repaired(): void;
}

export class GroupWriter {
  readonly #options: GroupWriterOptions;
  readonly #parts: LogParts;
  readonly #outcomes: GroupOutcomes;
  #pumping: Promise<void> | undefined;
  #failure: HeadwaterError | undefined;
  readonly #refusal: Refusal;
  readonly #silence: DiskSilence;
  #repairAfterMs = 0;
  #repairedMs = Number.NEGATIVE_INFINITY;
  #repairing: Promise<void> | undefined;

  constructor(options: GroupWriterOptions, parts: LogParts, outcomes: GroupOutcomes) {
    this.#options = options;
    this.#refusal = new Refusal(options.monotonicMs);
    this.#silence = new DiskSilence(options, parts.report);
    this.#parts = parts;
    this.#outcomes = outcomes;
  }

  /** The last write failed, and what it left is not repaired yet. */
  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  /**
   * The last failure, or that the disk does not answer. A repaired log may meet the same disk, so a failure stands until
   * something is stored, or for a while.
   */
  get refusing(): string | undefined {
    return this.#failure?.message ?? this.#silence.why ?? this.#refusal.why;
  }

  /** That the disk does not answer, if so. */
  get silent(): string | undefined {
    return this.#silence.why;
  }

  /** How long the write that is under way has taken so far. */
  get writeAgeMs(): number {
    return this.#silence.ms;
  }

  /** Tells the operator, once, of a disk that does not answer. */
  lookAtDisk(): void {
    this.#silence.look();
  }

  /** @throws LogFullError, LogWriteError while it has failed; then the repair is tried again, unless it just was */
  refuseWhenFailed(): void {
    if (this.#failure === undefined) return;
    this.repair();
    throw this.#failure;
  }

  /** Where it has failed, tries to make the log sound, unless that is under way or was just tried. */
  repair(): void {
    const waits = this.#repairing !== undefined || this.#options.monotonicMs() < this.#repairAfterMs;
    if (this.#failure === undefined || waits) return;
    this.#repairing = this.#makeSound()
      .catch((error: unknown) => {
        this.#repairAfterMs = this.#options.monotonicMs() + REPAIR_PAUSE_MS;
        this.#parts.report.repairFailed(error);
      })
      .finally(() => {
        this.#repairing = undefined;
      });
  }

  /** Something waits: it is written behind what is being written. */
  pump(): void {
    this.#pumping ??= this.#drain();
  }

  /** All that waited is on disk or refused, and no repair is under way. */
  async settled(): Promise<void> {
    await this.#pumping;
    await this.#repairing;
  }

  async #drain(): Promise<void> {
    // All appends of this turn of the event loop belong to one group.
    await new Promise(endOfTurn);
    const { waiting, chain } = this.#parts;
    const { meters, monotonicMs } = this.#options;
    for (let group = waiting.oldest(); group !== undefined; group = waiting.oldest()) {
      try {
        if (group.generation !== chain.active.generation) await this.#startSegment(group.generation);
        if (group.bytes > 0) {
          const before = monotonicMs();
          this.#silence.asked(before);
          await chain.write(group.contents);
          await chain.datasync();
          this.#refusal.stored();
          meters.commitSeconds.observe((monotonicMs() - before) / 1000);
          meters.groupEntries.observe(group.entries.length);
        }
        this.#silence.answered();
      } catch (error) {
        this.#silence.answered();
        this.#fail(error);
        break;
      }
      this.#outcomes.stored(group);
    }
    // Within the same step: whoever appends from here on has to start the next drain.
    this.#pumping = undefined;
  }

  /** Its state entry says where the log ends now, not where it will when all that waits is written. */
  async #startSegment(generation: number): Promise<void> {
    const { waiting, chain, end } = this.#parts;
    await this.#silence.during(chain.begin(end.number, generation, end.state(waiting.arrivalMs)));
    end.stateStored();
  }

  #fail(error: unknown): void {
    const { waiting, chain, end, report } = this.#parts;
    const failure = failureOf(this.#options.name, error);
    this.#failure = failure;
    this.#refusal.refused(failure.message);
    const nowMs = this.#options.monotonicMs();
    // A disk that takes small writes and no large ones would have both at once, for ever.
    if (nowMs - this.#repairedMs < REPAIR_PAUSE_MS) this.#repairAfterMs = nowMs + REPAIR_PAUSE_MS;
    if (failure instanceof LogFullError) void chain.makeRoom();
    report.writeFailed(failure);
    const refused = waiting.dropAll();
    end.producers.dropWaiting();
    for (const group of refused) for (const waiter of group.waiters) waiter.failed(failure);
    this.repair();
  }

  /** A crash between the two steps leaves a log that ends where it did; so does a new segment without its state entry. */
  async #makeSound(): Promise<void> {
    const { waiting, chain, end, report } = this.#parts;
    await this.#silence.during(chain.cutBack());
    // One that holds its state alone can be filled still, if only the room lacked: they would be without number.
    const isEmpty = end.number === chain.active.base + 1 && !chain.active.takesNoMore;
    if (!isEmpty || !(this.#failure instanceof LogFullError)) await this.#startSegment(newGeneration());
    waiting.planAnew();
    this.#failure = undefined;
    this.#repairedMs = this.#options.monotonicMs();
    this.#outcomes.repaired();
    report.repaired();
  }
}

/** Written once: a closure for each group would be garbage. */
function endOfTurn(resolve: (value: unknown) => void): void {
  setImmediate(resolve);
}

/** What those hear who handed something in. */
export function failureOf(stream: string, error: unknown): HeadwaterError {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOSPC" || code === "EDQUOT"
    ? new LogFullError(stream, error)
    : new LogWriteError(stream, error);
}
