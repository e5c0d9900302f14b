/** Previews in a process that has no file descriptor left; prints why each run of ffmpeg ended. */
import { openSync } from "node:fs";
import { Previews } from "../../gateway/video/preview.ts";
import { type Log, silentLog } from "../../runtime/log.ts";

/** Asked right before each run; whatever was closed since the last is taken as well. */
function takeAllDescriptors(): string {
  try {
    for (;;) openSync("/dev/null", "r");
  } catch {
    return "rtsp://127.0.0.1:1/x";
  }
}

async function main(): Promise<void> {
  const reasons: unknown[] = [];
  const log: Log = { ...silentLog, warn: ({ reason }) => void reasons.push(reason) };
  // Opened before there is nothing left to open it with.
  process.stdout.write("");
  const previews = new Previews({ urlOf: takeAllDescriptors, log, retryMs: 1 });
  previews.watch("yard", { data: () => undefined, backlogBytes: () => 0 });
  while (reasons.length < 3) await new Promise((resolve) => setTimeout(resolve, 5));
  await previews.close();
  process.stdout.write(`${reasons.slice(0, 3).join("\n")}\n`, () => process.exit(0));
}

if (/starved-preview\.[jt]s$/.test(process.argv[1] ?? "")) await main();
