/** A record buffer in a folder of its own, with small and quick settings. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import {
  type LevelRecordBufferOptions,
  openLevelRecordBuffer,
} from "../../../agent/buffer/level-record-buffer.ts";
import type { BufferRecord, RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import type { Frame } from "../../../protocol/frame.ts";
import { forEachRecord } from "../../../protocol/record-batch.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";

export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "headwater-test-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
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
