/** A program that comes to a step of its work and no further: killed there, or halted until the power is cut. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeSync } from "node:fs";
import { nodeFlags } from "./script.ts";
import type { SmallDisk } from "./small-disk.ts";

/** For the program: to be called behind each step. */
export function stopBehind(step: string, nth: string, how: "halt" | undefined) {
  let seen = 0;
  return (at: string): Promise<void> | undefined => {
    if (at !== step || ++seen !== Number(nth)) return undefined;
    if (how === undefined) process.kill(process.pid, "SIGKILL");
    writeSync(1, "halted\n");
    return new Promise(() => {});
  };
}

/**
 * Resolves when the power was cut and the disk is mounted again.
 * @param script of a program that stops by `stopBehind`
 * @param look is called with the program at the step, before the cut
 */
export async function cutPowerAtHalt(
  disk: SmallDisk,
  script: string,
  place: readonly [dir: string, step: string, nth: string],
  look: () => Promise<void> = async () => {},
): Promise<void> {
  const program = spawn(process.execPath, [...nodeFlags, script, ...place, "halt"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(program, "exit");
  try {
    const [how] = await Promise.race([once(program.stdout, "data").then(() => ["halted"]), ended]);
    if (how !== "halted") throw new Error(`${script} ended with ${how} before it came to its step`);
    await look();
    await disk.cutPower(program.pid);
  } finally {
    program.kill("SIGKILL");
    await ended;
  }
  await disk.unmount();
  await disk.mount();
}
