/** A child process that runs out of file descriptors while it reads its buffer: nothing is damaged, and all is there afterwards. */
import assert from "node:assert/strict";
import { openLevelRecordBuffer } from "../../../../agent/buffer/records/level-record-buffer.ts";
import { GAPS_STREAM } from "../../../../protocol/topics.ts";
import { systemClock } from "../../../../runtime/clock.ts";
import { silentLog } from "../../../../runtime/log.ts";
import { Metrics } from "../../../../runtime/metrics.ts";
import { takeDescriptors } from "../../../support/descriptors.ts";
import { readAll, record, settled, texts } from "./buffer-fixture.ts";

const buffer = await openLevelRecordBuffer({
  dir: process.argv[2]!,
  device: "pi-1",
  clock: systemClock,
  log: silentLog,
  metrics: new Metrics(),
  maxBytes: 1 << 26,
  partBytes: 8_192,
  whenFull: "pause",
  commitDelayMs: 1,
  commitRecords: 10,
});
for (let i = 0; i < 100; i++) await buffer.append([record(String(i).padEnd(400))]);
await settled(buffer, process.argv[2]!);
const last = (await buffer.read(undefined, 1))[0];
const giveBack = takeDescriptors();
const reading = buffer.read(last, 1_000_000);
await assert.rejects(reading, { code: "EMFILE" });
giveBack();
const frames = await readAll(buffer);
assert.equal(texts(frames, "sensors").length, 100);
assert.deepEqual(texts(frames, GAPS_STREAM), []);
await buffer.close();
console.log("all read");
