/**
 * Checks a folder of streams while nobody has it open, and changes nothing in it.
 *
 *   format.json, streams.json, a copy of meta/ → every segment, entry by entry → what is wrong, and where
 *
 * Records are looked at down to their lengths. What a crash may leave is told apart from damage: a
 * torn tail was never acknowledged, and the next start cuts it off.
 */
import { type FileHandle, mkdtemp, open, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { decodeBatch } from "../../../../protocol/record-batch.ts";
import { describeError } from "../../../../runtime/errors.ts";
import { DatabaseWriteError } from "../../../../runtime/synced-level.ts";
import { ENTRY_KIND, type Entry } from "../log-entry.ts";
import { condemnedStreams } from "./condemned-streams.ts";
import { goneSegments } from "./log/gone-segments.ts";
import { beginningOf, hasBegun } from "./log/log-recovery.ts";
import { type ConsumerRecord, Metadata, type StoredStream, type StreamRecord } from "./metadata.ts";
import { PastBadSectors } from "./segments/bad-sectors.ts";
import { baseOf, restOf, SEGMENT_HEAD_BYTES, Segment, segmentName } from "./segments/segment.ts";
import { scanSegment } from "./segments/segment-scan.ts";
import {
  copyReadable,
  listReadable,
  refuseCopy,
  refuseForeign,
  refuseUnfit,
  VerifyRefusedError,
} from "./unfit-folder.ts";

export { VerifyRefusedError } from "./unfit-folder.ts";

const STREAM_ID = /^[0-9a-f]{32}$/;

/** `torn` is what a crash leaves and the next start mends; `damage` is loss. */
export interface VerifyFinding {
  readonly kind: "damage" | "torn";
  /** Empty where no stream is concerned. */
  readonly stream: string;
  /** Relative to the folder. */
  readonly file: string;
  /** Bytes of the file; undefined where it is missing or no place can be told. */
  readonly from?: number;
  readonly to?: number;
  readonly detail: string;
}

export interface VerifyReport {
  readonly streams: number;
  readonly segments: number;
  readonly entries: number;
  readonly records: number;
  readonly bytes: number;
  readonly findings: readonly VerifyFinding[];
}

/**
 * @param dir the folder of the streams alone
 * @param progress called after each segment
 * @throws VerifyRefusedError when it is no such folder, or in use
 */
export async function verifyLocalStreams(
  dir: string,
  progress: (stream: string, bytes: number) => void = () => {},
): Promise<VerifyReport> {
  await refuseUnfit(dir);
  const check = new FolderCheck(dir, progress);
  await check.run();
  return check.report();
}

interface KnownStream {
  readonly stored: StoredStream;
  readonly consumers: readonly ConsumerRecord[];
}

/** Read whole before anything is checked: where a part of it is damaged, the records are looked at without it. */
async function readStreams(copy: string): Promise<KnownStream[]> {
  const metadata = await Metadata.open(copy);
  try {
    const known: KnownStream[] = [];
    for (const stored of await metadata.activeStreams()) {
      known.push({ stored, consumers: await metadata.consumers(stored.record.streamId) });
    }
    return known;
  } finally {
    await metadata.close();
  }
}

interface SegmentPlace {
  readonly path: string;
  readonly base: number;
  readonly isFirst: boolean;
  readonly isLast: boolean;
}

class FolderCheck {
  readonly #dir: string;
  readonly #progress: (stream: string, bytes: number) => void;
  readonly #findings: VerifyFinding[] = [];
  #streams = 0;
  #segments = 0;
  #entries = 0;
  #records = 0;
  #bytes = 0;

  constructor(dir: string, progress: (stream: string, bytes: number) => void) {
    this.#dir = dir;
    this.#progress = progress;
  }

  report(): VerifyReport {
    return {
      streams: this.#streams,
      segments: this.#segments,
      entries: this.#entries,
      records: this.#records,
      bytes: this.#bytes,
      findings: this.#findings,
    };
  }

  async run(): Promise<void> {
    const known = await this.#knownStreams();
    if (known === undefined) return this.#checkWithoutMetadata();
    const condemned = await condemnedStreams(this.#dir).catch((): string[] => []);
    for (const { stored, consumers } of known) {
      if (condemned.includes(stored.record.streamId)) continue;
      const ends = await this.#checkStream(stored.record);
      this.#checkShards(stored.record, ends);
      this.#checkConsumers(consumers, stored, ends);
    }
  }

  /** undefined where the metadata is damaged. @throws VerifyRefusedError */
  async #knownStreams(): Promise<readonly KnownStream[] | undefined> {
    const copy = await mkdtemp(join(tmpdir(), "headwater-verify-")).catch(refuseCopy);
    try {
      // LevelDB writes when it is opened, and may throw away what it cannot make sense of.
      for (const name of ["format.json", "streams.json", "meta"]) {
        await copyReadable(join(this.#dir, name), join(copy, name));
      }
      return await readStreams(copy);
    } catch (error) {
      if (error instanceof VerifyRefusedError) throw error;
      if (error instanceof DatabaseWriteError) refuseCopy(error);
      const detail = describeError(error).replaceAll(copy, this.#dir);
      this.#findings.push({ kind: "damage", stream: "", file: "meta", detail });
      return undefined;
    } finally {
      await rm(copy, { recursive: true, force: true });
    }
  }

  /** The records may be sound even when nobody knows any more what their streams are called. */
  async #checkWithoutMetadata(): Promise<void> {
    const names = await listReadable(join(this.#dir, "logs"));
    for (const streamId of names.filter((name) => STREAM_ID.test(name))) {
      await this.#checkStream({ name: streamId, streamId });
    }
  }

  async #checkStream({
    name,
    streamId,
  }: Pick<StreamRecord, "name" | "streamId">): Promise<Map<number, number>> {
    this.#streams++;
    const folder = join(this.#dir, "logs", streamId);
    const bases = (await listReadable(folder))
      .map(baseOf)
      .filter((base) => base !== undefined)
      .sort((a, b) => a - b);
    const walk = new StreamWalk();
    if (bases.length === 0) this.#find("damage", name, folder, "the log has no segment");
    for (const [i, base] of bases.entries()) {
      const path = join(folder, segmentName(base));
      const place = { path, base, isFirst: i === 0, isLast: i === bases.length - 1 };
      await this.#checkSegment(name, streamId, place, walk).catch((error: NodeJS.ErrnoException) => {
        if (error.syscall === undefined) throw error;
        refuseForeign(error);
        // A bad sector, most likely. The others are looked at all the same.
        this.#find("damage", name, path, `cannot be read: ${error.message}`);
      });
    }
    if (bases.length > 0) await this.#checkGone(name, folder);
    return walk.next;
  }

  /** Those in between show by their numbers. */
  async #checkGone(stream: string, folder: string): Promise<void> {
    const { before, behind } = await goneSegments(folder);
    for (const { path, summary } of [...before, ...behind]) {
      const detail = `the segment is gone, with ${summary.records} records`;
      this.#find("damage", stream, path, detail, { from: 0, to: summary.end });
    }
  }

  async #checkSegment(
    stream: string,
    streamId: string,
    place: SegmentPlace,
    walk: StreamWalk,
  ): Promise<void> {
    const { path, base, isFirst, isLast } = place;
    this.#segments++;
    const { head, generation, another } = await beginningOf(path, base, streamId);
    if (isLast && !isFirst && !(await hasBegun(path, base, another?.generation ?? generation))) {
      const { size } = await stat(path);
      this.#find("torn", stream, path, "a segment that had not begun", { from: 0, to: size });
      return;
    }
    if (head === undefined) {
      const detail = another ? "it is another stream's, or another segment" : "its head is not sound";
      this.#find("damage", stream, path, detail, { from: 0, to: SEGMENT_HEAD_BYTES });
    }
    if (walk.nextNumber !== undefined && walk.nextNumber !== base) {
      const detail = `entries ${walk.nextNumber} to ${base - 1} are missing before ${segmentName(base)}`;
      this.#find("damage", stream, path, detail);
    }
    // What opening takes for the generation where no entry tells one.
    const segment = new Segment(dirname(path), base, generation ?? 0);
    segment.recycledBytes = head?.recycledBytes ?? 0;
    segment.isAnothers = another !== undefined;
    const file = await open(path, "r");
    try {
      await this.#checkEntries(stream, file, segment, isLast, walk);
    } finally {
      await file.close();
    }
  }

  async #checkEntries(
    stream: string,
    file: FileHandle,
    segment: Segment,
    isLast: boolean,
    walk: StreamWalk,
  ): Promise<void> {
    const { path, generation, recycledBytes } = segment;
    const { size } = await file.stat();
    const closed = await segment.sidecar();
    const isCut = closed?.end === size;
    // The file of an open log, or of one that a crash ended, may be longer than what it holds.
    const tail = !isLast || isCut || segment.isAnothers ? "sealed" : "torn";
    const rest = isCut ? "nothing" : restOf(recycledBytes, size);
    const visit = (entry: Entry, position: number): void => {
      this.#entries++;
      this.#records += walk.take(entry, (detail) => {
        this.#find("damage", stream, path, detail, { from: position, to: position + entry.bytes.length });
      });
    };
    const from = SEGMENT_HEAD_BYTES;
    const reads = new PastBadSectors(path, file);
    const scan = await scanSegment(reads, from, size, generation, tail, visit, rest, closed?.end);
    for (const extent of scan.damage) {
      this.#find("damage", stream, path, "bytes that are no entries", extent);
    }
    if (isLast && closed !== undefined && closed.end > size) {
      const detail = "entries that stood here when it was closed are missing";
      this.#find("damage", stream, path, detail, { from: size, to: closed.end });
    }
    if (scan.tornBytes > 0 && tail === "torn") {
      this.#find("torn", stream, path, "the rest of a write that never ended", {
        from: scan.end,
        to: scan.end + scan.tornBytes,
      });
    }
    this.#bytes += scan.end;
    this.#progress(stream, this.#bytes);
  }

  /** As opening does: metadata that went back to before a split or a merge is refused. */
  #checkShards({ name, nextShard }: StreamRecord, ends: ReadonlyMap<number, number>): void {
    for (const index of ends.keys()) {
      if (index < nextShard) continue;
      const detail = `the log of stream ${name} holds records of shard ${index}, which meta/ does not know`;
      this.#findings.push({ kind: "damage", stream: name, file: "meta", detail });
    }
  }

  #checkConsumers(
    consumers: readonly ConsumerRecord[],
    { record: { name, streamId }, shards }: StoredStream,
    ends: ReadonlyMap<number, number>,
  ): void {
    const indexes = new Map(shards.map(({ shardId, index }) => [shardId, index]));
    for (const consumer of consumers) {
      for (const [shardId, position] of Object.entries(consumer.positions)) {
        const index = indexes.get(shardId);
        // A closed shard that has expired leaves its position behind until the next checkpoint.
        if (index === undefined) continue;
        const end = ends.get(index) ?? 0;
        if (position <= end) continue;
        const detail = `consumer ${consumer.name} had read ${shardId} up to ${position}, and the log ends at ${end}`;
        this.#find("damage", name, join(this.#dir, "logs", streamId), detail);
      }
    }
  }

  #find(
    kind: VerifyFinding["kind"],
    stream: string,
    path: string,
    detail: string,
    extent?: { readonly from: number; readonly to: number },
  ): void {
    const file = path.startsWith(this.#dir) ? path.slice(this.#dir.length + 1) : path;
    this.#findings.push({ kind, stream, file, ...extent, detail });
  }
}

