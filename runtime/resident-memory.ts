/**
 * How much memory this process holds. Linux tells it in a file: while there is no descriptor left to read that by, it is
 * what it was before, as nothing that shows it is worth the end of the process.
 */
let lastBytes = 0;

export function residentBytes(): number {
  try {
    lastBytes = process.memoryUsage.rss();
  } catch {
    // Told by what cannot be opened, too.
  }
  return lastBytes;
}
