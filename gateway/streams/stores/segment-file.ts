/** How the log reaches the disk: writes, syncs, and the making of a segment's file. */
import { randomBytes } from "node:crypto";
import { type FileHandle, open, rename, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { syncFolder } from "../../../runtime/durable.ts";
import { ENTRY_KIND, entrySize, writeEntry } from "./log-entry.ts";
import type { StreamState } from "./log-recovery.ts";
import type { Spare } from "./recycled-segments.ts";
import { encodeSegmentHead, SEGMENT_HEAD_BYTES, type Segment } from "./segment.ts";

/** The two calls that reach the disk, so that a test can make them fail. */
export interface Disk {
  write(file: FileHandle, bytes: Buffer, position: number): Promise<void>;
  datasync(file: FileHandle): Promise<void>;
}

export const realDisk: Disk = {
  async write(file, bytes, position) {
    for (let done = 0; done < bytes.length; ) {
      done += (await file.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
    }
  },
  datasync: (file) => file.datasync(),
};

/**
 * Head and state entry in one write, synced, and the folder too. Leaves nothing when it fails.
 * @param spare is written before it gets the segment's name, so that under it no crash ever shows foreign bytes
 */
export async function createSegmentFile(
  disk: Disk,
  streamId: string,
  createdMs: number,
  segment: Segment,
  state: StreamState,
  spare?: Spare,
): Promise<FileHandle> {
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
  const file = spare?.file ?? (await open(segment.path, "w+"));
  try {
    const recycledBytes = (await file.stat()).size;
    encodeSegmentHead({ generation, base, createdMs, streamId, recycledBytes }).copy(bytes);
    await disk.write(file, bytes, 0);
    await disk.datasync(file);
    if (spare !== undefined) await rename(spare.path, segment.path);
    await syncFolder(dirname(segment.path));
    segment.recycledBytes = recycledBytes;
  } catch (error) {
    await file.close();
    for (const path of [segment.path, spare?.path]) {
      if (path !== undefined) await unlink(path).catch(() => undefined);
    }
    throw error;
  }
  segment.end = bytes.length;
  return file;
}

/** 48 random bits: bytes of another life of the file cannot guess them. */
export function newGeneration(): number {
  return randomBytes(6).readUIntBE(0, 6) + 1;
}
