/** One delivery on two gateways. One of them is paused in the middle of a cut, and wakes up when the other has delivered. */
import assert from "node:assert/strict";
import { rename } from "node:fs/promises";
import { clusterFact } from "../streams/stores/jetstream/cluster-fact.ts";
import { countInOrder, files, lines, until } from "./delivery-rig.ts";
import { BATCH, Pair, WITHIN_MS } from "./take-over-pair.ts";

for (const step of ["built", "manifest", "confirmed", "object"] as const) {
  clusterFact(`paused after "${step}" and awake when the other has delivered, it brings nothing`, (ground) =>
    Pair.with(ground, async (pair) => {
      const a = await pair.start("a");
      await pair.append(1);
      await pair.judge();
      const before = a.count(`step ${step}`);
      await a.arm(step, "SIGSTOP");
      await pair.append(5);
      await a.says(`step ${step}`, before + 1);
      const b = await pair.start("b");
      await pair.append(5);
      await pair.judge();
      // Whoever reads the folder takes what is there: what came once more would show.
      const taken = `${pair.out}-taken`;
      await rename(pair.out, taken);
      a.wake();
      await a.says("log another gateway delivers");
      assert.equal((await files(pair.out)).size, 0, "an object came once more");
      await b.kill();
      await pair.append(5);
      const isThere = async (): Promise<boolean> => (await lines(pair.out)).length >= 5 * BATCH;
      await until("the rest is delivered", isThere, WITHIN_MS);
      const delivered = [...(await lines(taken)), ...(await lines(pair.out))];
      assert.equal(countInOrder(delivered), pair.appended);
    }),
  );
}

clusterFact(
  "paused and awake when the stream was made anew, it gives no object the name of another's",
  (ground) =>
    Pair.with(ground, async (pair) => {
      const a = await pair.start("a");
      await a.arm("ledger", "SIGSTOP");
      await pair.append(1);
      await a.says("step ledger");
      // The numbers behind that cut are the other one's.
      const b = await pair.start("b");
      await pair.append(5);
      await pair.judge();
      await b.kill();
      await pair.streams.deleteStream("s");
      await pair.streams.createStream({ name: "s", shards: 3, retentionHours: 24 });
      a.wake();
      await pair.append(2);
      const isThere = async (): Promise<boolean> => (await lines(pair.out)).length >= pair.appended;
      await until("all is delivered", isThere, WITHIN_MS);
      assert.equal(new Set(await lines(pair.out)).size, pair.appended);
    }),
);
