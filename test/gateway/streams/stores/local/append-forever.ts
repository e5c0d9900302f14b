/**
 * A process to be killed: appends frames from the sequence given on, eight in flight, and says
 * `ack N` once the log has acknowledged frame N. Run with a folder and a sequence; `without-sync`
 * behind them makes a log that lies, for a test that must notice it; `resharding` splits and merges
 * shards all the while, and says `resharded` each time.
 */
import { writeSync } from "node:fs";
import { openLocalStreams } from "../../../../../gateway/streams/stores/local/local.ts";
import { type Disk, realDisk } from "../../../../../gateway/streams/stores/local/log/segment-file.ts";
import type { Streams } from "../../../../../gateway/streams/streams.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { silentLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { makeFrame } from "../../../../contract/streams.ts";

/** Frames in flight. */
const WINDOW = 8;
/** Ends by itself if nobody kills it. */
const MAX_FRAMES = 200_000n;

/** Records of frame `sequence`: three keys, so that both shards get some. */
export function textsOfFrame(sequence: bigint): string[] {
  return Array.from({ length: 1 + Number(sequence % 7n) }, (_, i) => `k${i % 3}=${sequence}/${i}`);
}

/** Splits while there are few open shards, merges when there are many. */
async function reshardForever(streams: Streams): Promise<void> {
  for (;;) {
    const open = streams
      .describe("s")
      .shardList.filter(({ closedMs }) => closedMs === undefined)
      .sort((a, b) => (a.hashFrom < b.hashFrom ? -1 : 1));
    const at = Math.floor(Math.random() * (open.length - 1));
    const { shardId, hashFrom, hashTo } = open[at]!;
    const middle = (hashFrom + hashTo + 1n) / 2n;
    const quarter = (hashFrom + middle) / 2n;
    if (open.length < 4 && Math.random() < 0.5) await streams.splitShard("s", shardId, middle);
    else if (open.length < 4) {
      await streams.reshard("s", [
        { do: "split", at: middle },
        { do: "split", at: quarter },
        { do: "merge", at: middle },
      ]);
    } else await streams.mergeShards("s", shardId, open[at + 1]!.shardId);
    writeSync(1, "resharded\n");
  }
}

/** Leaves all that is written to the page cache, and calls it synced. */
export const lyingDisk: Disk = {
  write: async (file, bytes, position) => {
    await file.handle.write(bytes, 0, bytes.length, position);
  },
  datasync: async () => {},
};

async function main(dir: string, first: bigint, mode: string | undefined): Promise<void> {
  const lies = mode === "without-sync";
  process.on("disconnect", () => process.exit(1));
  const streams = await openLocalStreams({
    dir,
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    segmentBytes: 16 * 1024,
    recycleSegments: "filled",
    disk: lies ? lyingDisk : realDisk,
  });
  let next = first;
  const send = async (): Promise<void> => {
    while (next < MAX_FRAMES) {
      const sequence = next++;
      await streams.appendFrame(makeFrame("s", sequence, textsOfFrame(sequence)));
      // Synchronous: what was acknowledged before the kill is in the pipe.
      writeSync(1, `ack ${sequence}\n`);
    }
  };
  if (mode === "resharding") void reshardForever(streams);
  await Promise.all(Array.from({ length: WINDOW }, send));
}

const [, script, dir, first, mode] = process.argv;
if (script !== undefined && /append-forever\.[jt]s$/.test(script) && dir !== undefined)
  await main(dir, BigInt(first ?? "1"), mode);
