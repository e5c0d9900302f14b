import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { promisify } from "node:util";
import { RtspIngest } from "../../../gateway/ingest/rtsp-ingest.ts";
import { Mpeg1Preview, Previews } from "../../../gateway/video/preview.ts";
import { openVideo } from "../../../gateway/video/video-archive.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { type Log, silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { nodeFlags, scriptPath } from "../../support/script.ts";

async function until(holds: () => boolean, timeoutMs = 60_000): Promise<void> {
  for (const endMs = performance.now() + timeoutMs; !holds(); ) {
    if (performance.now() > endMs) throw new Error("waited in vain");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test("the preview is MPEG-1 in MPEG-TS, runs while somebody watches, and leaves no process", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-preview-"));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const video = await openVideo({ ...parts, dir, retentionHours: 1e6, maxBytes: 1e12 });
  const devices = [{ id: "pi-1", password: "correct horse" }];
  const ingest = new RtspIngest({ ...parts, host: "127.0.0.1", port: 0, video, devices });
  await ingest.start();
  const camera = spawn("ffmpeg", [
    ..."-v error -nostdin -re -f lavfi -i testsrc2=size=320x240:rate=15 -c:v libx264 -preset ultrafast -g 15 -bf 0".split(
      " ",
    ),
    ..."-f rtsp -rtsp_transport tcp".split(" "),
    `rtsp://pi-1:correct%20horse@127.0.0.1:${ingest.port}/yard`,
  ]);
  const previews = new Previews({ urlOf: (name) => ingest.readerUrl(name), log: silentLog });
  t.after(async () => {
    camera.kill("SIGKILL");
    await previews.close();
    await ingest.close();
    await video.close();
    await removeFolder(dir);
  });
  await until(() => (video.cameras()[0]?.fragments ?? 0) > 0);

  const chunks: Buffer[][] = [[], []];
  const stops = chunks.map((list) =>
    previews.watch("yard", { data: (chunk) => void list.push(Buffer.from(chunk)), backlogBytes: () => 0 }),
  );
  await until(() => chunks.every((list) => list.length > 20));
  const probe = execFile("ffprobe", [
    ..."-v error -f mpegts -show_entries stream=codec_name,width,r_frame_rate -of csv=p=0 -".split(" "),
  ]);
  const output = once(probe.stdout!, "data");
  probe.stdin!.on("error", () => undefined);
  probe.stdin!.end(Buffer.concat(chunks[0]!));
  assert.match(String((await output)[0]), /^mpeg1video,320,25\/1/);

  const readers = async (): Promise<string> =>
    /headwater_rtsp_readers (\d+)/.exec(await parts.metrics.render())![1]!;
  assert.equal(await readers(), "1");
  stops[0]!();
  assert.equal(await readers(), "1");
  stops[1]!();
  await previews.close();
  while ((await readers()) !== "0") await new Promise((resolve) => setTimeout(resolve, 10));
  const { stdout } = await promisify(execFile)("sh", [
    "-c",
    "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '",
  ]);
  assert.ok(!stdout.includes(`:${ingest.port}/yard -f mpegts`), "ffmpeg still runs");
});

test("a missing ffmpeg is reported, tried again, and ends nothing", async () => {
  const reasons: string[] = [];
  const log: Log = { ...silentLog, warn: (fields) => void reasons.push(String(fields.reason)) };
  const previews = new Previews({
    urlOf: () => "rtsp://127.0.0.1:1/x",
    log,
    ffmpegPath: "/no/ffmpeg",
    retryMs: 1,
  });
  const stop = previews.watch("yard", { data: () => undefined, backlogBytes: () => 0 });
  await until(() => reasons.length >= 3);
  assert.equal(reasons[0], "/no/ffmpeg is not installed");
  stop();
  await previews.close();
});

test("a camera that is not there ends the run with a reason", async () => {
  const reason = await new Promise<string>((resolve) => {
    new Mpeg1Preview({ rtspUrl: "rtsp://127.0.0.1:1/x", onData: () => undefined, onEnd: resolve }).start();
  });
  assert.match(reason, /^ffmpeg ended with \d+$/);
});

test("without a file descriptor left for ffmpeg it is tried again, and the program lives", async () => {
  const script = scriptPath("../../support/starved-preview.ts", import.meta.url);
  const command = 'ulimit -n 100; exec "$0" "$@"';
  const args = ["-c", command, process.execPath, ...nodeFlags, script];
  const { stdout } = await promisify(execFile)("sh", args);
  assert.equal(stdout, "ffmpeg: EMFILE\nffmpeg: EMFILE\nffmpeg: EMFILE\n");
});
