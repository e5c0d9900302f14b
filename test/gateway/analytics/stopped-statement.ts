/**
 * A program that runs the statement until it has come to the n-th of a step: `DIR STEP N` ends itself there by
 * SIGKILL; with `halt` behind them it says so and does nothing more.
 */
import { stopBehind } from "../../support/stopped-program.ts";
import { openRig } from "./analytics-rig.ts";

const [dir, ...place] = process.argv.slice(2) as [string, string, string, "halt" | undefined];
const rig = await openRig(dir, { onStep: stopBehind(...place) });
await rig.analytics.start();
