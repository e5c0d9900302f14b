/** Integers of 64 bits: JSON's numbers are exact up to 2^53 only. */

/** As a number where that is exact, else as text. */
export function exact(value: bigint): number | string {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value.toString();
}
