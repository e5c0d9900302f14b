/**
 * CRC-32C (Castagnoli), the checksum of frames and log entries. RFC 3720 appendix B.4 has test vectors.
 *
 * Long inputs are folded by a small WebAssembly module (crc32c-fold.ts): many times as fast as JavaScript,
 * the copy into its memory included. crc32c-plain.ts is the same in JavaScript.
 */
import { startCrc32cFolder } from "./crc32c-fold.ts";
import { plainCrc32c } from "./crc32c-plain.ts";

/** For less than this the call and the copy cost more than they save. */
const WORTHWHILE_BYTES = 256;

const folder = startCrc32cFolder();

/**
 * @param bytes read from `start` up to, not including, `end`
 * @param seed the result for the bytes before these, 0 for none
 */
export function crc32c(bytes: Uint8Array, start = 0, end = bytes.length, seed = 0): number {
  if (folder === undefined || end - start < WORTHWHILE_BYTES) return plainCrc32c(bytes, start, end, seed);
  const { data, fold } = folder;
  let crc = ~seed;
  let at = start;
  while (end - at >= 16) {
    const size = Math.min(data.length, end - at) & ~15;
    data.set(bytes.subarray(at, at + size));
    crc = fold(0, size, crc);
    at += size;
  }
  return plainCrc32c(bytes, at, end, ~crc >>> 0);
}

/**
 * Of each of several parts that stand one behind the other: `crc32c` of each, without a copy for each.
 * @param start where the first begins @param ends where each ends
 */
export function crc32cOfEach(bytes: Uint8Array, start: number, ends: readonly number[]): number[] {
  const all = (ends.at(-1) ?? start) - start;
  let from = start;
  if (folder === undefined || all < WORTHWHILE_BYTES || all > folder.data.length) {
    return ends.map((end) => {
      const checksum = crc32c(bytes, from, end);
      from = end;
      return checksum;
    });
  }
  const { data, fold } = folder;
  data.set(bytes.subarray(start, start + all));
  return ends.map((end) => {
    const whole = from + ((end - from) & ~15);
    const crc = fold(from - start, whole - start, ~0);
    from = end;
    return plainCrc32c(bytes, whole, end, ~crc >>> 0);
  });
}
