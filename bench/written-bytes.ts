/** How much reached a block device, as the kernel counts it. */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { promisify } from "node:util";

const SECTOR_BYTES = 512;

/** @param path on the file system whose device is asked; what the page cache still holds is written first */
export async function writtenTo(path: string): Promise<number> {
  const run = promisify(execFile);
  await run("sync", ["-f", path]);
  const { stdout } = await run("findmnt", ["-n", "-o", "SOURCE", "-T", path]);
  const stat = await readFile(`/sys/block/${basename(stdout.trim())}/stat`, "latin1");
  // Documentation/block/stat.rst: the seventh value is the sectors written.
  return Number(stat.trim().split(/\s+/)[6]) * SECTOR_BYTES;
}
