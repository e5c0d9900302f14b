/**
 * Sequence numbers as Kinesis writes them: 56 decimal digits that hold 47 hex digits, version 2.
 *
 *   2 | shard created, s (9) | shard index mod 16 (1) | offset (16) | 00 | arrival, s (9) | shard index (8) | 2
 *
 * The offset stands before the arrival time, so numbers rise strictly within a shard. Times keep
 * their seconds only. What stands here is a place, not a secret: anybody can make one up.
 */
import { HeadwaterError } from "../../runtime/errors.ts";

export interface SequenceParts {
  /** When the shard was made; milliseconds are cut off to the second. */
  readonly shardCreatedMs: number;
  readonly shardIndex: number;
  readonly offset: number;
  /** When the record arrived; milliseconds are cut off to the second. */
  readonly arrivalMs: number;
}

/** The text is no sequence number that this program gave out. */
export class BadSequenceNumberError extends HeadwaterError {
  constructor(text: string) {
    super("BAD_SEQUENCE_NUMBER", { message: `${JSON.stringify(text.slice(0, 64))} is no sequence number` });
  }
}

const HEX_DIGITS = 47;
const MAX_SECONDS = 0xf_ffff_ffff;
const MAX_SHARD_INDEX = 0x7fff_ffff;

export function formatSequenceNumber(parts: SequenceParts): string {
  const index = parts.shardIndex;
  return BigInt(
    `0x2${hex(seconds(parts.shardCreatedMs), 9)}${(index % 16).toString(16)}${hex(parts.offset, 16)}00${hex(
      seconds(parts.arrivalMs),
      9,
    )}${hex(index, 8)}2`,
  ).toString();
}

/** @throws BadSequenceNumberError for anything that `formatSequenceNumber` does not give. */
export function parseSequenceNumber(text: string): SequenceParts {
  // The length is checked before BigInt sees it: a megabyte of digits would cost seconds.
  if (!/^[1-9]\d{55}$/.test(text)) throw new BadSequenceNumberError(text);
  const digits = BigInt(text).toString(16);
  if (digits.length !== HEX_DIGITS || digits[0] !== "2" || digits[46] !== "2") {
    throw new BadSequenceNumberError(text);
  }
  const parts = {
    shardCreatedMs: Number.parseInt(digits.slice(1, 10), 16) * 1000,
    shardIndex: Number.parseInt(digits.slice(38, 46), 16),
    offset: Number.parseInt(digits.slice(11, 27), 16),
    arrivalMs: Number.parseInt(digits.slice(29, 38), 16) * 1000,
  };
  const sound =
    digits.slice(27, 29) === "00" &&
    parts.shardIndex <= MAX_SHARD_INDEX &&
    parts.shardIndex % 16 === Number.parseInt(digits[10]!, 16) &&
    Number.isSafeInteger(parts.offset);
  if (!sound) throw new BadSequenceNumberError(text);
  return parts;
}

function seconds(ms: number): number {
  return Math.min(Math.max(0, Math.floor(ms / 1000)), MAX_SECONDS);
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}
