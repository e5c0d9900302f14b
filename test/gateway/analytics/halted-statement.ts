/** A program that runs the statement, says when it has come to the n-th of a step, and does nothing more: `DIR STEP N`. */
import { writeSync } from "node:fs";
import { openRig } from "./analytics-rig.ts";

const [dir, step, nth] = process.argv.slice(2) as [string, string, string];
let seen = 0;
const rig = await openRig(dir, {
  onStep: (at) => {
    if (at !== step || ++seen !== Number(nth)) return;
    writeSync(1, "halted\n");
    return new Promise(() => {});
  },
});
await rig.analytics.start();
