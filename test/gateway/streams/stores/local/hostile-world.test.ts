/** Random lives of a local store (hostile-world.ts). Each has crashes, refusals, damage and jumps of its own. */
import test, { type TestContext } from "node:test";
import { SmallDisk } from "../../../../support/small-disk.ts";
import { liveThrough } from "./hostile-world.ts";

const STEPS = 200;
const DISK_BYTES = 48 * 1_048_576;
/** A life takes seconds: so long only where it hangs. */
const A_LIFE = { timeout: 240_000 };

async function live(t: TestContext, seed: number, disk?: string): Promise<void> {
  const lines: string[] = [];
  try {
    await liveThrough({ seed, steps: STEPS, say: (line) => lines.push(line), ...(disk && { disk }) });
  } catch (error) {
    t.diagnostic(lines.join("\n"));
    throw error;
  }
}

for (const seed of [3, 1_041, 4_212]) {
  test(
    `whatever happens, what was acknowledged is there once, whole and in order (seed ${seed})`,
    A_LIFE,
    (t) => live(t, seed),
  );
}

test("also on a small disk that is full at times", A_LIFE, async (t) => {
  const disk = await SmallDisk.make(DISK_BYTES);
  if (typeof disk === "string") return t.skip(disk);
  t.after(() => disk.remove());
  await live(t, 18, disk.path);
});
