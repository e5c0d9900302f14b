/**
 * The records of what was read, one by one, with those that the KPL packed into one as what they
 * were. One append may hold 100,000 records, and one pack 170,000: the event loop is everybody's, so
 * they are visited in turns.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { asBuffer, RECORD_HEAD_BYTES, type Run } from "../../protocol/record-batch.ts";
import { forEachUserRecord } from "./kpl-aggregate.ts";

const RECORDS_A_TURN = 512;
/** So many bytes of a payload take a visitor, who parses it, as long as one record more. */
const BYTES_A_RECORD = 512;
/** Of a run, what is visited at once. The KPL packs a record into as little as six bytes. */
const PIECE_BYTES = 16_384;

/** What is needed of a `LogPart`. */
interface Part {
  readonly first: number;
  readonly arrivalMs: number;
  readonly runs: readonly Run[];
}

/**
 * @param payload to be looked at within the call only
 * @param offset the same for all records of a pack
 * @param sub its place in its pack; undefined where there is none
 */
export type UserRecordVisit = (
  payload: Buffer,
  offset: number,
  arrivalMs: number,
  timeUs: number,
  partitionKey: string,
  sub?: number,
) => void;

/** @param between awaited after some hundred records, and at the end; others have their turn meanwhile */
export async function forEachUserRecordInTurns(
  parts: readonly Part[],
  visit: UserRecordVisit,
  between: () => Promise<void> = noWork,
): Promise<void> {
  let visited = 0;
  let first = 0;
  let arrivalMs = 0;
  const each: RunVisit = (payload, timeUs, index, partitionKey, sub) => {
    visited += 1 + Math.floor(payload.length / BYTES_A_RECORD);
    visit(payload, first + index, arrivalMs, timeUs, partitionKey, sub);
  };
  const turn = (): Promise<unknown> => {
    visited = 0;
    return Promise.all([between(), nextTurn()]);
  };
  for (const part of parts) {
    first = part.first;
    arrivalMs = part.arrivalMs;
    for (const run of part.runs) {
      if (run.body.length <= PIECE_BYTES) {
        forEachUserRecord(run, each);
        if (visited >= RECORDS_A_TURN) await turn();
        first += run.count;
        continue;
      }
      for (const piece of piecesOf(run)) {
        for (const visits of visitsOf(piece)) {
          visits(each);
          if (visited >= RECORDS_A_TURN) await turn();
        }
        first += piece.count;
      }
    }
  }
  await between();
}

async function noWork(): Promise<void> {}

type RunVisit = Parameters<typeof forEachUserRecord>[1];

/** A small piece in one visit. A large one is one record: if it is a pack, what is in it comes one by one. */
function visitsOf(piece: Run): ((visit: RunVisit) => void)[] {
  if (piece.body.length <= PIECE_BYTES) return [(visit) => forEachUserRecord(piece, visit)];
  const packed: Parameters<RunVisit>[] = [];
  forEachUserRecord(piece, (...record) => packed.push(record));
  return packed.map((record) => (visit) => visit(...record));
}

/** Runs of the same records in the same order, each of `PIECE_BYTES` or of one record. */
function* piecesOf(run: Run): Generator<Run> {
  const body = asBuffer(run.body);
  let from = 0;
  let count = 0;
  for (let at = 0; at < body.length; ) {
    const end = at + RECORD_HEAD_BYTES + body.readUInt32BE(at);
    if (count > 0 && end - from > PIECE_BYTES) {
      yield { key: run.key, count, body: body.subarray(from, at) };
      from = at;
      count = 0;
    }
    count++;
    at = end;
  }
  yield { key: run.key, count, body: body.subarray(from) };
}
