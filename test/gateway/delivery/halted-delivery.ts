/** A program that delivers, says when its n-th cut has come to a step, and does nothing more: `DIR STEP N`. */
import { writeSync } from "node:fs";
import { openRig } from "./delivery-rig.ts";

const [dir, step, nth] = process.argv.slice(2) as [string, string, string];
let seen = 0;
const rig = await openRig(dir, {
  bufferBytes: 600,
  bufferSeconds: 0.05,
  onStep: (at) => {
    if (at !== step || ++seen !== Number(nth)) return;
    writeSync(1, "halted\n");
    return new Promise(() => {});
  },
});
await rig.delivery.start();
