/**
 * Segments of which the sidecar alone is left, whatever took the file: a job that clears away `*.log`, a repair of the
 * file system, a copy that left some out. In the middle of a log its numbers tell of them, at its ends nothing else does.
 *
 * Retention never leaves such a one: it removes the sidecar first, and syncs that.
 */
import { readdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { baseOf, readSidecarOf, segmentName } from "../segments/segment.ts";
import type { Summary } from "../segments/segment-index.ts";

const SIDECAR = /\.idx$/;

export interface GoneSegment {
  /** Of the file that is not there. */
  readonly path: string;
  readonly summary: Summary;
}

/** In order; those in front of all segments that are there, and those behind them. */
export async function goneSegments(
  folder: string,
): Promise<{ before: GoneSegment[]; behind: GoneSegment[] }> {
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
  return { before, behind };
}

/** What lay in front of `base` is too old by now. */
export async function forgetGoneSegments(folder: string, base: number): Promise<void> {
  const { gone } = await basesOf(folder);
  for (const old of gone.filter((one) => one < base)) {
    await unlink(join(folder, segmentName(old).replace(/\.log$/, ".idx")));
  }
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
