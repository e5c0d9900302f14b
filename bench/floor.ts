/** The physical limit beside each figure: the same bytes appended to a fresh file, one fdatasync a batch. */
import { open, rm } from "node:fs/promises";

export interface Floor {
  readonly bytesPerSecond: number;
  /** Of one write and its fdatasync. */
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** As `appendFloor`, over a file that holds bytes already: nothing has to be allocated, so only data is synced. */
export async function overwriteFloor(file: string, totalBytes: number, batchBytes: number): Promise<Floor> {
  const handle = await open(file, "w");
  const chunk = Buffer.alloc(4 * 1_048_576, 0x5a);
  for (let written = 0; written < totalBytes; written += chunk.length) await handle.write(chunk);
  await handle.sync();
  await handle.close();
  return timed(file, "r+", totalBytes, batchBytes);
}

/** Writes `totalBytes` in batches of `batchBytes` to `file`, and removes it. */
export async function appendFloor(file: string, totalBytes: number, batchBytes: number): Promise<Floor> {
  return timed(file, "w", totalBytes, batchBytes);
}

async function timed(
  file: string,
  flags: "w" | "r+",
  totalBytes: number,
  batchBytes: number,
): Promise<Floor> {
  const batch = Buffer.alloc(batchBytes, 0xa5);
  const handle = await open(file, flags);
  const waits: number[] = [];
  const began = performance.now();
  for (let written = 0; written < totalBytes; written += batchBytes) {
    const start = performance.now();
    await handle.write(batch, 0, batchBytes, written);
    await handle.datasync();
    waits.push(performance.now() - start);
  }
  const seconds = (performance.now() - began) / 1000;
  await handle.close();
  await rm(file);
  return {
    bytesPerSecond: (waits.length * batchBytes) / seconds,
    p50Ms: percentile(waits, 0.5),
    p99Ms: percentile(waits, 0.99),
  };
}

/** Nearest rank. @param share such as 0.99 */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

/** For figures: three significant digits are more than a noisy machine can promise. */
export function rounded(value: number): number {
  return Number(value.toPrecision(3));
}
