/** At an open: what each epoch should hold, by what was written down, against what its parts do hold. */
import type { FrameSequence } from "../../../protocol/frame.ts";
import { type ChainPart, holesIn, type PartScan } from "./chain-part.ts";
import { type EpochState, newEpochState, noteGone } from "./epoch-ledger.ts";
import type { Sidecar, SidecarEpoch } from "./sidecar.ts";

/** What was written down beside the databases. */
export interface Promises {
  /** Undefined when it is missing or damaged. */
  readonly sidecar: Sidecar | undefined;
  readonly ends: Sidecar | undefined;
  /** Of the two, the one that was written last. */
  readonly latest: Sidecar | undefined;
  readonly damage: string[];
  readonly damagedFiles: readonly string[];
  /** There is no sidecar at all. */
  readonly isMissing: boolean;
}

export interface Settled {
  /** Oldest first. */
  readonly epochs: EpochState[];
  readonly damage: string[];
  readonly lostRecords: number;
}

type Ranges = [FrameSequence, FrameSequence][];

/**
 * @param parts those that hold frames, oldest first
 * @param scans of the parts that were read
 * @param scan reads one more, where a head stands within it
 */
export async function settleEpochs(
  promises: Promises,
  parts: readonly ChainPart[],
  scans: Map<ChainPart, PartScan>,
  scan: (part: ChainPart) => Promise<PartScan>,
): Promise<Settled> {
  const damage: string[] = [];
  const epochs: EpochState[] = [];
  let lostRecords = 0;
  for (const start of startsOf(promises, parts)) {
    const mine = parts.filter((part) => part.epochStart === start);
    const promised = [promises.sidecar, promises.ends]
      .filter((each) => each !== undefined)
      .sort((a, b) => a.serial - b.serial)
      .flatMap(({ epochs: all }) => all.filter((epoch) => epoch.start === start));
    const state = await settleEpoch(start, mine, promised, scans, scan);
    const missing = missingRanges(state, mine, promised, scans);
    for (const [from, to] of missing) {
      damage.push(`epoch ${start} lacks frames ${from} to ${to}`);
      noteGone(state, from, to);
    }
    const hadWaiting = promised.at(-1)?.waitingRecords ?? 0;
    if (missing.length > 0) lostRecords += Math.max(0, hadWaiting - state.waitingRecords);
    epochs.push(state);
  }
  return { epochs, damage, lostRecords };
}

function startsOf({ sidecar, ends }: Promises, parts: readonly ChainPart[]): number[] {
  const starts = new Set(parts.map((part) => part.epochStart));
  // An epoch that the sidecar does not name any more is forgotten.
  for (const { start } of (sidecar ?? ends)?.epochs ?? []) starts.add(start);
  return [...starts].sort((a, b) => a - b);
}

async function settleEpoch(
  start: number,
  parts: readonly ChainPart[],
  promised: readonly SidecarEpoch[],
  scans: Map<ChainPart, PartScan>,
  scan: (part: ChainPart) => Promise<PartScan>,
): Promise<EpochState> {
  const state = newEpochState(start, parts[0]?.epoch ?? promised[0]!.epoch);
  const heads = promised.map((each) => each.removedTo);
  // Without any word of the head, what is not there counts as acknowledged.
  if (heads.length === 0 && parts[0] !== undefined) heads.push(parts[0].first - 1n);
  state.removedTo = max(...heads);
  state.last = max(...promised.map((each) => each.last), ...parts.map((part) => part.last));
  for (const part of parts) {
    if (part.last <= state.removedTo) continue;
    if (part.first <= state.removedTo) {
      const read = scans.get(part) ?? (await scan(part));
      scans.set(part, read);
      for (const [sequence, size] of read.frames) {
        if (sequence > state.removedTo) continue;
        part.removedRecords += size.records;
        part.removedBytes += size.bytes;
      }
    }
    state.waitingRecords += part.records - part.removedRecords;
    state.waitingBytes += part.bytes - part.removedBytes;
  }
  state.told = promised.flatMap((each) => each.gone);
  for (const [from, to] of state.told) noteGone(state, from, to);
  return state;
}

/** What should be there and is not, and was not told of yet. */
function missingRanges(
  state: EpochState,
  parts: readonly ChainPart[],
  promised: readonly SidecarEpoch[],
  scans: ReadonlyMap<ChainPart, PartScan>,
): Ranges {
  const missing: Ranges = [];
  let expected = state.removedTo + 1n;
  const skipGone = (): void => {
    for (const [from, to] of state.gone) if (from <= expected && to >= expected) expected = to + 1n;
  };
  for (const part of parts) {
    skipGone();
    if (part.last < expected) continue;
    if (part.first > expected) missing.push([expected, part.first - 1n]);
    const from = part.first > expected ? part.first : expected;
    const read = scans.get(part);
    // Holes of a sealed part are told of when it is read.
    if (read !== undefined && !part.sealed) missing.push(...holesIn(read.frames, from, part.last));
    expected = part.last + 1n;
  }
  skipGone();
  const promisedLast = max(...promised.map((each) => each.last));
  if (promisedLast >= expected) missing.push([expected, promisedLast]);
  return missing;
}

const max = (...values: bigint[]): bigint => values.reduce((a, b) => (a > b ? a : b), 0n);
