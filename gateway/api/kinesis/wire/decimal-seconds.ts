/**
 * Seconds since 1970 as JSON has them, written without a string. V8 remembers the string of each number that
 * it has turned into one, so that each arrival time lived on through scavenges and into old space.
 */

const ZERO = 0x30;
const POINT = 0x2e;
/** Thirteen digits: a double tells all of them apart, and none needs an exponent. */
const MAX_MS = 9_999_999_999_999;

/** As `String(ms / 1000)`. @returns how many bytes it wrote at `at`, at most 24 */
export function writeSeconds(memory: Buffer, at: number, ms: number): number {
  if (!Number.isInteger(ms) || ms < 0 || ms > MAX_MS) return memory.write(String(ms / 1_000), at, "latin1");
  const seconds = Math.floor(ms / 1_000);
  let digits = 1;
  for (let power = 10; seconds >= power; power *= 10) digits++;
  let rest = seconds;
  for (let i = at + digits - 1; i >= at; i--) {
    const above = Math.floor(rest / 10);
    memory[i] = ZERO + rest - 10 * above;
    rest = above;
  }
  const thousandths = ms - 1_000 * seconds;
  if (thousandths === 0) return digits;
  const end = at + digits;
  const hundredths = Math.floor(thousandths / 10);
  memory[end] = POINT;
  memory[end + 1] = ZERO + Math.floor(hundredths / 10);
  memory[end + 2] = ZERO + (hundredths % 10);
  memory[end + 3] = ZERO + (thousandths % 10);
  // JSON.stringify writes no zeros at the end.
  if (thousandths % 10 > 0) return digits + 4;
  return thousandths % 100 > 0 ? digits + 3 : digits + 2;
}
