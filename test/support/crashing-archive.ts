/**
 * A video archive in a process of its own, to be killed: `crashing-archive.ts DIR hang-before-index|run`.
 * It archives units one after the other and prints a line after each step.
 */

import { join } from "node:path";
import { FragmentIndex, type FragmentRow } from "../../gateway/video/archive/fragment-index.ts";
import { openVideo } from "../../gateway/video/video-archive.ts";
import { systemClock } from "../../runtime/clock.ts";
import { silentLog } from "../../runtime/log.ts";
import { Metrics } from "../../runtime/metrics.ts";
import { makeClip, sendUnit, unitsOf } from "./h264-rtp.ts";

export const CRASH_EPOCH = 0xc4a5n;
export const CRASH_FIRST_US = 1_800_000_000_000_000;
export const CRASH_FRAMES = 150;

/** Stops for ever where the file is on disk and its row is not. */
class HangingIndex extends FragmentIndex {
  override put(_camera: string, row: FragmentRow): Promise<void> {
    process.stdout.write(`file ${row.id}\n`);
    return new Promise(() => setInterval(() => undefined, 1_000));
  }
}

async function main(dir: string, mode: string): Promise<void> {
  const clip = await makeClip(CRASH_FRAMES);
  const video = await openVideo({
    dir,
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    retentionHours: 1_000_000,
    maxBytes: 1e12,
    ...(mode === "hang-before-index" && { index: new HangingIndex(join(dir, "index")) }),
  });
  const feed = video.openFeed("yard", clip.sdp);
  process.stdout.write("ready\n");
  for (const unit of unitsOf(clip, CRASH_EPOCH, CRASH_FIRST_US)) {
    sendUnit(feed, unit);
    await feed.drained();
    process.stdout.write(`persisted ${feed.persisted()[0]?.last}\n`);
  }
  await feed.close();
  await video.close();
}

if (/crashing-archive\.[jt]s$/.test(process.argv[1] ?? "")) await main(process.argv[2]!, process.argv[3]!);
