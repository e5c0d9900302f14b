/** A program that runs the statement and ends itself by SIGKILL after the n-th of a step: `DIR STEP N`. */
import { openRig } from "./analytics-rig.ts";

const [dir, step, nth] = process.argv.slice(2) as [string, string, string];
let seen = 0;
const rig = await openRig(dir, {
  onStep: (at) => {
    if (at === step && ++seen === Number(nth)) process.kill(process.pid, "SIGKILL");
  },
});
await rig.analytics.start();
