/** A temporary folder for one stream's log by itself, a disk to interfere with, and what the log told the operator. */
import { mkdir, mkdtemp, readdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeLogMeters } from "../../../../../../gateway/streams/stores/local/log/log-meters.ts";
import { type Disk, realDisk } from "../../../../../../gateway/streams/stores/local/log/segment-file.ts";
import type {
  StreamLog,
  StreamLogOptions,
} from "../../../../../../gateway/streams/stores/local/log/stream-log.ts";
import type { LogFile } from "../../../../../../gateway/streams/stores/local/segments/log-file.ts";
import { ENTRY_KIND, type Producer } from "../../../../../../gateway/streams/stores/log-entry.ts";
import { Metrics } from "../../../../../../runtime/metrics.ts";
import { removeFolder } from "../../../../../support/remove-folder.ts";

export const STREAM_ID = "0123456789abcdef0123456789abcdef";

export interface LogPlace {
  readonly folder: string;
  /** Everything reported, as `message`. */
  readonly logged: string[];
  /** Of the clock that cannot jump; put forward by hand. */
  passedMs: number;
  options(more?: Partial<StreamLogOptions>): StreamLogOptions;
  /** The segments as they are now, as a crash would leave them; without sidecars, which may be in the making. */
  copy(): Promise<string>;
  remove(): Promise<void>;
}

export async function makeLogPlace(): Promise<LogPlace> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-log-"));
  const folder = join(dir, "log");
  await mkdir(folder);
  let copies = 0;
  const place: LogPlace = {
    folder,
    logged: [],
    passedMs: 0,
    options: (more) => ({
      name: "s",
      streamId: STREAM_ID,
      folder,
      segmentBytes: 1_048_576,
      maxWaitingBytes: 1_048_576,
      disk: realDisk,
      meters: makeLogMeters(new Metrics()),
      nowMs: () => Date.now(),
      monotonicMs: () => place.passedMs,
      report: (_, __, message) => place.logged.push(message),
      ...more,
    }),
    async copy() {
      const to = join(dir, `copy-${++copies}`);
      await mkdir(to);
      for (const name of await readdir(folder)) {
        // Not copyFile, which never ends when the log cuts the file meanwhile.
        if (name.endsWith(".log")) await writeFile(join(to, name), await readFile(join(folder, name)));
      }
      return to;
    },
    remove: () => removeFolder(dir),
  };
  return place;
}

/** The real disk; `before` may wait, fail, or look. */
export function watchedDisk(before: (call: "write" | "fdatasync") => Promise<void> | void): Disk {
  return {
    async write(file: LogFile, bytes: Buffer, position: number): Promise<void> {
      await before("write");
      await realDisk.write(file, bytes, position);
    },
    async datasync(file: LogFile): Promise<void> {
      await before("fdatasync");
      await realDisk.datasync(file);
    },
  };
}

function frameOf(sequence: number): Producer {
  return { kind: "frame", device: "d", epoch: 7n, epochStart: 1, sequence: BigInt(sequence) };
}

/** Resolves with the first offset once it is on disk. */
export function append(
  log: StreamLog,
  sequence: number,
  { shard = 0, count = 1, bytes = 40 } = {},
): Promise<number> {
  return new Promise((resolve, reject) => {
    const routed = [{ shard, count, batch: Buffer.alloc(bytes, sequence) }];
    const waiter = { done: () => resolve(placed.parts[0]!.first), failed: reject };
    const placed = log.append(ENTRY_KIND.records, frameOf(sequence), routed, waiter);
  });
}
