/** A week without a gateway, scaled down: as many parts of the chain as a week makes, and smaller ones. */
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { forEachRecord } from "../../../../protocol/record-batch.ts";
import { openBuffer, record, temporaryFolder } from "./buffer-fixture.ts";

/** Seven days at 100 records/s of 200 bytes fill 3,200 parts of 4 MiB. */
const PARTS = 800;
const PART_BYTES = 4_096;
const RECORDS_A_CALL = 10;
const RECORD_BYTES = 200;

test("after a long outage the buffer opens quickly, without reading its parts, and drains in order", async (t) => {
  const dir = await temporaryFolder(t);
  const options = { partBytes: PART_BYTES, commitRecords: 20 };
  let buffer = await openBuffer(dir, options);
  let made = 0;
  const append = (): Promise<void> =>
    buffer.append(
      Array.from({ length: RECORDS_A_CALL }, () =>
        record(String(made++).padEnd(RECORD_BYTES), `k${made % 7}`),
      ),
    );
  while ((await partsIn(dir)) < PARTS) {
    for (let i = 0; i < 100; i++) await Promise.all([append(), append()]);
  }
  await buffer.close();
  // Quick is what does not look into them: that is told by what is read, on however busy a machine.
  const before = await bytesRead();
  buffer = await openBuffer(dir, options);
  const read = (await bytesRead()) - before;
  assert.ok(read < (made * RECORD_BYTES) / 4, `${read} bytes were read, ${made} records wait`);
  assert.equal(buffer.usage().waitingRecords, made);
  const last = new Map<string, number>();
  let drained = 0;
  while (drained < made) {
    const frames = await buffer.read(undefined, 262_144);
    assert.ok(frames.length > 0);
    for (const frame of frames) {
      for (const run of frame.runs) {
        forEachRecord(run, (payload) => {
          const n = Number(payload.toString());
          assert.ok(n > (last.get(run.key) ?? -1), `${n} behind ${last.get(run.key)}`);
          last.set(run.key, n);
          drained++;
        });
      }
    }
    const { epoch, sequence } = frames.at(-1)!;
    await buffer.ack(epoch, sequence);
  }
  assert.equal(drained, made);
  assert.equal(buffer.usage().waitingRecords, 0);
  await buffer.close();
  assert.equal(await partsIn(dir), 0);
});

/** By this process so far, from whatever file. */
async function bytesRead(): Promise<number> {
  return Number(/^rchar: (\d+)$/m.exec(await readFile("/proc/self/io", "utf8"))?.[1]);
}

async function partsIn(dir: string): Promise<number> {
  return (await readdir(join(dir, "chain"))).length;
}
