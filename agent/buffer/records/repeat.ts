/** Does work on the disk again that stores nothing, and may fail for want of what comes back: descriptors, memory. */
import { Backoff, pause } from "../../../runtime/backoff.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { SparingLog } from "../../../runtime/sparing-log.ts";
import type { LevelRecordBufferOptions } from "./level-record-options.ts";

const FIRST_PAUSE_MS = 20;
const LONGEST_PAUSE_MS = 1_000;
const PATIENCE_MS = 60_000;

export interface RepeatOptions {
  readonly clock: Clock;
  /** So long whoever waits for it is made to wait. */
  readonly patienceMs: number;
  /** It failed, and will be done again. */
  readonly onRepeat: (cause: unknown) => void;
}

/** Each failure is counted, and a few a minute are logged. */
export function repeatOptions(options: LevelRecordBufferOptions): RepeatOptions {
  const { clock, log, metrics, patienceMs = PATIENCE_MS } = options;
  const spared = new SparingLog(log);
  const repeats = metrics.counter(
    "headwater_buffer_repeats_total",
    "Times that files of the buffer could not be made or removed, and it was tried again",
  );
  return {
    clock,
    patienceMs,
    onRepeat(error) {
      repeats.inc();
      spared.warn(
        clock.nowUs(),
        { error: explanation(error) },
        "files of the buffer cannot be made or removed now",
      );
    },
  };
}

/** LevelDB's own error only says that it is not open; the reason stands in its cause. */
export function explanation(error: unknown): string {
  const { message, cause } = error as Error;
  return cause instanceof Error ? `${message}: ${cause.message}` : message;
}

/**
 * @param waitingSinceMs by the monotonic clock; undefined while nobody waits: there is no hurry then
 * @param signal once aborted, it is not done again
 * @throws what it threw last
 */
export async function repeat<T>(
  work: () => Promise<T>,
  waitingSinceMs: () => number | undefined,
  { clock, patienceMs, onRepeat }: RepeatOptions,
  signal: AbortSignal,
): Promise<T> {
  const backoff = new Backoff(FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const sinceMs = waitingSinceMs();
      const isOver = sinceMs !== undefined && clock.monotonicMs() - sinceMs >= patienceMs;
      if (isOver || signal.aborted) throw error;
      onRepeat(error);
      await pause(FIRST_PAUSE_MS + backoff.nextMs(), signal);
    }
  }
}
