import assert from "node:assert/strict";
import test from "node:test";
import { consume } from "../../../../contract/streams-reshard.ts";
import { appendUntilEnded, expectedTexts, textsByKey } from "./acknowledged.ts";
import { makeLocalPlace } from "./local-place.ts";

const ROUNDS = 5;

test("after kill -9 amid splits and merges every acknowledged frame is there once, and in order for a consumer", {
  timeout: 240_000,
}, async () => {
  const place = await makeLocalPlace();
  try {
    const made = await place.open();
    await made.createStream({ name: "s", shards: 2, retentionHours: 24 });
    await made.close();
    let acknowledged = 0n;
    const consumed = new Map<string, string[]>();
    for (let round = 0; round < ROUNDS; round++) {
      const afterMs = 20 + Math.random() * 200;
      // A split takes several syncs of the database, which may be much longer than one of the log.
      const isEnough = (output: string): boolean => round > 0 || output.includes("resharded");
      acknowledged = await appendUntilEnded(
        place.dir,
        acknowledged + 1n,
        { afterMs, isEnough },
        (child) => child.kill("SIGKILL"),
        "resharding",
      );
      const streams = await place.open();
      // Parents come before their children here, as they do for the consumer.
      const texts = await textsByKey(streams);
      assert.deepEqual(texts, expectedTexts(acknowledged, texts), `round ${round}`);
      for (const text of await consume(streams, await streams.openConsumer("s", "c"))) {
        const key = text.split("=")[0]!;
        consumed.set(key, [...(consumed.get(key) ?? []), text]);
      }
      assert.deepEqual(new Map([...consumed].sort()), new Map([...texts].sort()), `round ${round}`);
      assert.ok(streams.describe("s").shardList.length > 2, "shards were split");
      await streams.close();
    }
    assert.ok(!place.logged.includes("the log is damaged; what can be read is kept"), place.logged.join());
  } finally {
    await place.remove();
  }
});
