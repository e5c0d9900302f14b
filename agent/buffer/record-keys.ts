/**
 * How the record buffer lays out its LevelDB. Keys sort by age.
 *
 *   f/<epoch start>/<sequence>   a frame
 *   t/<epoch start>              the epoch's tail, written with each group commit
 *   h/<epoch start>              the epoch's head, written with each acknowledgement
 *   m/<source>                   a source's mark
 *   x/<epoch start>/<sequence>   a frame that cannot be read; empty: frames from here on are gone
 *
 * Tail and head are apart because two writers change them at the same time.
 */
import { type Epoch, epochName, type FrameSequence } from "../../protocol/frame.ts";

/** Sorts behind every key that begins with the same prefix. */
export const LAST = "\uffff";

const hex = (value: number | bigint, digits: number): string => value.toString(16).padStart(digits, "0");

export const frameKey = (start: number, sequence: FrameSequence): string =>
  `f/${hex(start, 8)}/${hex(sequence, 16)}`;
export const tailKey = (start: number): string => `t/${hex(start, 8)}`;
export const headKey = (start: number): string => `h/${hex(start, 8)}`;
export const markKey = (source: string): string => `m/${source}`;
export const asideKey = (start: number, sequence: FrameSequence): string =>
  `x/${hex(start, 8)}/${hex(sequence, 16)}`;
/** All keys of one kind, or of one epoch in it. */
export const within = (prefix: string): { gte: string; lt: string } => ({
  gte: prefix,
  lt: prefix + LAST,
});

/** The start and the sequence in a key of `f/` or `x/`. */
export function placeInKey(key: string): { start: number; sequence: FrameSequence } {
  return { start: Number.parseInt(key.slice(2, 10), 16), sequence: BigInt(`0x${key.slice(11)}`) };
}

/** What is known of an epoch; `waiting` is what was stored less what was removed. */
export interface EpochState {
  readonly start: number;
  readonly epoch: Epoch;
  /** The last frame on disk; 0n before the first. */
  last: FrameSequence;
  storedRecords: number;
  storedBytes: number;
  /** Frames up to this one were acknowledged or dropped. */
  removedTo: FrameSequence;
  removedRecords: number;
  removedBytes: number;
}

export function newEpochState(start: number, epoch: Epoch): EpochState {
  return {
    start,
    epoch,
    last: 0n,
    storedRecords: 0,
    storedBytes: 0,
    removedTo: 0n,
    removedRecords: 0,
    removedBytes: 0,
  };
}

export const isDrained = (epoch: EpochState): boolean => epoch.removedTo >= epoch.last;
export const waitingRecords = (epoch: EpochState): number =>
  isDrained(epoch) ? 0 : Math.max(0, epoch.storedRecords - epoch.removedRecords);
export const waitingBytes = (epoch: EpochState): number =>
  isDrained(epoch) ? 0 : Math.max(0, epoch.storedBytes - epoch.removedBytes);

export function encodeTail(state: EpochState): Buffer {
  return Buffer.from(
    JSON.stringify([epochName(state.epoch), state.last.toString(), state.storedRecords, state.storedBytes]),
  );
}

export function encodeHead(state: EpochState): Buffer {
  return Buffer.from(JSON.stringify([state.removedTo.toString(), state.removedRecords, state.removedBytes]));
}

/** @throws SyntaxError, TypeError on bytes that `encodeTail` never made. */
export function decodeState(start: number, tail: Buffer, head: Buffer | undefined): EpochState {
  const [epoch, last, storedRecords, storedBytes] = JSON.parse(tail.toString()) as [
    string,
    string,
    number,
    number,
  ];
  const state = newEpochState(start, BigInt(`0x${epoch}`));
  state.last = BigInt(last);
  state.storedRecords = storedRecords;
  state.storedBytes = storedBytes;
  if (head !== undefined) {
    const [removedTo, removedRecords, removedBytes] = JSON.parse(head.toString()) as [string, number, number];
    state.removedTo = BigInt(removedTo);
    state.removedRecords = removedRecords;
    state.removedBytes = removedBytes;
  }
  return state;
}
