/**
 * Garbage in V8's old space: what only a collection of the whole heap finds. New objects do not count,
 * unless they live on through scavenges, but tables of Maps and Sets that are old themselves do.
 */
import { AsyncResource } from "node:async_hooks";
import { getHeapSpaceStatistics } from "node:v8";
import { collectGarbage } from "./held-memory.ts";

const WARM_UP = 2_000;

/** What promises leave of themselves; a table that comes and goes takes 160 and more. */
export const PROMISES_BYTES = 40;

/** What V8 makes once, as when it has a function ready that it compiled meanwhile on a busy machine, is in one of them. */
const MEASURES = 3;

/**
 * @param rounds of each measure
 * @returns bytes of old space for each of the rounds, the warm-up before them apart: the least of three measures, as what each round leaves is in all
 */
export async function oldGarbageOf(
  round: (i: number) => undefined | Promise<unknown>,
  rounds = 10_000,
): Promise<number> {
  const run = async (from: number, to: number): Promise<void> => {
    for (let i = from; i < to; i++) {
      const ended = round(i);
      if (ended !== undefined) await ended;
    }
  };
  // The test runner keeps a Map of the promises that come of a test, and tables of that are garbage, too: some 120 bytes for
  // each round. Of these it does not know.
  const outside = new AsyncResource("OldGarbage", { triggerAsyncId: 0 });
  await outside.runInAsyncScope(run, undefined, 0, WARM_UP);
  let least = Number.POSITIVE_INFINITY;
  for (let measure = 0; measure < MEASURES; measure++) {
    // Whatever the rounds use again is old from here on.
    collectGarbage();
    collectGarbage();
    const before = oldBytes();
    const from = WARM_UP + measure * rounds;
    await outside.runInAsyncScope(run, undefined, from, from + rounds);
    least = Math.min(least, (oldBytes() - before) / rounds);
  }
  return least;
}

function oldBytes(): number {
  return getHeapSpaceStatistics().find(({ space_name }) => space_name === "old_space")!.space_used_size;
}
