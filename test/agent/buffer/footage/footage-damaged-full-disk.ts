/** A child process whose files may not grow beyond 3 MB meets a damaged unit that is larger: those behind it are read. */
import assert from "node:assert/strict";
import { openLevelFootageBuffer } from "../../../../agent/buffer/footage/level-footage-buffer.ts";
import type { FootageGap } from "../../../../agent/buffer/footage-buffer.ts";
import { systemClock } from "../../../../runtime/clock.ts";
import { silentLog } from "../../../../runtime/log.ts";
import { Metrics } from "../../../../runtime/metrics.ts";
import { madeUnit } from "./made-unit.ts";

const gaps: FootageGap[] = [];
const buffer = await openLevelFootageBuffer({
  dir: process.argv[2]!,
  clock: systemClock,
  log: silentLog,
  metrics: new Metrics(),
  maxBytes: 1 << 30,
  onGap: (gap) => gaps.push(gap),
});
const second = await buffer.read("yard", undefined);
assert.equal(second?.sequence, 2n);
assert.deepEqual(
  gaps.map(({ reason }) => reason),
  ["a unit was damaged on disk"],
);
await buffer.append(madeUnit("yard", 3, 100_000));
assert.equal(buffer.usage().waitingUnits, 2);
await buffer.close();
console.log("read on");
