/** Whatever writers and rotators may do to a log, in any order. */
import { existsSync, renameSync } from "node:fs";
import type { Act, Play } from "./plays.ts";
import type { RotatedLog } from "./rotated-log.ts";

const MOST_ACTS = 7;
const MOST_LOOKS = 56;
const MOST_NUMBERED = 8;

/** .2 → .3, .1 → .2, the log → .1; what was .1 is compressed, as `delaycompress` does. */
function cascade(log: RotatedLog, compressed: boolean): void {
  for (let n = MOST_NUMBERED; n >= 1; n--)
    for (const ending of ["", ".gz"]) {
      const from = `${log.path}.${n}${ending}`;
      if (existsSync(from)) renameSync(from, `${log.path}.${n + 1}${ending}`);
    }
  log.rename(`${log.path}.1`);
  if (compressed && existsSync(`${log.path}.2`)) log.compress(`${log.path}.2`);
}

const ROTATIONS: readonly (readonly [name: string, act: Act])[] = [
  ["copy and truncate", (log) => log.copyAndTruncate()],
  ["copy, truncate and compress", (log) => log.compress(log.copyAndTruncate())],
  ["rename", (log) => log.rename()],
  ["rename and compress", (log) => log.compress(log.rename())],
  ["rename to .1", (log) => cascade(log, false)],
  ["rename to .1 and compress .2", (log) => cascade(log, true)],
];

export function randomPlay(random: () => number): Play {
  const below = (count: number): number => Math.floor(random() * count);
  const said: string[] = [];
  const act = (): Act => {
    const [name, rotate] = ROTATIONS[below(ROTATIONS.length)]!;
    const [before, after] = [below(3) === 0 ? 1 + below(4) : 0, below(2) === 0 ? 1 + below(4) : 0];
    const [unended, rotated] = [below(6) === 0, below(5) > 0];
    said.push(rotated ? `${before}${unended ? "½" : ""} ${name} ${after}` : `${before} ${after}`);
    return (log) => {
      if (before > 0) log.write(before);
      if (rotated && unended) log.writeUnended();
      if (rotated && existsSync(log.path)) rotate(log);
      if (after > 0) log.write(after);
    };
  };
  const acts: Act[] = Array.from({ length: 2 + below(MOST_ACTS - 1) }, act);
  // Small ones more often: that is where much happens at once.
  const looks = acts.map((_, i) => (i === 0 ? 0 : Math.floor(random() ** 2 * MOST_LOOKS)));
  // A last line without its end is read once something comes behind it.
  acts.push((log) => log.write(1));
  return { first: (log) => log.write(5), acts, looks: [...looks, MOST_LOOKS], says: said.join(" | ") };
}
