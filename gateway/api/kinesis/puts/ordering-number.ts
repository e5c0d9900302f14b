/**
 * What PutRecord takes as its SequenceNumberForOrdering; in this gateway it orders nothing further. Kinesis has
 * given out three kinds of sequence numbers in its time, and still takes all of them. In hex digits:
 *
 *   first years   1 | created, s (9) | …                        (the 1 may be missing)
 *   version 1     2 | created, s (9) | … 3 | arrival, s (9) | … 24 | 1
 *   version 2     2 | created, s (9) | 1 | offset (16) | 2 | arrival, s (9) | shard index (8) | 2
 */
const FIRST_YEARS = 2n ** 125n;
const FIRST_YEARS_REST_BITS = 88n;
const NINE_HEX_DIGITS = 2n ** 36n - 1n;
const HEX_DIGITS = 47;
/** Of 47 hex digits that begin with a 2. */
const DECIMAL_DIGITS = 56;
/** AWS reads no later date than this one in the year 2477. */
const MAX_CREATED_SECONDS = 16_025_175_000;
/** Clocks of gateways before one cluster may differ. */
const MAX_AHEAD_SECONDS = 10;

/**
 * Whether AWS would take it; it may come from another shard, or from another stream.
 * @param text decimal digits
 */
export function isOrderingNumber(text: string, nowMs: number): boolean {
  if (text.length > DECIMAL_DIGITS) return false;
  const number = BigInt(text);
  if (number < FIRST_YEARS) {
    return Number((number >> FIRST_YEARS_REST_BITS) & NINE_HEX_DIGITS) < MAX_CREATED_SECONDS;
  }
  const digits = number.toString(16);
  if (digits.length !== HEX_DIGITS || digits[0] !== "2") return false;
  if (seconds(digits, 1) >= MAX_CREATED_SECONDS) return false;
  const latestSeconds = nowMs / 1000 + MAX_AHEAD_SECONDS;
  const version = digits.at(-1);
  if (version === "1") return seconds(digits, 13) <= latestSeconds;
  // Both numbers are signed ones of Java's, and none of them was ever negative.
  return version === "2" && digits[11]! < "8" && digits[38]! < "8" && seconds(digits, 29) <= latestSeconds;
}

function seconds(digits: string, from: number): number {
  return Number.parseInt(digits.slice(from, from + 9), 16);
}
