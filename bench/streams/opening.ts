/** How long a gateway takes to start over a full log, against one without anything stored. */
import { mkdir, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Bars } from "../bars.ts";
import { runLoad } from "../load/load.ts";
import { StreamsGateway } from "./gateway.ts";

/** Real bytes, as a sparse file would be read faster than a disk can. */
const DEFAULT_BYTES = 2e9;
const FULL_BYTES = 20e9;
const STEP_MS = 2_000;
const MAX_FILL_MS = 40_000;

export interface OpeningOptions {
  readonly dir: string;
  readonly full: boolean;
  readonly say: (line: string) => void;
  readonly bars: Bars;
}

export async function openingTime({ dir, full, say, bars }: OpeningOptions): Promise<void> {
  const wanted = full ? FULL_BYTES : DEFAULT_BYTES;
  say(`starting over a log of ${wanted / 1e9} GB${full ? "" : " (--full: 20 GB)"}`);
  await mkdir(dir, { recursive: true });
  const gateway = new StreamsGateway(dir);
  try {
    await gateway.start();
    await gateway.close();
    const emptyMs = await gateway.start();
    const end = performance.now() + (full ? 10 * MAX_FILL_MS : MAX_FILL_MS);
    while ((await folderBytes(join(dir, "data"))) < wanted && performance.now() < end) {
      await runLoad(
        {
          kind: "put-records",
          stream: "stored",
          records: 100,
          recordBytes: 32_768,
          connections: 4,
          window: 1,
          warmMs: 0,
          measureMs: STEP_MS,
          endpoint: gateway.endpoint,
          port: gateway.endpoint.port,
        },
        gateway.pid,
      );
    }
    const stored = await folderBytes(join(dir, "data"));
    await gateway.close();
    const startMs = await gateway.start();
    bars.note("openedGB", stored / 1e9, "log opened, GB");
    bars.note("startEmptyMs", emptyMs, "start with nothing stored, ms");
    bars.note("startFullMs", startMs, "start over that log, ms");
    bars.bar("openingMs", Math.max(0, startMs - emptyMs), "<=", 2_000, "opening the log, ms");
    bars.note("openedMiB", (await gateway.residentBytes()) / 1_048_576, "memory with that log open, MiB");
  } finally {
    await gateway.close();
  }
}

async function folderBytes(folder: string): Promise<number> {
  let bytes = 0;
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue;
    bytes += (await stat(join(entry.parentPath, entry.name)).catch(() => ({ size: 0 }))).size;
  }
  return bytes;
}
