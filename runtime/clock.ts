/** Time, injected everywhere so that tests can turn the hands. */

export interface Clock {
  /** UTC in microseconds since 1970; a safe integer until the year 2255. May jump. */
  nowUs(): number;
  /** Milliseconds that never run backwards; only differences mean anything. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  nowUs: () => Math.round((performance.timeOrigin + performance.now()) * 1000),
  monotonicMs: () => performance.now(),
};
