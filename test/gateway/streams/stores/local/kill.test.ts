import assert from "node:assert/strict";
import test from "node:test";
import { appendUntilEnded, expectedTexts, textsByKey } from "./acknowledged.ts";
import { makeLocalPlace } from "./local-place.ts";

const ROUNDS = 6;
/** In every other round, whatever time the disk takes: segments shall be closed on the way. */
const FRAMES = 100;

test("after kill -9 every acknowledged frame is there once, whole and in order", {
  timeout: 240_000,
}, async () => {
  const place = await makeLocalPlace();
  try {
    const made = await place.open();
    await made.createStream({ name: "s", shards: 2, retentionHours: 24 });
    await made.close();
    let acknowledged = 0n;
    for (let round = 0; round < ROUNDS; round++) {
      // As an agent does: all that was not acknowledged is sent again.
      const afterMs = 5 + Math.random() * 200;
      const least = round % 2 === 0 ? 1 : FRAMES;
      const isEnough = (output: string): boolean => output.split("\n").length > least;
      acknowledged = await appendUntilEnded(place.dir, acknowledged + 1n, { afterMs, isEnough }, (child) =>
        child.kill("SIGKILL"),
      );
      const streams = await place.open();
      const texts = await textsByKey(streams);
      await streams.close();
      assert.deepEqual(texts, expectedTexts(acknowledged, texts), `round ${round}`);
    }
    assert.ok(acknowledged > 100n, `${acknowledged} frames in all`);
    assert.ok((await place.segments()).length > 2, "segments were closed on the way");
    assert.ok(!place.logged.includes("the log is damaged; what can be read is kept"), place.logged.join());
  } finally {
    await place.remove();
  }
});
