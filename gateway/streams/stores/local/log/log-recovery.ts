/**
 * Opens a stream's folder after a clean end or a crash: which segments there are, where the last
 * one ends, what the stream knew.
 */
import { type FileHandle, open, readdir, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import { syncFolder } from "../../../../../runtime/durable.ts";
import { HeadwaterError } from "../../../../../runtime/errors.ts";
import { ENTRY_KIND, type Entry, generationAt, MAGIC_BYTES } from "../../log-entry.ts";
import { PastBadSectors } from "../segments/bad-sectors.ts";
import { LogFile } from "../segments/log-file.ts";
import {
  baseOf,
  readSegmentHead,
  readSidecarOf,
  restOf,
  SEGMENT_HEAD_BYTES,
  Segment,
  type SegmentHead,
  segmentName,
} from "../segments/segment.ts";
import type { Extent, Summary } from "../segments/segment-index.ts";
import { EntryWalk, scanSegment } from "../segments/segment-scan.ts";
import { goneSegments } from "./gone-segments.ts";
import { type ProducerSnapshot, Producers } from "./producers.ts";

const OPENED_AT_ONCE = 8;

/** The body of a state entry: all that must outlive the segments before it. */
export interface StreamState {
  readonly nextOffsets: ReadonlyArray<readonly [number, number]>;
  readonly records: number;
  readonly arrivalMs: number;
  readonly producers: ProducerSnapshot;
}

/** Something that the operator has to hear of. */
export interface Finding {
  readonly what: "torn-tail" | "damage" | "missing";
  readonly file: string;
  readonly extent: Extent;
}

export interface RecoveredLog {
  readonly segments: Segment[];
  /** The last segment's, open for writing. */
  readonly file: LogFile;
  readonly producers: Producers;
  readonly nextOffsets: Map<number, number>;
  readonly records: number;
  /** So many records are known to be lost; a shard without any in `nextOffsets` may have lost as many. */
  readonly lostRecords: number;
  readonly nextNumber: number;
  readonly arrivalMs: number;
  readonly findings: Finding[];
  /** Bases of segments of which the sidecar alone is left. */
  readonly gone: readonly number[];
}

/** Records should be there and are not, not even damaged. */
export class LogMissingError extends HeadwaterError {
  constructor(folder: string) {
    super("STREAM_LOG_MISSING", {
      message: `${folder} holds no segment of the log`,
      // With that file the gateway starts, so that somebody can ask it.
      hint: `restore the folder from a backup; without one, put an empty file ${segmentName(0)} into it, start, and delete the stream by DeleteStream`,
    });
  }
}

/** What the entries add up to, in the order in which they were written. */
class Replay {
  readonly producers = new Producers();
  readonly nextOffsets = new Map<number, number>();
  records = 0;
  lostRecords = 0;
  nextNumber = 0;
  arrivalMs = 0;

  apply(entry: Entry): void {
    this.nextNumber = entry.number + 1;
    if (entry.arrivalMs > this.arrivalMs) this.arrivalMs = entry.arrivalMs;
    if (entry.kind === ENTRY_KIND.state) {
      this.#applyState(entry);
      return;
    }
    const producer = entry.producer();
    if (entry.kind === ENTRY_KIND.forget) {
      if (producer !== undefined) this.producers.forgetProducer(producer);
      return;
    }
    if (producer !== undefined) this.producers.settle(producer);
    // Records that damage took: each shard steps over as many places as it may have lost, so that
    // no offset is ever used twice. A later part of the shard knows better and corrects it.
    const lost = entry.recordsBefore - this.records;
    if (lost > 0) {
      this.lostRecords += lost;
      for (const [shard, next] of this.nextOffsets) this.nextOffsets.set(shard, next + lost);
    }
    this.records = entry.recordsBefore;
    for (const part of entry.parts()) {
      this.nextOffsets.set(part.shard, part.first + part.count);
      this.records += part.count;
    }
  }

  /**
   * What the last segment's sidecar says of it: as much was there when it was closed, also where
   * nothing behind the damage tells of it.
   * @param recordsBefore the stream's, before the segment
   */
  atLeast({ shards, records, nextNumber, newestMs }: Summary, recordsBefore: number): void {
    for (const [shard, { next }] of shards) {
      this.nextOffsets.set(shard, Math.max(next, this.nextOffsets.get(shard) ?? 0));
    }
    this.records = Math.max(this.records, recordsBefore + records);
    this.nextNumber = Math.max(this.nextNumber, nextNumber);
    this.arrivalMs = Math.max(this.arrivalMs, newestMs);
  }

  #applyState(entry: Entry): void {
    const state = JSON.parse(entry.extra().toString("utf8")) as StreamState;
    this.producers.restore(state.producers);
    for (const [shard, next] of state.nextOffsets) this.nextOffsets.set(shard, next);
    this.records = state.records;
    this.arrivalMs = Math.max(this.arrivalMs, state.arrivalMs);
  }
}

