/** How quick it is, is measured by `npm run faults -- agent`; here a busy machine must do as well. */
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { OUTAGE_RECORDS, percentile, runLongOutage } from "../support/long-outage.ts";
import { removeFolder } from "../support/remove-folder.ts";

test("after seven days without a gateway an agent boots and drains, and live records do not wait for that", {
  timeout: 280_000,
}, async (context) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-e2e-"));
  context.after(() => removeFolder(dir));
  const result = await runLongOutage({
    ...{ dir, records: OUTAGE_RECORDS, liveFirst: true },
    say: (line) => context.diagnostic(line),
  });
  assert.deepEqual([result.lost, result.doubled, result.outOfOrder], [0, 0, 0]);
  const { bootMs, emptyBootMs } = result;
  assert.ok(bootMs < Math.max(5_000, 3 * emptyBootMs), `booted in ${bootMs} ms, empty in ${emptyBootMs} ms`);
  const liveMs = percentile(result.liveMs, 0.5);
  context.diagnostic(`boot ${bootMs} ms, drain ${result.drainMs} ms, live p50 ${liveMs} ms`);
  // In order a live record would wait for all that waits before it.
  assert.ok(liveMs < Math.max(2_000, result.drainMs / 4), `p50 of live records ${liveMs} ms`);
});
