/** Harms a segment, or its sidecar, of a log that is closed, and notes in the model what that may cost. */
import { open, readdir, readFile, stat, truncate, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  baseOf,
  readSidecarOf,
  SEGMENT_HEAD_BYTES,
} from "../../../../../gateway/streams/stores/local/segments/segment.ts";
import { scanSegment } from "../../../../../gateway/streams/stores/local/segments/segment-scan.ts";
import type { StreamModel } from "./stream-model.ts";

interface Stood {
  readonly from: number;
  readonly to: number;
  readonly parts: readonly { shard: number; first: number; count: number }[];
}

/** @returns what was done */
export async function harmSegment(folder: string, model: StreamModel, random: () => number): Promise<string> {
  const names = (await readdir(folder)).filter((name) => name.endsWith(".log")).sort();
  const name = names[Math.floor(random() * names.length)]!;
  const path = join(folder, name);
  // Damage at the end of a log that did not end in peace is taken for a torn write.
  const summary = await readSidecarOf(path, baseOf(name)!);
  if (name === names.at(-1) && summary?.end !== (await stat(path)).size) return "nothing";
  const entries = await entriesOf(path);
  const how = random();
  if (how < 0.2) {
    // It alone tells of what was lost at the log's end before.
    const isAlone = [...model.records.values()].some(({ isHarmed }) => isHarmed);
    if (name === names.at(-1) && isAlone) return "nothing";
    await harmSidecar(path.replace(".log", ".idx"), random);
    return `the sidecar of ${name}`;
  }
  const bytes = await readFile(path);
  const at = Math.floor(random() * bytes.length);
  if (how < 0.3) {
    await truncate(path, at);
    for (const entry of entries) if (entry.to > at) lose(model, entry);
    return `${name} of ${bytes.length} bytes cut at ${at}`;
  }
  const end = how < 0.5 ? Math.min(bytes.length, at + Math.floor(random() * 600)) : at + 1;
  for (let i = at; i < end; i++) bytes[i]! ^= 1 << Math.floor(random() * 8);
  await writeFile(path, bytes);
  for (const entry of entries) if (entry.from < end && entry.to > at) lose(model, entry);
  return `bytes ${at} to ${end} of ${bytes.length} of ${name}`;
}

async function entriesOf(path: string): Promise<Stood[]> {
  const entries: Stood[] = [];
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    await scanSegment(file, SEGMENT_HEAD_BYTES, size, undefined, "sealed", (entry, from) => {
      entries.push({ from, to: from + entry.bytes.length, parts: entry.parts() });
    });
  } finally {
    await file.close();
  }
  return entries;
}

function lose(model: StreamModel, { parts }: Stood): void {
  for (const { shard, first, count } of parts) {
    for (const record of model.records.values()) {
      const { offset } = record;
      if (record.shard === shard && offset !== undefined && offset >= first && offset < first + count) {
        record.isHarmed = true;
      }
    }
  }
}

async function harmSidecar(path: string, random: () => number): Promise<void> {
  const bytes = await readFile(path).catch(() => undefined);
  if (bytes === undefined || random() < 0.3) return unlink(path).catch(() => undefined);
  bytes[Math.floor(random() * bytes.length)]! ^= 1 << Math.floor(random() * 8);
  await writeFile(path, bytes);
}
