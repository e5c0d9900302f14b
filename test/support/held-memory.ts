/** How much memory is held that somebody still refers to. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { eventually } from "./program.ts";

setFlagsFromString("--expose-gc");

/** Otherwise what was let go of counts until V8 looks for it. */
export const collectGarbage = runInNewContext("gc") as () => void;

/** Much happens at once or within a second; a machine that is busy with other things may need more. */
const DEADLINE_MS = 60_000;

/** @returns bytes of all ArrayBuffers */
export function bufferBytes(): number {
  collectGarbage();
  return process.memoryUsage().arrayBuffers;
}

/** @returns bytes of all objects and of what they hold outside of the heap, such as ArrayBuffers */
export function usedBytes(): number {
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/**
 * What is let go of is given back some time after a collection, as V8 sweeps ArrayBuffers in a thread of its
 * own. So this looks again and again until no more is held; what is held for good stays too much.
 * @param measure what `sinceBytes` was measured with
 * @returns how many bytes are held
 * @throws after a minute
 */
export async function heldAtMost(bytes: number, sinceBytes: number, measure = bufferBytes): Promise<number> {
  let held = 0;
  const low = async (): Promise<number | undefined> => {
    held = measure() - sinceBytes;
    return held <= bytes ? held : undefined;
  };
  return await eventually(`at most ${bytes} bytes are held`, DEADLINE_MS, low).catch((error: unknown) => {
    throw new Error(`${held} bytes are held, more than ${bytes}`, { cause: error });
  });
}
