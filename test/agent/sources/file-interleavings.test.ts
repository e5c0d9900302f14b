/**
 * What a rotator does, at each place where it can come between two looks of the source: whatever the
 * source saw before it and sees after it, each line is stored once, in order.
 */
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import test from "node:test";
import { randomFrom } from "../../support/ordeal.ts";
import { type Play, playAll } from "./plays.ts";
import { randomPlay } from "./random-rotations.ts";

/** By then the source has come from one file to the next. */
const LOOKS = 36;
const RANDOM_PLAYS = 16;

interface Scene extends Omit<Play, "looks"> {
  readonly name: string;
}

const SCENES: readonly Scene[] = [
  {
    name: "copied and truncated twice",
    first: (log) => log.write(5),
    acts: [
      (log) => {
        log.copyAndTruncate();
        log.write(8);
      },
      (log) => log.copyAndTruncate(),
    ],
  },
  {
    name: "copied and truncated three times",
    first: (log) => log.write(5),
    acts: [
      (log) => {
        log.copyAndTruncate();
        log.write(8);
      },
      (log) => log.copyAndTruncate(),
      (log) => {
        log.write(3);
        log.copyAndTruncate();
      },
    ],
  },
  {
    name: "truncated, then copied and truncated",
    first: (log) => log.write(5),
    acts: [
      (log) => {
        log.truncate();
        log.write(8);
      },
      (log) => log.copyAndTruncate(),
    ],
    gaps: 1,
  },
  {
    name: "copied and truncated, renamed, compressed",
    first: (log) => log.write(5),
    acts: [
      (log) => {
        log.copyAndTruncate();
        log.write(8);
      },
      (log) => log.copyAndTruncate(),
      (log) => {
        log.write(3);
        log.compress(log.rename());
      },
      (log) => log.write(2),
    ],
  },
  {
    name: "new, copied and truncated, written, renamed and compressed",
    first: (log) => log.write(5),
    acts: [
      (log) => {
        log.rename();
        log.write(3);
      },
      (log) => {
        log.copyAndTruncate();
        log.write(3);
        log.compress(log.rename());
      },
      (log) => log.write(2),
    ],
  },
  {
    name: "renamed without the end of its only line",
    first: (log) => log.write(5),
    acts: [
      (log) => {
        log.rename();
        log.writeUnended();
      },
      (log) => {
        log.rename();
      },
      (log) => log.write(3),
    ],
  },
  {
    name: "copied slowly and truncated, twice",
    first: (log) => log.write(5),
    acts: [
      (log) => {
        log.copyAndTruncate();
        log.write(8);
      },
      (log) => writeFileSync(`${log.path}.1`, ""),
      (log) => writeFileSync(`${log.path}.1`, readFileSync(log.path).subarray(0, 100)),
      (log) => log.copyAndTruncate(`${log.path}.1`),
      (log) => log.write(3),
    ],
  },
  {
    name: "empty, then filled, copied and truncated",
    first: (log) => log.touch(),
    acts: [
      () => {},
      (log) => {
        log.write(3);
        log.copyAndTruncate();
      },
      (log) => log.write(3),
    ],
  },
  {
    name: "backed up, then renamed",
    first: (log) => log.write(5),
    acts: [
      (log) => log.copyTo(`${log.path}.bak`),
      (log) => log.write(5),
      (log) => {
        log.rename();
        log.write(3);
      },
    ],
  },
  {
    name: "backed up, then renamed at once",
    first: (log) => log.write(5),
    acts: [
      (log) => log.copyTo(`${log.path}.bak`),
      (log) => {
        log.rename();
        log.write(3);
      },
    ],
  },
  {
    name: "renamed to numbers, and compressed",
    first: (log) => log.write(5),
    acts: [
      (log) => {
        log.rename(`${log.path}.1`);
        log.write(3);
      },
      (log) => {
        log.compress(`${log.path}.1`);
        renameSync(`${log.path}.1.gz`, `${log.path}.2.gz`);
        log.rename(`${log.path}.1`);
      },
      (log) => log.write(3),
      (log) => {
        renameSync(`${log.path}.2.gz`, `${log.path}.3.gz`);
        log.compress(`${log.path}.1`);
        renameSync(`${log.path}.1.gz`, `${log.path}.2.gz`);
        log.rename(`${log.path}.1`);
        log.write(2);
      },
    ],
  },
  {
    name: "renamed, and no new one",
    first: (log) => log.write(5),
    acts: [
      (log) => {
        log.write(3);
        log.rename();
      },
      (log) => {
        log.write(3);
        log.rename();
      },
      (log) => log.write(1),
    ],
  },
  {
    name: "renamed, copied and truncated, compressed",
    first: (log) => log.write(5),
    acts: [
      (log) => {
        log.rename();
        log.write(3);
      },
      (log) => log.compress(log.copyAndTruncate()),
      (log) => log.write(3),
    ],
  },
  {
    name: "copied and truncated and written at once, twice",
    first: (log) => log.write(5),
    acts: [
      (log) => {
        log.write(3);
        log.copyAndTruncate();
        log.write(3);
      },
      (log) => {
        log.write(3);
        log.copyAndTruncate();
        log.write(9);
      },
    ],
  },
];

/** Of two acts the second at each look once; of more at looks that differ each time. */
function plays(scene: Scene): Play[] {
  const random = randomFrom(1);
  const count = scene.acts.length - 1;
  if (count === 1) return Array.from({ length: LOOKS }, (_, after) => ({ ...scene, looks: [0, after] }));
  const looks = (): number[] => Array.from({ length: count }, () => Math.floor(random() ** 2 * LOOKS));
  return Array.from({ length: RANDOM_PLAYS }, () => ({ ...scene, looks: [0, ...looks()] }));
}

for (const pattern of ["app.log", "*.log"]) {
  for (const scene of SCENES) test(`${scene.name}: ${pattern}`, (t) => playAll(t, pattern, plays(scene)));

  test(`whatever is done to it: ${pattern}`, (t) => {
    const random = randomFrom(7);
    return playAll(
      t,
      pattern,
      Array.from({ length: 3 * RANDOM_PLAYS }, () => randomPlay(random)),
    );
  });
}
