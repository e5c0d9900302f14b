/** What a gateway finds that takes a delivery over, where it knows other things of the stream than the one before. */
import assert from "node:assert/strict";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { CutLedger } from "../../../gateway/delivery/cut-ledger.ts";
import { openDelivery } from "../../../gateway/delivery/open-delivery.ts";
import type { Streams } from "../../../gateway/streams/streams.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { clusterFact } from "../streams/stores/jetstream/cluster-fact.ts";
import { files, until } from "./delivery-rig.ts";
import { Pair, WITHIN_MS } from "./take-over-pair.ts";

/** The delivery of a gateway in this process takes over, and ends the cut. */
async function takeOver(streams: Streams, pair: Pair): Promise<void> {
  const delivery = await openDelivery({
    dir: join(pair.dir, "own"),
    streams,
    deliveries: [
      {
        name: "archive",
        stream: "s",
        bufferBytes: 1_048_576,
        bufferSeconds: 0.2,
        destination: { type: "files", path: pair.out, compression: "gzip" },
      },
    ],
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
  });
  await delivery.start();
  try {
    await pair.judge();
    // The totals go with the lease.
    const isCounted = (): boolean => delivery.status()[0]!.deliveredRecords === pair.appended;
    await until("the cut is ended", isCounted, WITHIN_MS);
    assert.equal(delivery.status()[0]!.trimmedRecords, 0);
  } finally {
    await delivery.close();
  }
}

clusterFact(
  "a shard that was quiet since before the first gateway began does not hold the other up",
  (ground) =>
    Pair.with(ground, async (pair) => {
      const first = await pair.start("a");
      await pair.append(2);
      await pair.judge();
      await first.kill();
      // Of the shards to which nothing comes it knows no more than that they end where the log does.
      const a = await pair.start("a");
      await a.arm("manifest", "SIGKILL");
      await pair.append(1, 1);
      await a.gone;
      await takeOver(pair.streams, pair);
    }),
);

clusterFact(
  "a cut of a split's children is finished by a gateway that never saw their parent's records",
  (ground) =>
    Pair.with(ground, async (pair) => {
      const a = await pair.start("a");
      await pair.append(2);
      await pair.judge();
      const other = await ground.open();
      // The parents close behind the place where it began.
      await pair.append(1, 1);
      await pair.judge();
      for (const { shardId, hashFrom, hashTo } of pair.streams.describe("s").shardList) {
        await pair.streams.splitShard("s", shardId, (hashFrom + hashTo) / 2n);
      }
      await a.arm("manifest", "SIGKILL");
      await pair.append(2);
      await a.gone;
      await takeOver(other, pair);
    }),
);

clusterFact("what an earlier version kept in files goes on in the consumer's document", (ground) =>
  Pair.with(ground, async (pair) => {
    const folder = join(pair.dir, "own", "archive");
    await mkdir(folder, { recursive: true });
    const former = await CutLedger.open(folder);
    await former.update({ lastCut: 7, objects: 7 });
    await pair.append(1);
    await takeOver(pair.streams, pair);
    assert.deepEqual(await readdir(folder), []);
    await pair.append(1);
    const b = await pair.start("b");
    await pair.judge();
    await b.kill();
    const cuts = [...(await files(pair.out)).keys()].map((name) => name.slice(-31, -10));
    assert.ok(cuts.length >= 2);
    assert.deepEqual(
      cuts,
      cuts.map((_, i) => `${former.ledger.id}-${String(i + 8).padStart(12, "0")}`),
    );
  }),
);
