/** How much memory there is for this process, so that what it sets aside fits into small machines and containers. */
import { totalmem } from "node:os";

/** Of the machine, or of the container around this process where that is less. */
export function machineMemoryBytes(): number {
  // Without a limit it is 0, or larger than any machine.
  const limit = process.constrainedMemory();
  const machine = totalmem();
  return limit > 0 ? Math.min(limit, machine) : machine;
}
