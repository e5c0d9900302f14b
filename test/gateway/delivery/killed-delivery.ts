/** A program that delivers and ends itself by SIGKILL right after a step of its n-th cut: `DIR STEP N`. */
import { openRig } from "./delivery-rig.ts";

const [dir, step, nth] = process.argv.slice(2) as [string, string, string];
let seen = 0;
const rig = await openRig(dir, {
  bufferBytes: 600,
  bufferSeconds: 0.05,
  onStep: (at) => {
    if (at === step && ++seen === Number(nth)) process.kill(process.pid, "SIGKILL");
  },
});
await rig.delivery.start();
