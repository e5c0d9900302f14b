/** How much memory there is for this process, so that what it sets aside fits into small machines and containers. */
import { totalmem } from "node:os";

const MIB = 1_048_576;

/** Of the machine, or of the container around this process where that is less. */
export function machineMemoryBytes(): number {
  // Without a limit it is 0, or larger than any machine.
  const limit = process.constrainedMemory();
  const machine = totalmem();
  return limit > 0 ? Math.min(limit, machine) : machine;
}

/**
 * What one part of a program may hold at once of what others have sent it, or are to take: an eighth of the memory, at least
 * 64 MiB, of which half is room for the largest call or packet of one, and at most 256 MiB.
 */
export function heldMemoryBytes(machineBytes = machineMemoryBytes()): number {
  return Math.min(256 * MIB, Math.max(64 * MIB, Math.floor(machineBytes / 8)));
}