/** What the entries of a stream must add up to. */
class StreamWalk {
  /** Where each shard ends. */
  readonly next = new Map<number, number>();
  nextNumber: number | undefined;

  /** Returns how many records the entry holds. */
  take(entry: Entry, find: (detail: string) => void): number {
    this.nextNumber = entry.number + 1;
    if (entry.kind === ENTRY_KIND.state) {
      this.#takeState(entry, find);
      return 0;
    }
    if (entry.kind !== ENTRY_KIND.records) return 0;
    let records = 0;
    for (const { shard, first, count, batch } of entry.parts()) {
      const expected = this.next.get(shard);
      if (expected !== undefined && first < expected) {
        find(`shard ${shard} goes back from ${expected} to ${first}`);
      }
      this.next.set(shard, first + count);
      records += count;
      try {
        const held = decodeBatch(batch, "outside").reduce((sum, run) => sum + run.count, 0);
        if (held !== count) find(`shard ${shard}: ${held} records where ${count} should be`);
      } catch (error) {
        find(`shard ${shard}: ${describeError(error)}`);
      }
    }
    return records;
  }

  #takeState(entry: Entry, find: (detail: string) => void): void {
    try {
      const state = JSON.parse(entry.extra().toString("utf8")) as { nextOffsets: [number, number][] };
      for (const [shard, next] of state.nextOffsets) {
        if (next > (this.next.get(shard) ?? 0)) this.next.set(shard, next);
      }
    } catch (error) {
      find(`the stream's state: ${describeError(error)}`);
    }
  }
}
