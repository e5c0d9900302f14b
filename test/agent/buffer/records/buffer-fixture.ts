/** A record buffer in a folder of its own, with small and quick settings. */
import { cp, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { BufferRecord, RecordBuffer } from "../../../../agent/buffer/record-buffer.ts";
import { openLevelRecordBuffer } from "../../../../agent/buffer/records/level-record-buffer.ts";
import type { LevelRecordBufferOptions } from "../../../../agent/buffer/records/level-record-options.ts";
import type { Frame } from "../../../../protocol/frame.ts";
import { forEachRecord } from "../../../../protocol/record-batch.ts";
import { systemClock } from "../../../../runtime/clock.ts";
import { silentLog } from "../../../../runtime/log.ts";
import { Metrics } from "../../../../runtime/metrics.ts";
import { removeFolder } from "../../../support/remove-folder.ts";

export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "headwater-test-"));
  t.after(() => removeFolder(folder));
  return folder;
}

export function openBuffer(
  dir: string,
  options: Partial<LevelRecordBufferOptions> = {},
): Promise<RecordBuffer> {
  return openLevelRecordBuffer({
    dir,
    device: "pi-1",
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    maxBytes: 64 * 1_048_576,
    whenFull: "pause",
    commitDelayMs: 1,
    commitRecords: 1_000,
    ...options,
  });
}

export function record(text: string, key = "pi-1/a", stream = "sensors"): BufferRecord {
  return { stream, partitionKey: key, timeUs: 1_700_000_000_000_000, payload: Buffer.from(text) };
}

/** The payloads of frames as text, of one stream or of all. */
export function texts(frames: readonly Frame[], stream?: string): string[] {
  const found: string[] = [];
  for (const frame of frames) {
    if (stream !== undefined && frame.stream !== stream) continue;
    for (const run of frame.runs) forEachRecord(run, (payload) => found.push(payload.toString()));
  }
  return found;
}

/** Everything that waits. */
export async function readAll(buffer: RecordBuffer): Promise<Frame[]> {
  const frames: Frame[] = [];
  for (;;) {
    const next = await buffer.read(frames.at(-1), 100_000);
    if (next.length === 0) return frames;
    frames.push(...next);
  }
}

/** Resolves when no part is being made, closed or named, so that its folder `dir` can be copied. */
export async function settled(buffer: RecordBuffer, dir: string): Promise<void> {
  // A commit waits for the switch before it, and reading for the naming behind that.
  await buffer.setMarks([]);
  await readAll(buffer);
  // Nobody waits for the next part before it is needed, and LevelDB renames files while it makes one.
  const chain = join(dir, "chain");
  for (const name of await readdir(chain))
    while (!(await isMade(join(chain, name)))) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** LevelDB ends with the removal of its first manifest. What was removed meanwhile is not being made. */
async function isMade(part: string): Promise<boolean> {
  const files = await readdir(part).catch(() => undefined);
  if (files === undefined) return true;
  const manifests = files.filter((file) => file.startsWith("MANIFEST-"));
  return manifests.length === 1 && manifests[0] !== "MANIFEST-000001" && !files.some(isTemporary);
}

const isTemporary = (file: string): boolean => file.endsWith(".dbtmp");

/** A buffer with records in several parts, as a kill leaves it: copied while it is open. */
export async function killedBuffer(dir: string, records: number): Promise<void> {
  const live = `${dir}-live`;
  const buffer = await openBuffer(live, { partBytes: 8_192 });
  for (let i = 0; i < records; i++) {
    const mark = { source: `source-${i % 7}`, value: Buffer.from(String(i)) };
    await buffer.append([{ ...record(String(i).padEnd(400)), mark }]);
  }
  await settled(buffer, live);
  await cp(live, dir, { recursive: true });
  await buffer.close();
  await rm(live, { recursive: true });
}
