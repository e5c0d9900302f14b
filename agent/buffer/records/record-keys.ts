/**
 * How the record buffer lays out its small databases.
 *
 *   f/<epoch start>/<sequence>   a frame
 *   m/<source>                   a source's mark; an empty one removes it
 *   g/<generation>               the marks up to here are all that there were (mark-store.ts)
 */
import type { FrameSequence } from "../../../protocol/frame.ts";

export const framePrefix = "f/";
export const markPrefix = "m/";
export const generationPrefix = "g/";

const hex = (value: number | bigint, digits: number): string => value.toString(16).padStart(digits, "0");

export const frameKey = (start: number, sequence: FrameSequence): string =>
  `${framePrefix}${hex(start, 8)}/${hex(sequence, 16)}`;
export const markKey = (source: string): string => markPrefix + source;

const FRAME_KEY = /^f\/([0-9a-f]{8})\/([0-9a-f]{16})$/;

/** @returns undefined for what `frameKey` never made */
export function placeInKey(key: string): { start: number; sequence: FrameSequence } | undefined {
  const parts = FRAME_KEY.exec(key);
  if (parts === null) return undefined;
  return { start: Number.parseInt(parts[1]!, 16), sequence: BigInt(`0x${parts[2]}`) };
}
