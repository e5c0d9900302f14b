/** How much memory buffers hold that somebody still refers to. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { eventually } from "./program.ts";

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

/** @returns bytes of all ArrayBuffers */
export function bufferBytes(): number {
  collectGarbage();
  return process.memoryUsage().arrayBuffers;
}

/** Resolves once it is so: what is let go of is given back some time after a collection. @throws after 10 s */
export async function heldAtMost(bytes: number, sinceBytes: number): Promise<void> {
  let held = 0;
  const low = async (): Promise<true | undefined> => {
    held = bufferBytes() - sinceBytes;
    return held <= bytes || undefined;
  };
  await eventually(`at most ${bytes} bytes are held`, 10_000, low).catch((error: unknown) => {
    throw new Error(`${held} bytes are held`, { cause: error });
  });
}
