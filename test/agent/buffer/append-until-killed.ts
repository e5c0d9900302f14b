/**
 * A child process that appends numbered records and prints each number once it is acknowledged. With
 * `ack` it also takes frames out, oldest first, and prints their numbers with a minus beforehand, and
 * the epochs that it forgot.
 */
import { randomInt } from "node:crypto";
import { epochName } from "../../../protocol/frame.ts";
import { forEachRecord } from "../../../protocol/record-batch.ts";
import { openBuffer, record } from "./buffer-fixture.ts";

const [dir = "", from = "0", mode = ""] = process.argv.slice(2);
// Parts of two or three groups, so that a kill meets every step of making, closing and removing them.
const buffer = await openBuffer(dir, { commitDelayMs: 2, commitRecords: 40, partBytes: 16_384 });
let next = Number(from);
process.stdout.write("open\n");

/** Several writers, so that groups differ in size. */
async function write(key: string): Promise<void> {
  for (;;) {
    const n = next++;
    const value = Buffer.from(String(n));
    await buffer.append([
      { ...record(String(n).padEnd(randomInt(8, 400)), key), mark: { source: key, value } },
    ]);
    process.stdout.write(`${n}\n`);
  }
}

async function remove(): Promise<void> {
  for (;;) {
    await buffer.waiting(undefined, new AbortController().signal);
    const frames = await buffer.read(undefined, 30_000);
    const numbers: number[] = [];
    for (const frame of frames) {
      for (const run of frame.runs) forEachRecord(run, (payload) => numbers.push(Number(payload.toString())));
    }
    await new Promise<void>((resolve) => {
      process.stdout.write(numbers.map((n) => `-${n}\n`).join(""), () => resolve());
    });
    for (const { epoch, sequence } of frames) await buffer.ack(epoch, sequence);
    for (const epoch of await buffer.drainedEpochs()) {
      await buffer.forgetEpoch(epoch);
      process.stdout.write(`forgot ${epochName(epoch)}\n`);
    }
  }
}

for (let i = 0; i < 12; i++) void write(`pi-1/${i}`);
if (mode === "ack") void remove();
