/** A device that starts again and again without ever reaching its gateway. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { BufferFullError } from "../../../../agent/buffer/record-buffer.ts";
import { PART_OVERHEAD_BYTES } from "../../../../agent/buffer/records/record-chain.ts";
import { eventually } from "../../../support/program.ts";
import { openBuffer, record, temporaryFolder, texts } from "./buffer-fixture.ts";

const STARTS = 80;
/** A full buffer of them has so many parts, and 64 more are no burden. */
const MAX_BYTES = 10 * PART_OVERHEAD_BYTES;
const PART_BYTES = MAX_BYTES / 4;

test("the small parts of many short starts are counted, kept in order, and go when their records do", async (t) => {
  const dir = await temporaryFolder(t);
  let stored = 0;
  for (let start = 0; start < STARTS; start++) {
    const buffer = await openBuffer(dir, {
      maxBytes: MAX_BYTES,
      partBytes: PART_BYTES,
      whenFull: "reject",
      commitDelayMs: 0,
    });
    try {
      await buffer.append([record(String(start))]);
      stored++;
    } catch (error) {
      assert.ok(error instanceof BufferFullError);
    }
    await buffer.close();
  }
  // The tenth part beyond those 68 is the first that would not fit.
  assert.ok(stored > 68 && stored < 79, `${stored} starts stored something`);
  assert.ok((await readdir(join(dir, "chain"))).length <= stored + 1);

  const buffer = await openBuffer(dir, { maxBytes: MAX_BYTES, partBytes: PART_BYTES, whenFull: "reject" });
  assert.equal(buffer.usage().waitingRecords, stored);
  const found: string[] = [];
  for (;;) {
    const frames = await buffer.read(undefined, 100_000);
    if (frames.length === 0) break;
    found.push(...texts(frames));
    for (const { epoch, sequence } of frames) await buffer.ack(epoch, sequence);
  }
  assert.deepEqual(
    found,
    Array.from({ length: stored }, (_, i) => String(i)),
  );
  await buffer.append([record("there is room again")]);
  await eventually("all but what is written to goes", 60_000, async () => {
    const { length } = await readdir(join(dir, "chain"));
    return length <= 2 || undefined;
  });
  assert.ok((await buffer.drainedEpochs()).length >= stored);
  await buffer.close();
});
