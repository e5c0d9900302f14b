/** A child process that runs out of file descriptors while ffmpeg is due: that is an end like any other. */
import { runFfmpeg } from "../../../agent/sources/camera/ffmpeg.ts";
import { takeDescriptors } from "../../support/descriptors.ts";

const run = {
  program: "false",
  inputOptions: [],
  input: "rtsp://127.0.0.1:1/x",
  outputOptions: [],
  output: "rtsp://127.0.0.1:2/y",
};
const first = await runFfmpeg(run).ended;
const giveBack = takeDescriptors();
const second = await runFfmpeg(run).ended;
giveBack();
const third = await runFfmpeg(run).ended;
console.log([first, second, third].map(({ message }) => message).join("; "));
