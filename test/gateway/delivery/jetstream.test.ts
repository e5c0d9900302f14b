/** A delivery on the store whose places leave numbers out: a shard may end far behind its last record. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Delivery } from "../../../gateway/delivery/delivery.ts";
import { openDelivery } from "../../../gateway/delivery/open-delivery.ts";
import type { Streams } from "../../../gateway/streams/streams.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { clusterFact as fact, until } from "../streams/stores/jetstream/cluster-fact.ts";

const HALF = 2n ** 127n;
const put = (streams: Streams, explicitHash: bigint) =>
  streams.append("s", [{ partitionKey: "k", data: Buffer.from("1"), explicitHash }]);

async function startDelivery(dir: string, streams: Streams): Promise<Delivery> {
  const delivery = await openDelivery({
    dir: join(dir, "delivery"),
    streams,
    deliveries: [
      {
        name: "archive",
        stream: "s",
        bufferBytes: 1_048_576,
        bufferSeconds: 0.1,
        destination: { type: "files", path: join(dir, "out"), compression: "gzip" },
      },
    ],
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
  });
  await delivery.start();
  return delivery;
}

fact("a shard that was idle when it was split does not hold its children up", async ({ open }) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-delivery-"));
  const first = await open();
  await first.createStream({ name: "s", shards: 2, retentionHours: 24 });
  const before = await startDelivery(dir, first);
  await put(first, 0n);
  for (let i = 0; i < 4; i++) await put(first, HALF);
  await until(() => before.status()[0]!.deliveredRecords === 5);
  await before.close();
  // Of the idle shard it knows no more than that it ends where the log does.
  const second = await open();
  await second.splitShard("s", "shardId-000000000000", HALF / 2n);
  await put(second, 0n);
  const delivery = await startDelivery(dir, second);
  const end = performance.now() + 60_000;
  await until(() => delivery.status()[0]!.deliveredRecords === 6 || performance.now() > end);
  await delivery.close();
  await rm(dir, { recursive: true });
  assert.equal(delivery.status()[0]!.deliveredRecords, 6);
  assert.equal(delivery.status()[0]!.trimmedRecords, 0);
});