/**
 * Cuts a torn tail, makes missing sidecars, and syncs: a killed process may have left entries in
 * the page cache that are sound but not yet on disk, and readers must see only what stays.
 * @param onHousekeepingError hears of a sidecar that cannot be written; the next start tries again
 */
export async function recoverLog(
  folder: string,
  streamId: string,
  onHousekeepingError: (error: unknown) => void = () => {},
): Promise<RecoveredLog> {
  const findings: Finding[] = [];
  const segments = await listSegments(folder, streamId, findings);
  const last = segments.at(-1);
  if (last === undefined) throw new LogMissingError(folder);
  const gone = await goneSegments(folder);
  for (const { path, summary } of [...gone.before, ...gone.behind]) {
    findings.push({ what: "damage", file: path, extent: { from: 0, to: summary.end } });
  }
  const damaged = await eachOf(segments.slice(0, -1), (segment) => openSealed(segment, onHousekeepingError));
  for (const [i, segment] of segments.slice(0, -1).entries()) {
    findings.push(...damaged[i]!);
    // A file that was cut or is gone leaves no bytes to call damaged; the numbers tell.
    if (segment.damage.length === 0 && segment.nextNumber !== segments[i + 1]!.base) {
      findings.push({ what: "missing", file: segment.path, extent: { from: segment.end, to: segment.end } });
    }
  }

  const replay = new Replay();
  let start = segments.length - 1;
  while (start > 0 && !(await beginsWithState(segments[start]!))) start--;
  for (const segment of segments.slice(start, -1)) {
    await withFile(segment.path, "r", async (_, __, reads) => {
      await scanSegment(reads, SEGMENT_HEAD_BYTES, segment.end, segment.generation, "sealed", (entry) =>
        replay.apply(entry),
      );
    });
  }

  const file = await LogFile.open(last.path, "r+");
  try {
    findings.push(...(await recoverLast(last, file, replay)));
    for (const { summary } of gone.behind) replay.atLeast(summary, replay.records);
  } catch (error) {
    await file.close();
    throw error;
  }
  const { producers, nextOffsets, records, lostRecords, nextNumber, arrivalMs } = replay;
  return {
    segments,
    file,
    producers,
    nextOffsets,
    records,
    lostRecords,
    nextNumber,
    arrivalMs,
    findings,
    gone: gone.bases,
  };
}

