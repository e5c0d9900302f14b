/** Asks a disk whether it still takes writes, by one. */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";

const FILE = "disk-probe";
const CONTENT = Buffer.from("Written again and again to see whether this disk still takes writes.\n");

/**
 * Resolves once the same bytes in the same place of `folder` are on the disk again: that needs no
 * room, so a full disk, which stops nothing that is stored already, passes too. Rejects on a disk
 * that fails or became read-only; does not come back on one that hangs.
 */
export async function probeDisk(folder: string): Promise<void> {
  const file = await open(join(folder, FILE), constants.O_RDWR | constants.O_CREAT, 0o600);
  try {
    await file.write(CONTENT, 0, CONTENT.length, 0);
    await file.datasync();
  } finally {
    await file.close();
  }
}
