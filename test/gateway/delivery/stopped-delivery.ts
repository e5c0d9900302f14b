/**
 * A program that delivers until its n-th cut has come to a step: `DIR STEP N` ends itself there by SIGKILL;
 * with `halt` behind them it says so and does nothing more.
 */
import { stopBehind } from "../../support/stopped-program.ts";
import { openRig } from "./delivery-rig.ts";

const [dir, ...place] = process.argv.slice(2) as [string, string, string, "halt" | undefined];
const rig = await openRig(dir, { bufferBytes: 600, bufferSeconds: 0.05, onStep: stopBehind(...place) });
await rig.delivery.start();
