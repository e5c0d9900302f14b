import assert from "node:assert/strict";
import { join } from "node:path";
import test from "node:test";
import { openLevelFootageBuffer } from "../../../../agent/buffer/footage/level-footage-buffer.ts";
import type { FootageGap } from "../../../../agent/buffer/footage-buffer.ts";
import { systemClock } from "../../../../runtime/clock.ts";
import { silentLog } from "../../../../runtime/log.ts";
import { Metrics } from "../../../../runtime/metrics.ts";
import { SmallDisk } from "../../../support/small-disk.ts";
import { openBuffer, readAll, record, texts } from "../records/buffer-fixture.ts";
import { madeUnit } from "./made-unit.ts";

test("footage on a disk that is smaller than it may take leaves room for records, and the newest stays", {
  timeout: 180_000,
}, async (t) => {
  const disk = await SmallDisk.make(240 * 1_048_576);
  if (typeof disk === "string") return t.skip(disk);
  t.after(() => disk.remove());
  const gaps: FootageGap[] = [];
  const minFreeBytes = 16 * 1_048_576;
  const footage = await openLevelFootageBuffer({
    dir: join(disk.path, "footage"),
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    maxBytes: 8 * 1_073_741_824,
    minFreeBytes,
    onGap: (gap) => gaps.push(gap),
  });
  const records = await openBuffer(join(disk.path, "records"), { whenFull: "reject", minFreeBytes });
  for (let i = 1; i <= 70; i++) await footage.append(madeUnit("yard", i, 4_000_000));
  const { waitingUnits, droppedUnits } = footage.usage();
  assert.equal(waitingUnits + droppedUnits, 70);
  assert.equal(gaps.length, droppedUnits);
  assert.ok(waitingUnits > 5, `${waitingUnits} wait`);
  await records.append([record("one")]);
  await records.close();
  const again = await openBuffer(join(disk.path, "records"), { whenFull: "reject", minFreeBytes });
  await again.append([record("two")]);
  assert.deepEqual(texts(await readAll(again)), ["one", "two"]);
  await again.close();
  await footage.close();
  await disk.unmount();
});
