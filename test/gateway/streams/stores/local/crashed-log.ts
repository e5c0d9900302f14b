/**
 * A log whose last writes never reached the disk: `DIR write` appends and ends by SIGKILL with all of it in
 * the page cache; `DIR read` opens the same log, says what it reads, and waits to be ended.
 */
import { writeSync } from "node:fs";
import { openLocalStreams } from "../../../../../gateway/streams/stores/local/local.ts";
import { realDisk } from "../../../../../gateway/streams/stores/local/log/segment-file.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { silentLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { makeFrame } from "../../../../contract/streams.ts";
import { textsByKey } from "./acknowledged.ts";
import { lyingDisk, textsOfFrame } from "./append-forever.ts";

const FRAMES = 200n;

const [dir, what] = process.argv.slice(2) as [string, "write" | "read"];
process.on("disconnect", () => process.exit(1));
const streams = await openLocalStreams({
  dir,
  clock: systemClock,
  log: silentLog,
  metrics: new Metrics(),
  disk: what === "write" ? lyingDisk : realDisk,
});
if (what === "write") {
  for (let n = 1n; n <= FRAMES; n++) await streams.appendFrame(makeFrame("s", n, textsOfFrame(n)));
  process.kill(process.pid, "SIGKILL");
} else {
  writeSync(1, `${JSON.stringify([...(await textsByKey(streams))])}\n`);
}
