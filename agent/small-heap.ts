/**
 * Imported first by main.ts: keeps the agent small. docs/design/0009-agent-memory.md has the figures.
 */
import { createRequire } from "node:module";
import { getHeapStatistics, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** How often it is asked whether a collection is worth it: one stops everything while it lasts. */
const LOOK_EVERY_MS = 5_000;
/** Growth since the last collection that makes one worth it. */
const WORTH_BYTES = 524_288;

// The nursery may not grow to 16 MiB, and code is made for size: an agent needs little speed.
setFlagsFromString("--semi-space-growth-factor=1");
setFlagsFromString("--optimize-for-size");
forgetNumbers();
collectFootage();

/**
 * The packet writer under mqtt and aedes makes a Buffer of each number from 0 to 65,535 at its first
 * packet, 7 MB in all, unless it is told beforehand to write numbers when they are needed.
 */
function forgetNumbers(): void {
  for (const library of ["mqtt", "aedes"]) {
    const require = createRequire(createRequire(import.meta.url).resolve(library));
    const packet = require("mqtt-packet") as { writeToStream: { cacheNumbers: boolean } };
    packet.writeToStream.cacheNumbers = false;
  }
}

/**
 * A group of pictures outlives the nursery, and V8 by itself lets some 20 MB of such bytes gather
 * before it looks for those that nobody needs.
 */
function collectFootage(): void {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  setFlagsFromString("--no-expose-gc");
  let keptBytes = usedBytes();
  setInterval(() => {
    if (usedBytes() - keptBytes < WORTH_BYTES) return;
    collect();
    keptBytes = usedBytes();
  }, LOOK_EVERY_MS).unref();
}

/** Without `process.memoryUsage`, which opens a file, and throws where no descriptor is left for it. */
function usedBytes(): number {
  const { used_heap_size: heap, external_memory: external } = getHeapStatistics();
  return heap + external;
}
