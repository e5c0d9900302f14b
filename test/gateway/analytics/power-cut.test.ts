import assert from "node:assert/strict";
import { join } from "node:path";
import test from "node:test";
import type { CommitStep } from "../../../gateway/analytics/statement.ts";
import { scriptPath } from "../../support/script.ts";
import { SmallDisk } from "../../support/small-disk.ts";
import { cutPowerAtHalt } from "../../support/stopped-program.ts";
import {
  askDuckDb,
  closeRigs,
  contents,
  DELAY_MS,
  difference,
  madeUp,
  OUTPUT,
  openRig,
  results,
  until,
} from "./analytics-rig.ts";

const SCRIPT = scriptPath("./stopped-statement.ts", import.meta.url);
const DISK_BYTES = 256 * 1_048_576;
const START_MS = Date.UTC(2026, 8, 1);

const STEPS: CommitStep[] = ["checkpoint", "frames", "consumer"];
for (const step of STEPS) {
  // The first is the empty one of the start, and makes the checkpoint's file; the second closes windows.
  for (const commit of ["first", "second"]) {
    test(`a statement whose power is cut behind "${step}" of its ${commit} commit yields each window once`, async (t) => {
      const disk = await SmallDisk.make(DISK_BYTES);
      if (typeof disk === "string") {
        t.skip(disk);
        return;
      }
      try {
        const dir = join(disk.path, "data");
        const readings = madeUp(60, START_MS);
        const before = await openRig(dir, { shards: 1 });
        await before.put(readings.slice(0, 210));
        await before.close();
        await cutPowerAtHalt(disk, SCRIPT, [dir, step, commit === "first" ? "1" : "2"]);

        const rig = await openRig(dir);
        await rig.analytics.start();
        await rig.put(readings.slice(210));
        const newestMs = Math.max(...readings.map(({ timeMs }) => timeMs));
        const expected = await askDuckDb(readings, newestMs - DELAY_MS);
        await until(
          "all windows",
          async () => (await contents(rig.streams, OUTPUT)).length >= expected.length,
        );
        assert.equal(difference(await results(rig.streams), expected), undefined);
        assert.equal(rig.analytics.status()[0]!.records, readings.length);
      } finally {
        await closeRigs();
        await disk.remove();
      }
    });
  }
}
