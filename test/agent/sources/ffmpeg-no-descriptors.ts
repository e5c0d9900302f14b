/** A child process that runs out of file descriptors while ffmpeg is due: that is an end like any other. */
import { closeSync, openSync } from "node:fs";
import { runFfmpeg } from "../../../agent/sources/ffmpeg.ts";

const run = {
  program: "false",
  inputOptions: [],
  input: "rtsp://127.0.0.1:1/x",
  outputOptions: [],
  output: "rtsp://127.0.0.1:2/y",
};
const first = await runFfmpeg(run).ended;
const taken: number[] = [];
for (let full = false; !full; ) {
  try {
    taken.push(openSync("/dev/null", "r"));
  } catch {
    full = true;
  }
}
const second = await runFfmpeg(run).ended;
for (const descriptor of taken) closeSync(descriptor);
const third = await runFfmpeg(run).ended;
console.log([first, second, third].map(({ message }) => message).join("; "));
