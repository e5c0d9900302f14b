/** What the database says of its epochs, and, where it was damaged, what its frames say themselves. */
import { decodeFrame, type FrameSequence } from "../../protocol/frame.ts";
import { type Database, type Operation, writeSynced } from "./leveldb.ts";
import {
  asideKey,
  decodeState,
  type EpochState,
  encodeHead,
  encodeTail,
  headKey,
  newEpochState,
  placeInKey,
  tailKey,
  within,
} from "./record-keys.ts";
import type { Sidecar } from "./sidecar.ts";

const BATCH_OPERATIONS = 1_000;

/** Oldest first. What belongs to epochs before `floorStart` is deleted: a power cut may bring it back. */
export async function loadEpochs(database: Database, floorStart: number): Promise<EpochState[]> {
  const epochs: EpochState[] = [];
  for await (const [key, tail] of database.iterator(within("t/"))) {
    const start = Number.parseInt(key.slice(2), 16);
    const head = (await database.get(headKey(start))) as Buffer | undefined;
    if (start >= floorStart) epochs.push(decodeState(start, tail, head));
    else await writeSynced(database, [del(key), del(headKey(start))]);
  }
  for (const kind of ["f/", "x/"]) {
    await database.clear({ gte: kind, lt: kind + floorStart.toString(16).padStart(8, "0") });
  }
  return epochs;
}

/**
 * Reads every frame that is there and makes the epochs' heads and tails agree with them. A frame
 * that does not decode is set aside; a hole is marked, so that it is reported once.
 * @param damage gets what was found
 */
export async function salvage(
  database: Database,
  sidecar: Sidecar | undefined,
  damage: string[],
): Promise<EpochState[]> {
  const known = new Map<number, EpochState>();
  try {
    for (const epoch of await loadEpochs(database, sidecar?.floorStart ?? 0)) known.set(epoch.start, epoch);
  } catch (error) {
    damage.push(`epochs cannot be read: ${(error as Error).message}`);
  }
  const work: Operation[] = [];
  const flush = async (atLeast: number): Promise<void> => {
    if (work.length >= atLeast) await writeSynced(database, work.splice(0));
  };
  const found = new Map<number, Found>();
  for await (const [key, bytes] of database.iterator(within("f/"))) {
    const { start, sequence } = placeInKey(key);
    try {
      const frame = decodeFrame(bytes);
      const removedTo = known.get(start)?.removedTo ?? 0n;
      if (sequence <= removedTo) work.push(del(key));
      else {
        const epoch = found.get(start) ?? {
          epoch: frame.epoch,
          last: removedTo,
          records: 0,
          bytes: 0,
          holes: [],
        };
        if (sequence > epoch.last + 1n) epoch.holes.push([epoch.last + 1n, sequence - 1n]);
        epoch.last = sequence;
        epoch.records += frame.recordCount;
        epoch.bytes += bytes.length;
        found.set(start, epoch);
      }
    } catch (error) {
      damage.push(`frame ${sequence} of epoch ${start}: ${(error as Error).message}`);
      work.push({ type: "put", key: asideKey(start, sequence), value: bytes }, del(key));
    }
    await flush(BATCH_OPERATIONS);
  }
  const epochs = settleEpochs(known, found, sidecar, damage, work);
  await flush(1);
  return epochs;
}

interface Found {
  readonly epoch: bigint;
  last: FrameSequence;
  records: number;
  bytes: number;
  holes: [FrameSequence, FrameSequence][];
}

function settleEpochs(
  known: Map<number, EpochState>,
  found: Map<number, Found>,
  sidecar: Sidecar | undefined,
  damage: string[],
  work: Operation[],
): EpochState[] {
  const promised = new Map(sidecar?.epochs.map((epoch) => [epoch.start, epoch]));
  const starts = [...new Set([...known.keys(), ...found.keys(), ...promised.keys()])].sort((a, b) => a - b);
  return starts.map((start) => {
    const frames = found.get(start);
    const promise = promised.get(start);
    const before = known.get(start);
    const state = newEpochState(start, frames?.epoch ?? before?.epoch ?? promise!.epoch);
    state.removedTo = max(before?.removedTo ?? 0n, frames === undefined ? (promise?.removedTo ?? 0n) : 0n);
    const reached = frames?.last ?? state.removedTo;
    const promisedLast = max(reached, before?.last ?? 0n, promise?.last ?? 0n);
    state.last = frames === undefined ? promisedLast : reached;
    state.storedRecords = frames?.records ?? 0;
    state.storedBytes = frames?.bytes ?? 0;
    const holes = [...(frames?.holes ?? [])];
    if (promisedLast > reached) holes.push([reached + 1n, promisedLast]);
    for (const [begin, to] of holes) {
      // A head that was lost with LevelDB makes frames that were acknowledged look missing.
      const from = max(begin, (promise?.removedTo ?? 0n) + 1n);
      if (to < from) continue;
      damage.push(`epoch ${start} lacks frames ${from} to ${to}`);
      work.push({ type: "put", key: asideKey(start, begin), value: Buffer.alloc(0) });
    }
    if (frames === undefined) state.removedTo = state.last;
    work.push({ type: "put", key: tailKey(start), value: encodeTail(state) });
    work.push({ type: "put", key: headKey(start), value: encodeHead(state) });
    return state;
  });
}

const del = (key: string): Operation => ({ type: "del", key });
const max = (...values: bigint[]): bigint => values.reduce((a, b) => (a > b ? a : b));