/** The segment that was written to: read into `replay`, cut where it is torn, and synced. */
async function recoverLast(last: Segment, file: LogFile, replay: Replay): Promise<Finding[]> {
  const findings: Finding[] = [];
  const size = await file.size();
  // A sidecar that fits tells that the log was closed in peace: all that stands there was
  // acknowledged, so bytes that are no entries are damage, in the last group as well.
  const closed = await last.sidecar();
  const mode = closed?.end === size || last.isAnothers ? "sealed" : "torn";
  // Its state took the first number, whatever is left of it: the next segment must not get the same name.
  let expected = last.base + 1;
  let recordsBefore: number | undefined;
  const visit = (entry: Entry, position: number): void => {
    recordsBefore ??= entry.recordsBefore;
    replay.apply(entry);
    noteEntry(last, entry, position);
    expected = entry.number + 1;
  };
  const rest = mode === "torn" ? restOf(last.recycledBytes, size) : "nothing";
  const { generation } = last;
  const from = SEGMENT_HEAD_BYTES;
  const reads = new PastBadSectors(last.path, file.handle);
  const scan = await scanSegment(reads, from, size, generation, mode, visit, rest, closed?.end);
  replay.nextNumber = Math.max(replay.nextNumber, expected);
  if (closed !== undefined) {
    replay.atLeast(closed, recordsBefore ?? replay.records);
    last.reachAsClosed(closed);
  }
  last.end = scan.end;
  last.hasBadEnd = reads.isUnreadableAt(scan.end);
  last.damage.push(...scan.damage);
  for (const extent of scan.damage) findings.push({ what: "damage", file: last.path, extent });
  if (closed !== undefined && closed.end > size) {
    findings.push({ what: "missing", file: last.path, extent: { from: size, to: closed.end } });
  }
  if (scan.tornBytes > 0) {
    const extent = { from: scan.end, to: scan.end + scan.tornBytes };
    findings.push({ what: "torn-tail", file: last.path, extent });
  }
  // What is left of a torn write is sound in part, and must not come to stand behind new entries.
  if (scan.end < size) await file.truncate(scan.end);
  else await file.datasync();
  last.recycledBytes = 0;
  return findings;
}

/** Sound segments in order; what a crash left of one that never began is removed. */
async function listSegments(folder: string, streamId: string, findings: Finding[]): Promise<Segment[]> {
  const bases = (await readdir(folder).catch(noneWhenMissing))
    .map(baseOf)
    .filter((base) => base !== undefined)
    .sort((a, b) => a - b);
  const segments: Segment[] = [];
  const beginnings = await eachOf(bases, (base) =>
    beginningOf(join(folder, segmentName(base)), base, streamId),
  );
  for (const [i, base] of bases.entries()) {
    const path = join(folder, segmentName(base));
    const { head, generation, another } = beginnings[i]!;
    if (i > 0 && i === bases.length - 1 && !(await hasBegun(path, base, another?.generation ?? generation))) {
      await unlink(path);
      await syncFolder(folder);
      break;
    }
    if (head === undefined) {
      findings.push({ what: "damage", file: path, extent: { from: 0, to: SEGMENT_HEAD_BYTES } });
    }
    const segment = new Segment(folder, base, generation ?? 0);
    segment.recycledBytes = head?.recycledBytes ?? 0;
    segment.createdMs = head?.createdMs ?? 0;
    segment.isAnothers = another !== undefined;
    segments.push(segment);
  }
  return segments;
}

/** Returns what is damaged in it. */
async function openSealed(
  segment: Segment,
  onHousekeepingError: (error: unknown) => void,
): Promise<Finding[]> {
  const { size } = await stat(segment.path);
  if (!(await segment.readSidecar(size))) {
    await withFile(segment.path, "r+", async (file, _, reads) => {
      segment.nextNumber = segment.base;
      const visit = (entry: Entry, position: number): void => {
        noteEntry(segment, entry, position);
        segment.nextNumber = entry.number + 1;
      };
      const { generation, recycledBytes } = segment;
      const rest = restOf(recycledBytes, size);
      const scan = await scanSegment(reads, SEGMENT_HEAD_BYTES, size, generation, "sealed", visit, rest);
      segment.end = scan.end;
      segment.damage.push(...scan.damage);
      // A crash kept it from being cut when it was closed. Of entries lost at its end the numbers tell.
      if (scan.end < size) {
        await file.truncate(scan.end);
        await file.datasync();
      }
    });
    // A full disk must not keep the log from being read, nor from giving back what is too old.
    await segment.writeSidecar().then(() => segment.dropPoints(), onHousekeepingError);
  }
  return segment.damage.map((extent) => ({ what: "damage", file: segment.path, extent }));
}

