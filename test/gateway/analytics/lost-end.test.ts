/** A log that lost its end while a commit was under way: what comes in its place is read. */
import assert from "node:assert/strict";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { removeFolder } from "../../support/remove-folder.ts";
import { closeRigs, openRig, type Rig, results, until } from "./analytics-rig.ts";

const START_MS = Date.UTC(2026, 0, 1);
const at = (second: number) => ({ sensor: "a", timeMs: START_MS + second * 1_000, temperature: 1 });

test("records in the place of those that the log lost behind a checkpoint are not taken for them", async () => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-analytics-"));
  try {
    const logs = join(dir, "streams", "logs");
    const status = (rig: Rig) => rig.analytics.status()[0]!;
    const stopped: Rig = await openRig(dir, {
      shards: 1,
      onStep: (step) => {
        if (step === "checkpoint" && status(stopped).records > 0) throw new Error("stopped");
      },
    });
    await stopped.put([at(1), at(2), at(3)]);
    await cp(logs, join(dir, "earlier"), { recursive: true });
    await stopped.put([at(4), at(5), at(61)]);
    await stopped.analytics.start();
    await until("it is stopped", () => status(stopped).lastError !== undefined);
    await stopped.close();
    await rm(logs, { recursive: true });
    await cp(join(dir, "earlier"), logs, { recursive: true });

    const rig = await openRig(dir, { shards: 1 });
    // The doors may open before the statement looks at its checkpoint.
    await rig.put([at(62), at(63), at(64), at(65), at(200)]);
    await rig.analytics.start();
    await until("all are read", () => status(rig).records === 11);
    await until("the windows are out", async () => (await results(rig.streams)).length === 2);
    assert.deepEqual(
      (await results(rig.streams)).map(({ n }) => n),
      [5, 5],
    );
  } finally {
    await closeRigs();
    await removeFolder(dir);
  }
});
