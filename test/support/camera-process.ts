/** A camera in a process of its own, to be killed: `camera-process.ts TRUTH_FILE`, forked; sends its encoder's pid. */
import { SimCamera } from "../../firmware-sim/camera.ts";
import { systemClock } from "../../runtime/clock.ts";
import { silentLog } from "../../runtime/log.ts";

const camera = new SimCamera({
  ...{ host: "127.0.0.1", port: 0, path: "yard", width: 320, height: 240, fps: 15, keyFrameSeconds: 1 },
  ...{ truthFile: process.argv[2]!, seed: 1, log: silentLog, clock: systemClock },
});
await camera.start();
process.send!(camera.encoderPid);
