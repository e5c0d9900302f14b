import assert from "node:assert/strict";
import test from "node:test";
import { makeLocalPlace } from "../local-place.ts";

test("what was counted of a stream goes with it", async (t) => {
  const place = await makeLocalPlace();
  t.after(() => place.remove());
  const streams = await place.open();
  t.after(() => streams.close());
  for (const name of ["stays", "goes"]) {
    await streams.createStream({ name, shards: 1, retentionHours: 24 });
    await streams.append(name, [{ partitionKey: "k", data: Buffer.from("x") }]);
  }
  const counted = async (name: string): Promise<boolean> =>
    (await place.metrics.render()).includes(`appended_records_total{stream="${name}"} 1`);
  assert.deepEqual([await counted("stays"), await counted("goes")], [true, true]);
  await streams.deleteStream("goes");
  assert.deepEqual([await counted("stays"), await counted("goes")], [true, false]);
});
