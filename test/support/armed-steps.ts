/**
 * Lets a test kill or pause this process right after a step of its work: sends itself a signal after the next `STEP
 * SIGNAL` that it reads. Tells each step, and what it has to log, as a line.
 */
import { type Log, silentLog } from "../../runtime/log.ts";

/** @returns called after each step */
export function armedSteps(): (step: string) => void {
  let awaited: string | undefined;
  let signal = "";
  process.stdin.on("data", (text) => {
    [awaited, signal = ""] = String(text).trim().split(" ");
    process.stdout.write("armed\n");
  });
  // Nobody is left behind when the test ends.
  process.stdin.on("end", () => process.exit());
  return (step) => {
    process.stdout.write(`step ${step}\n`);
    if (step !== awaited) return;
    awaited = undefined;
    process.kill(process.pid, signal);
  };
}

/** Lines that the test reads. */
export function toldLog(): Log {
  const say = (fields: object, message: string): void => {
    process.stdout.write(`log ${message} ${JSON.stringify(fields)}\n`);
  };
  const log: Log = { ...silentLog, info: say, warn: say, error: say, child: () => log };
  return log;
}
