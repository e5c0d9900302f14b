/** Time, injected everywhere so that tests can turn the hands. */

export interface Clock {
  /** UTC in microseconds since 1970; a safe integer until the year 2255. May jump. */
  nowUs(): number;
  /** Milliseconds that never run backwards; only differences mean anything. */
  monotonicMs(): number;
}

/** What the system's clock is set by; less is how coarse it is told. */
const STEP_MS = 100;
const LOOK_EVERY_MS = 1_000;
/** Between the looks at two clocks the program may be made to wait: then they cannot be compared. */
const APART_MS = 1;

let originMs = performance.timeOrigin;
let lookedMs = 0;

/**
 * The system's time of day, as fine as the monotonic clock. A program may start before NTP has set the
 * clock of its machine, so it follows when somebody does.
 */
export const systemClock: Clock = {
  nowUs: () => {
    const nowMs = performance.now();
    if (nowMs - lookedMs > LOOK_EVERY_MS) follow(nowMs);
    return Math.round((originMs + nowMs) * 1000);
  },
  monotonicMs: () => performance.now(),
};

function follow(nowMs: number): void {
  const wallMs = Date.now();
  if (performance.now() - nowMs > APART_MS) return;
  lookedMs = nowMs;
  if (Math.abs(wallMs - nowMs - originMs) > STEP_MS) originMs = wallMs - nowMs;
}
