/** How the log reaches the disk: writes, syncs, and the making of a segment's file. */
import { randomBytes } from "node:crypto";
import { rename, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { syncFolder } from "../../../../../runtime/durable.ts";
import { ENTRY_KIND, entrySize, writeEntry } from "../../log-entry.ts";
import { LogFile } from "../segments/log-file.ts";
import { encodeSegmentHead, SEGMENT_HEAD_BYTES, type Segment } from "../segments/segment.ts";
import type { StreamState } from "./log-recovery.ts";

/** The two calls that reach the disk, so that a test can make them fail. */
export interface Disk {
  write(file: LogFile, bytes: Buffer, position: number): Promise<void>;
  datasync(file: LogFile): Promise<void>;
}

export const realDisk: Disk = {
  write: (file, bytes, position) => file.write(bytes, position),
  datasync: (file) => file.datasync(),
};

/**
 * Head and state entry in one write, synced, and the folder too. Leaves nothing when it fails.
 * @param spare path of a recycled file; it is written before it gets the segment's name, so that under it no crash ever shows foreign bytes
 */
export async function createSegmentFile(
  disk: Disk,
  streamId: string,
  createdMs: number,
  segment: Segment,
  state: StreamState,
  spare?: string,
): Promise<LogFile> {
  const { generation, base } = segment;
  const extra = Buffer.from(JSON.stringify(state));
  const bytes = Buffer.alloc(SEGMENT_HEAD_BYTES + entrySize(undefined, [], extra.length));
  const head = {
    kind: ENTRY_KIND.state,
    generation,
    number: base,
    arrivalMs: state.arrivalMs,
    recordsBefore: state.records,
    groupOffset: 0,
  };
  writeEntry(bytes, SEGMENT_HEAD_BYTES, head, undefined, [], extra);
  let file: LogFile | undefined;
  try {
    file = await (spare === undefined ? LogFile.open(segment.path, "w+") : LogFile.open(spare, "r+"));
    const recycledBytes = await file.size();
    encodeSegmentHead({ generation, base, createdMs, streamId, recycledBytes }).copy(bytes);
    await disk.write(file, bytes, 0);
    await disk.datasync(file);
    if (spare !== undefined) await rename(spare, segment.path);
    await syncFolder(dirname(segment.path));
    segment.recycledBytes = recycledBytes;
    segment.createdMs = createdMs;
    segment.end = bytes.length;
    return file;
  } catch (error) {
    await file?.close();
    for (const path of [segment.path, spare]) {
      if (path !== undefined) await unlink(path).catch(() => undefined);
    }
    throw error;
  }
}

/** 48 random bits: bytes of another life of the file cannot guess them. */
export function newGeneration(): number {
  return randomBytes(6).readUIntBE(0, 6) + 1;
}
