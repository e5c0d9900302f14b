/**
 * Segments of which the sidecar alone is left, whatever took the file: a job that clears away `*.log`, a repair of the
 * file system, a copy that left some out. In the middle of a log its numbers tell of them, at its ends nothing else does.
 *
 * Retention never leaves such a one: it removes the sidecar first, and syncs that.
 */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { baseOf, readSidecarOf, segmentName, sidecarPathOf } from "../segments/segment.ts";
import type { Summary } from "../segments/segment-index.ts";

const SIDECAR = /\.idx$/;

export interface GoneSegment {
  /** Of the file that is not there. */
  readonly path: string;
  readonly summary: Summary;
}

export interface GoneSegments {
  /** In front of all segments that are there, in order. */
  readonly before: readonly GoneSegment[];
  /** Behind them, in order. */
  readonly behind: readonly GoneSegment[];
  /** Of all, also of those in between and of those whose sidecar tells nothing; rising. */
  readonly bases: readonly number[];
}

export async function goneSegments(folder: string): Promise<GoneSegments> {
  const { there, gone } = await basesOf(folder);
  const before: GoneSegment[] = [];
  const behind: GoneSegment[] = [];
  for (const base of gone) {
    const path = join(folder, segmentName(base));
    const summary = await readSidecarOf(path, base);
    if (summary === undefined) continue;
    if (there.every((other) => base < other)) before.push({ path, summary });
    else if (there.every((other) => base > other)) behind.push({ path, summary });
  }
  return { before, behind, bases: gone };
}

/** What lay there is too old by now. @param bases of segments of which the sidecar alone is left */
export async function forgetGoneSegments(folder: string, bases: readonly number[]): Promise<void> {
  for (const base of bases) await rm(sidecarPathOf(join(folder, segmentName(base))), { force: true });
}

/** Of the segments whose file is there, and of those of which only the sidecar is; rising. */
async function basesOf(folder: string): Promise<{ there: number[]; gone: number[] }> {
  const names = await readdir(folder);
  const there = new Set(names.map(baseOf).filter((base) => base !== undefined));
  const gone = names
    .filter((name) => SIDECAR.test(name))
    .map((name) => baseOf(name.replace(SIDECAR, ".log")))
    .filter((base) => base !== undefined && !there.has(base)) as number[];
  const rising = (a: number, b: number): number => a - b;
  return { there: [...there].sort(rising), gone: gone.sort(rising) };
}
