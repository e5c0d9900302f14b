/** What sources under test are made of, and how to wait for them. */
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import type { SourceParts } from "../../../agent/sources/source.ts";
import type { FileSourceConfig } from "../../../config/source-config.ts";
import type { Frame } from "../../../protocol/frame.ts";
import { Backoff } from "../../../runtime/backoff.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { readAll, texts } from "../buffer/records/buffer-fixture.ts";

export function sourceParts(buffer: RecordBuffer): SourceParts {
  return {
    device: "pi-1",
    buffer,
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    backoff: new Backoff(5, 20),
  };
}

/** A file's lines, or those of all files that a pattern names, from the first on; looked at often. */
export function tailConfig(path: string, config: Partial<FileSourceConfig> = {}): FileSourceConfig {
  return {
    type: "file",
    name: "log",
    path,
    maxFiles: 100,
    from: "start",
    format: "text",
    stream: "sensors",
    pollMs: 10,
    rotateWaitMs: 30,
    ...config,
  };
}

export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** What waits in the buffer, as objects. */
export async function stored(buffer: RecordBuffer, stream = "sensors"): Promise<Record<string, unknown>[]> {
  return texts(await readAll(buffer), stream).map((text) => JSON.parse(text) as Record<string, unknown>);
}

/** Takes records out of a buffer as they come, until there were so many. */
export async function drained(buffer: RecordBuffer, count: number): Promise<Record<string, unknown>[]> {
  const seen: Record<string, unknown>[] = [];
  let last: Frame | undefined;
  while (seen.length < count) {
    await buffer.waiting(last, AbortSignal.timeout(60_000));
    for (const frame of await buffer.read(last, 20_000)) {
      last = frame;
      for (const text of texts([frame])) seen.push(JSON.parse(text) as Record<string, unknown>);
      await buffer.ack(frame.epoch, frame.sequence);
    }
  }
  return seen;
}
