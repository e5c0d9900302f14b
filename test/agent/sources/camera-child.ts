/** A child process with a camera source, which tells ffmpeg's pid on its IPC channel and then waits to be killed. */
import type { FootageBuffer } from "../../../agent/buffer/footage-buffer.ts";
import { CameraSource } from "../../../agent/sources/camera.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";

const nowhere = { append: async () => ({ epoch: 1n, sequence: 1n }), reportGap() {}, newestUs() {} };
const source = new CameraSource({
  config: { type: "camera", name: "yard", url: process.argv[2]!, stallSeconds: 5 },
  device: "pi",
  buffer: nowhere as unknown as FootageBuffer,
  clock: systemClock,
  log: silentLog,
  metrics: new Metrics(),
});
await source.start();
setInterval(() => {
  if (source.status().state === "running") process.send?.(source.ffmpegPid);
}, 50);
process.on("disconnect", () => process.exit(0));
