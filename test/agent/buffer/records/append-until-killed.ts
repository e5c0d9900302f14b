/**
 * A child process that appends numbered records and prints each number once it is acknowledged. With
 * `ack` it also takes frames out, oldest first, and prints their numbers with a minus beforehand, and
 * the epochs that it forgot. With `epochs` it does that too, and begins new epochs all the time. With
 * `drop` it takes none out: the buffer is small and drops its oldest records, those whose number is no
 * multiple of four before the others.
 */
import { randomInt } from "node:crypto";
import { epochName } from "../../../../protocol/frame.ts";
import { forEachRecord } from "../../../../protocol/record-batch.ts";
import { openBuffer, record } from "./buffer-fixture.ts";

const [dir = "", from = "0", mode = ""] = process.argv.slice(2);
// Full after a few parts.
const SMALL = { maxBytes: 80_000, whenFull: "drop-oldest", priorities: { alarms: 1 } } as const;
// Parts of two or three groups, so that a kill meets every step of making, closing and removing them.
const buffer = await openBuffer(dir, {
  commitDelayMs: 2,
  commitRecords: 40,
  partBytes: 16_384,
  ...(mode === "drop" ? SMALL : {}),
});
let next = Number(from);
/** What matters gets a stream of its own, so that parts hold both and are written again without the others. */
const streamOf = (n: number): string => (mode === "drop" && n % 4 === 0 ? "alarms" : "sensors");
process.stdout.write("open\n");

/** Several writers, so that groups differ in size. */
async function write(key: string): Promise<void> {
  for (;;) {
    const n = next++;
    const value = Buffer.from(String(n));
    await buffer.append([
      { ...record(String(n).padEnd(randomInt(8, 400)), key, streamOf(n)), mark: { source: key, value } },
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

async function begin(): Promise<void> {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, randomInt(0, 10)));
    await buffer.beginEpoch();
  }
}

for (let i = 0; i < 12; i++) void write(`pi-1/${i}`);
if (mode === "ack" || mode === "epochs") void remove();
if (mode === "epochs") void begin();
