/** A child process whose files may not grow beyond 3 MB: a unit is refused, and the next one is stored all the same. */
import assert from "node:assert/strict";
import {
  FootageWriteError,
  openLevelFootageBuffer,
} from "../../../../agent/buffer/footage/level-footage-buffer.ts";
import { systemClock } from "../../../../runtime/clock.ts";
import { silentLog } from "../../../../runtime/log.ts";
import { Metrics } from "../../../../runtime/metrics.ts";
import { madeUnit } from "./made-unit.ts";

const buffer = await openLevelFootageBuffer({
  dir: process.argv[2]!,
  clock: systemClock,
  log: silentLog,
  metrics: new Metrics(),
  maxBytes: 1 << 30,
});
await buffer.append(madeUnit("yard", 1, 100_000));
await assert.rejects(buffer.append(madeUnit("yard", 2, 5_000_000)), FootageWriteError);
const reading = buffer.read("yard", undefined);
await buffer.append(madeUnit("yard", 3, 100_000));
assert.equal((await reading)?.sequence, 1n);
const third = await buffer.read("yard", await reading);
assert.equal(third?.sequence, 3n);
assert.equal(third?.producerUs, madeUnit("yard", 3, 1).producerUs);
assert.equal(buffer.usage().waitingUnits, 2);
await buffer.close();
console.log("stored");
