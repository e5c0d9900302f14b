/**
 * A child process that has no file descriptor when the next part is to be made, or one that was sent to be
 * removed. Argument 2: a folder; 3: `for-a-while`, `for-good` or `removing`. What was stored is all there in
 * the end, and nothing of it twice.
 */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { openLevelRecordBuffer } from "../../../../agent/buffer/records/level-record-buffer.ts";
import { GAPS_STREAM } from "../../../../protocol/topics.ts";
import { systemClock } from "../../../../runtime/clock.ts";
import { silentLog } from "../../../../runtime/log.ts";
import { Metrics } from "../../../../runtime/metrics.ts";
import { takeDescriptors } from "../../../support/descriptors.ts";
import { openBuffer, readAll, record, settled, texts } from "./buffer-fixture.ts";

const PART_BYTES = 16_384;
const dir = process.argv[2]!;
const metrics = new Metrics();
const warnings: object[] = [];
let failures = 0;
const buffer = await openLevelRecordBuffer({
  ...{ dir, device: "pi-1", clock: systemClock, metrics },
  log: { ...silentLog, warn: (fields: object) => void warnings.push(fields) },
  ...{ maxBytes: 1 << 26, partBytes: PART_BYTES, whenFull: "pause", commitDelayMs: 1, commitRecords: 10 },
  patienceMs: process.argv[3] === "for-good" ? 200 : 600_000,
  onFailure: () => failures++,
});

let appended = 0;
/** Half a kilobyte. */
const append = (): Promise<void> => buffer.append([record(String(appended++).padEnd(400))]);

const parts = async (): Promise<number> => (await readdir(join(dir, "chain"))).length;

await append();
if (process.argv[3] === "removing") while ((await parts()) < 5) await append();
await settled(buffer, dir);
const sent = process.argv[3] === "removing" ? (await readAll(buffer)).slice(0, -10) : [];
const giveBack = takeDescriptors();

if (sent.length > 0) {
  const givesBack = [giveBack];
  const acknowledged = buffer.ack(sent.at(-1)!.epoch, sent.at(-1)!.sequence);
  // Where the disk is slow the next part's folder is still being synced, which gives its descriptors back then.
  for (; (await repeats()) < 2; await turn()) givesBack.push(takeDescriptors());
  await acknowledged;
  assert.match(JSON.stringify(warnings[0]), /EMFILE/);
  for (const giveSomeBack of givesBack) giveSomeBack();
  // What is written to and what comes next, and perhaps the part that the last ten stand in.
  while ((await parts()) > 3) await turn();
  assert.equal(failures, 0);
  await buffer.close();
  await expectAll(appended, sent.length);
  console.log("all there");
  process.exit();
}

// The present part takes almost twice its size meanwhile.
while (appended < (1.8 * PART_BYTES) / 512) await append();
assert.ok(await repeats(), "it was tried");
assert.match(JSON.stringify(warnings[0]), /Too many open files|EMFILE/);

if (process.argv[3] === "for-good") {
  let stored = appended;
  await assert.rejects(
    async () => {
      for (;;) {
        await append();
        stored++;
      }
    },
    { code: "BUFFER_FAILED", message: /the next part cannot be made: .*Too many open files/ },
  );
  assert.equal(failures, 1);
  giveBack();
  await buffer.close();
  await expectAll(stored);
} else {
  // More than fits: the last ones wait for the part that cannot be made yet.
  const waiting = Array.from({ length: 100 }, append);
  const before = await repeats();
  while ((await repeats()) < before + 2) await turn();
  giveBack();
  await Promise.all(waiting);
  assert.equal(failures, 0);
  await buffer.close();
  await expectAll(appended);
}
console.log("all there");

async function repeats(): Promise<number> {
  const { values } = await metrics.counter("headwater_buffer_repeats_total", "repeats").get();
  return values[0]?.value ?? 0;
}

async function expectAll(stored: number, from = 0): Promise<void> {
  const again = await openBuffer(dir);
  const frames = await readAll(again);
  const numbers = texts(frames, "sensors").map(Number);
  assert.deepEqual(
    numbers,
    Array.from({ length: stored - from }, (_, i) => from + i),
  );
  assert.deepEqual(texts(frames, GAPS_STREAM), []);
  await again.close();
}
