/**
 * Removes from the local store's streams what is older than each keeps: once a minute, and when
 * asked. One run at a time; a run that a jump of the wall clock holds removes nothing
 * (runtime/retention-guard.ts). A crash in between leaves the rest to the next run.
 */
import type { Clock } from "../../../../runtime/clock.ts";
import { describeError } from "../../../../runtime/errors.ts";
import type { Log } from "../../../../runtime/log.ts";
import { HOLD_MS, RetentionGuard } from "../../../../runtime/retention-guard.ts";
import { StreamNotFoundError, StreamsClosedError } from "../../streams.ts";
import type { LocalStream } from "./local-stream.ts";
import type { LogMeters } from "./log/log-meters.ts";

const EVERY_MS = 60_000;

export interface RetentionOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly meters: LogMeters;
  /** Those that there are, by name: a run does not come to one that is gone by then. */
  readonly streams: ReadonlyMap<string, LocalStream>;
}

export class Retention {
  readonly #options: RetentionOptions;
  readonly #guard: RetentionGuard;
  #timer: NodeJS.Timeout | undefined;
  /** Never fails: who waits for a run to end need not care for how it did. */
  #last: Promise<void> = Promise.resolve();
  /** Where the run is; `done` never fails. */
  #at: { readonly stream: LocalStream; readonly done: Promise<void> } | undefined;
  #closed = false;

  constructor(options: RetentionOptions) {
    this.#options = options;
    this.#guard = new RetentionGuard(options.clock);
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.enforce().catch((error: unknown) => {
        this.#options.log.error({ error: describeError(error) }, "retention failed");
      });
    }, EVERY_MS);
    this.#timer.unref();
  }

  /** A run of its own, behind the one that is under way. */
  enforce(): Promise<void> {
    const run = this.#last.then(() => this.#removeOld());
    this.#last = run.catch(() => undefined);
    return run;
  }

  /** What is under way in this one stream has ended, however. */
  async settled(stream: LocalStream): Promise<void> {
    if (this.#at?.stream === stream) await this.#at.done;
  }

  /** A run ends with the stream that it is at: hundreds of them, each with a new segment, may take longer than a close may. Safe to call twice. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    await this.#last;
  }

  async #removeOld(): Promise<void> {
    const { clock, log, meters, streams } = this.#options;
    // Once, and before the guard looks: while a stream is cleaned up the clock may jump, ahead or back.
    const nowMs = Math.floor(clock.nowUs() / 1000);
    const { hold, jumpedMs } = this.#guard.look();
    if (jumpedMs !== undefined) {
      meters.retentionHolds.inc();
      const fields = { aheadHours: jumpedMs / 3_600_000, heldHours: HOLD_MS / 3_600_000 };
      log.error(fields, "the wall clock jumped ahead; retention removes nothing for now");
    }
    if (hold) return;
    // One stream's trouble is not the others'.
    const failures: unknown[] = [];
    for (const [name, stream] of [...streams]) {
      if (this.#closed) break;
      if (streams.get(name) !== stream) continue;
      const done = removeOldOf(stream, nowMs).catch((error: unknown) => void failures.push(error));
      this.#at = { stream, done };
      await done;
    }
    this.#at = undefined;
    if (failures.length > 0) throw failures[0];
  }
}

async function removeOldOf(stream: LocalStream, nowMs: number): Promise<void> {
  const cutoffMs = nowMs - stream.definition.record.retentionHours * 3_600_000;
  try {
    await stream.log.removeBefore(cutoffMs, nowMs);
    await stream.expireShards(cutoffMs, nowMs);
  } catch (error) {
    // Deleted meanwhile, or closed.
    if (!(error instanceof StreamNotFoundError) && !(error instanceof StreamsClosedError)) throw error;
  }
}
