/** A child process that stores units until it is killed, and says on its IPC channel which are stored. */
import { openLevelFootageBuffer } from "../../../../agent/buffer/footage/level-footage-buffer.ts";
import { epochName } from "../../../../protocol/frame.ts";
import { systemClock } from "../../../../runtime/clock.ts";
import { silentLog } from "../../../../runtime/log.ts";
import { Metrics } from "../../../../runtime/metrics.ts";
import { madeUnit } from "./made-unit.ts";

const [dir, seed] = process.argv.slice(2) as [string, string];
const buffer = await openLevelFootageBuffer({
  dir,
  clock: systemClock,
  log: silentLog,
  metrics: new Metrics(),
  maxBytes: 1 << 30,
});
process.on("disconnect", () => process.exit(0));
for (let number = 1; ; number++) {
  const place = await buffer.append(madeUnit("yard", Number(seed) + number, 40_000));
  process.send?.({
    epoch: epochName(place.epoch),
    sequence: Number(place.sequence),
    seed: Number(seed) + number,
  });
  // Every other unit is acknowledged, so that deletions are torn as well.
  if (number % 3 === 0) await buffer.ack("yard", place.epoch, place.sequence, place.sequence);
}
