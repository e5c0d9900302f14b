/** A child process that runs out of file descriptors while it reads its footage: no unit is given up, and all come afterwards. */
import assert from "node:assert/strict";
import { openLevelFootageBuffer } from "../../../../agent/buffer/footage/level-footage-buffer.ts";
import { systemClock } from "../../../../runtime/clock.ts";
import { silentLog } from "../../../../runtime/log.ts";
import { Metrics } from "../../../../runtime/metrics.ts";
import { takeDescriptors } from "../../../support/descriptors.ts";
import { madeUnit } from "./made-unit.ts";

/** So many that LevelDB puts them into tables without a head, which an opening does not look into. */
const UNITS = 30;
const gaps: unknown[] = [];
const open = () =>
  openLevelFootageBuffer({
    dir: process.argv[2]!,
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    maxBytes: 1 << 30,
    onGap: (gap) => gaps.push(gap),
  });
const writing = await open();
for (let i = 1; i <= UNITS; i++) await writing.append(madeUnit("yard", i, 1_500_000));
await writing.close();
let buffer = await open();
async function readAll(): Promise<number> {
  let units = 0;
  let last = await buffer.read("yard", undefined);
  for (; last !== undefined; last = await buffer.read("yard", last)) units++;
  return units;
}
for (;;) {
  const giveBack = takeDescriptors();
  const units = await readAll().catch(() => undefined);
  giveBack();
  if (units === undefined) break;
  // LevelDB had all tables open, as it had just compacted them.
  assert.equal(units, UNITS);
  await buffer.close();
  buffer = await open();
}
assert.equal(await readAll(), UNITS);
assert.deepEqual(gaps, []);
await buffer.close();
console.log("all read");
