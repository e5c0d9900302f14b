/** A program that comes to a step of its work and stops there, so that the power can be cut right behind it. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { nodeFlags } from "./script.ts";
import type { SmallDisk } from "./small-disk.ts";

/**
 * Resolves when the power was cut and the disk is mounted again.
 * @param script says anything once it has come to the step
 * @param look is called with the program at the step, before the cut
 */
export async function cutPowerAtHalt(
  disk: SmallDisk,
  script: string,
  args: readonly string[],
  look: () => Promise<void> = async () => {},
): Promise<void> {
  const program = spawn(process.execPath, [...nodeFlags, script, ...args], {
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