/** Some at a time: each waits for the disk more than it works. */
async function eachOf<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let at = 0; at < items.length; at += OPENED_AT_ONCE) {
    results.push(...(await Promise.all(items.slice(at, at + OPENED_AT_ONCE).map(work))));
  }
  return results;
}

export function noteEntry(segment: Segment, entry: Entry, position: number): void {
  if (entry.kind !== ENTRY_KIND.records) return;
  const parts = entry
    .parts()
    .map(({ shard, first, count, batch }) => ({ shard, first, count, bytes: batch.length }));
  segment.note(position, entry.arrivalMs, parts);
}

async function beginsWithState(segment: Segment): Promise<boolean> {
  return withFile(segment.path, "r", async (_, bytes, reads) => {
    const walk = new EntryWalk(reads, SEGMENT_HEAD_BYTES, bytes, segment.generation);
    let found = walk.next();
    for (let i = 0; i < 3 && found === "read"; i++) {
      await walk.fill();
      found = walk.next();
    }
    return typeof found === "object" && found.kind === ENTRY_KIND.state;
  });
}

/** How a segment's file begins. */
export interface Beginning {
  /** undefined where it is damaged, or another segment's. */
  readonly head: SegmentHead | undefined;
  /** That of its entries; undefined where nothing tells. */
  readonly generation: number | undefined;
  /** A sound head of another stream or another segment: no entry of the file is this one's, and it is not to be written. */
  readonly another?: SegmentHead;
}

export async function beginningOf(path: string, base: number, streamId: string): Promise<Beginning> {
  const head = await readSegmentHead(path);
  if (head?.base === base && head.streamId === streamId) {
    return { head, generation: head.generation };
  }
  const told = (await readSidecarOf(path, base))?.generation;
  if (head === undefined) {
    return { head, generation: told ?? (await anyGeneration(path)) };
  }
  // A sidecar that was put there with the file is another's, too.
  return { head: undefined, generation: told === head.generation ? undefined : told, another: head };
}

/**
 * False for a last segment of which a crash kept the beginning from the disk: head and state entry are
 * one write, and without the second nothing was ever put behind. One that was closed once had begun,
 * whatever is left of it.
 */
export async function hasBegun(path: string, base: number, generation: number | undefined): Promise<boolean> {
  if (generation === undefined) return false;
  if ((await readSidecarOf(path, base))?.generation === generation) return true;
  return withFile(path, "r", async (_, bytes, reads) => {
    const walk = new EntryWalk(reads, SEGMENT_HEAD_BYTES - 1, bytes, generation);
    const { to } = await walk.skipDamage();
    return to < bytes;
  });
}

/** The generation that the first sound entry tells, for a segment whose own head is damaged. */
async function anyGeneration(path: string): Promise<number | undefined> {
  return withFile(path, "r", async (_, bytes, reads) => {
    const walk = new EntryWalk(reads, SEGMENT_HEAD_BYTES - 1, bytes, undefined);
    await walk.skipDamage();
    const found = walk.next();
    return typeof found === "object" && found.bytes.subarray(0, 4).equals(MAGIC_BYTES)
      ? generationAt(found.bytes, 0)
      : undefined;
  });
}

async function withFile<T>(
  path: string,
  flags: string,
  use: (file: FileHandle, bytes: number, reads: PastBadSectors) => Promise<T>,
): Promise<T> {
  const file = await open(path, flags);
  try {
    return await use(file, (await file.stat()).size, new PastBadSectors(path, file));
  } finally {
    await file.close();
  }
}

function noneWhenMissing(error: NodeJS.ErrnoException): string[] {
  if (error.code === "ENOENT") return [];
  throw error;
}
