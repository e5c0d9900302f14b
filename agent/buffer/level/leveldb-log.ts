/**
 * Reads the files that LevelDB itself writes one record behind another, its write-ahead logs and
 * its MANIFEST, and finds the damage that LevelDB passes over in silence.
 *
 * Format (LevelDB, doc/log_format.md): blocks of 32 KiB; in them records of
 * u32 masked crc32c of type and payload | u16 length | u8 type | payload, all little-endian;
 * less than 7 bytes at a block's end are padding.
 */
import { crc32c } from "../../../runtime/crc32c.ts";

export const BLOCK_BYTES = 32_768;
export const LOG_HEAD_BYTES = 7;
const MASK_DELTA = 0xa282ead8;

/** LevelDB stores CRCs masked, because a CRC over bytes that hold CRCs is weak. */
export function unmaskCrc(masked: number): number {
  const rotated = (masked - MASK_DELTA) >>> 0;
  return ((rotated >>> 17) | (rotated << 15)) >>> 0;
}

/**
 * The offset of the first record that was written whole and is not what was written; undefined
 * where there is none. A record that runs over the end of the file, or zeros, is what a power cut
 * leaves of a write that nobody was told of: that is no damage, unless the file was known to be whole.
 */
export function findLogDamage(file: Buffer, expected: "growing" | "whole" = "growing"): number | undefined {
  let at = 0;
  const torn = (): number | undefined => (expected === "whole" ? at : undefined);
  while (at + LOG_HEAD_BYTES <= file.length) {
    const blockLeft = BLOCK_BYTES - (at % BLOCK_BYTES);
    if (blockLeft < LOG_HEAD_BYTES) {
      at += blockLeft;
      continue;
    }
    const length = file.readUInt16LE(at + 4);
    const type = file[at + 6]!;
    if (type === 0 && length === 0) {
      // Zeros to the end are a tail that was allocated and never written; zeros in between are not.
      if (isZero(file, at)) return torn();
      const next = at + blockLeft;
      if (!isZero(file, at, Math.min(next, file.length))) return at;
      at = next;
      continue;
    }
    const end = at + LOG_HEAD_BYTES + length;
    if (end > file.length && LOG_HEAD_BYTES + length <= blockLeft) return torn();
    if (type > 4 || LOG_HEAD_BYTES + length > blockLeft) return at;
    if (crc32c(file, at + 6, end) !== unmaskCrc(file.readUInt32LE(at))) return at;
    at = end;
  }
  return at < file.length || at === 0 ? torn() : undefined;
}

function isZero(file: Buffer, from: number, to = file.length): boolean {
  for (let at = from; at < to; at++) if (file[at] !== 0) return false;
  return true;
}
