import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import test from "node:test";
import { promisify } from "node:util";
import { H264Depacketiser } from "../../../protocol/rtsp/h264.ts";
import { GroupFinder } from "../../../protocol/rtsp/keyframe.ts";
import type { AccessUnit } from "../../../protocol/rtsp/nal-depacketiser.ts";
import { parseRtcp } from "../../../protocol/rtsp/rtcp.ts";
import { parseRtp } from "../../../protocol/rtsp/rtp.ts";
import { parseSdp } from "../../../protocol/rtsp/sdp.ts";
import { startRelayServer, until } from "../../support/relay-server.ts";

const run = promisify(execFile);

/** Longer than anything takes here: it is ended by the test. */
const SECONDS = 600;

/** @returns also its end, which may come before anybody waits for it */
function publish(url: string): { child: ChildProcess; ended: Promise<unknown> } {
  const source = ["-re", "-f", "lavfi", "-i", `testsrc2=size=320x240:rate=15:duration=${SECONDS}`];
  const sound = ["-f", "lavfi", "-i", `sine=frequency=440:duration=${SECONDS}`];
  const coding =
    "-c:v libx264 -preset ultrafast -g 15 -bf 0 -pix_fmt yuv420p -c:a aac -f rtsp -rtsp_transport tcp";
  const args = ["-nostdin", "-v", "error", ...source, ...sound, ...coding.split(" "), url];
  const child = spawn("ffmpeg", args, { stdio: "ignore" });
  return { child, ended: once(child, "exit") };
}

test("ffmpeg publishes, ffprobe and ffmpeg read it back through the relay", async () => {
  const { server, relays, received, events, url } = await startRelayServer();
  const publisher = publish(url("yard"));
  try {
    await until(() => received.length > 60, "packets");
    assert.deepEqual(events, ["publish yard by undefined", "record undefined"]);
    const transport = ["-rtsp_transport", "tcp"];
    const entries = ["-show_entries", "stream=codec_name,width,height", "-of", "csv=p=0"];
    const probed = await run("ffprobe", ["-v", "error", ...transport, ...entries, url("yard")]);
    assert.deepEqual(probed.stdout.trim().split("\n"), ["h264,320,240", "aac"]);
    const frames = ["-map", "0:v", "-frames:v", "20", "-f", "framemd5", "-"];
    const md5 = await run("ffmpeg", ["-nostdin", "-v", "error", ...transport, "-i", url("yard"), ...frames]);
    assert.equal(md5.stdout.split("\n").filter((line) => /^0,/.test(line)).length, 20);
    assert.equal(md5.stderr, "");

    const description = parseSdp(relays.get("yard")!.sdp);
    const depacketiser = new H264Depacketiser();
    const finder = new GroupFinder(description);
    const units: AccessUnit[] = [];
    let groups = 0;
    for (const { track, isRtcp, bytes } of received) {
      if (isRtcp) continue;
      if (finder.push({ track, rtp: bytes }) > 0) groups++;
      const unit = track === 0 ? depacketiser.push(parseRtp(bytes)!) : undefined;
      if (unit !== undefined) units.push(unit);
    }
    assert.ok(units.length > 30);
    assert.ok(units.every(({ damaged, keyFrame }, i) => !damaged && keyFrame === (i % 15 === 0)));
    assert.equal(groups, Math.floor(units.length / 15) + 1);
    const report = received.find(({ isRtcp }) => isRtcp)!;
    assert.equal(parseRtcp(report.bytes)[0]!.type, "sr");
  } finally {
    publisher.child.kill("SIGKILL");
    await publisher.ended;
  }
  await until(() => events.length === 3, "the publication's end");
  await server.close();
});

test("a publisher ends with the server: ffmpeg exits when its connection breaks", async () => {
  const { server, received, url } = await startRelayServer();
  const publisher = publish(url("yard"));
  await until(() => received.length > 10, "packets");
  await server.close();
  await publisher.ended;
});
