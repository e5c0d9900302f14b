/** Errors that say nothing of the disk: this process, or the machine, is short of something for now. */

/** open(2): no descriptor for the process, none for the machine, no memory of the kernel's. */
const SHORTAGES = ["EMFILE", "ENFILE", "ENOMEM"];

/**
 * For what could not be opened: takes it for missing or damaged, by giving `otherwise`, unless that cannot
 * be known now. What is whole must not be given up because of that.
 */
export function unlessShort<T>(error: unknown, otherwise: T): T {
  if (SHORTAGES.includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
  return otherwise;
}
