/** A child process that appends numbered records and prints each number once it is acknowledged. */
import { randomInt } from "node:crypto";
import { openBuffer, record } from "./buffer-fixture.ts";

const [dir = "", from = "0"] = process.argv.slice(2);
const buffer = await openBuffer(dir, { commitDelayMs: 2, commitRecords: 40 });
let next = Number(from);
process.stdout.write("open\n");

/** Several writers, so that groups differ in size; the acknowledging ack makes frames come and go. */
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
for (let i = 0; i < 12; i++) void write(`pi-1/${i}`);
