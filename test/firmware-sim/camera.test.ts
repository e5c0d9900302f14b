import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { SimCamera, type SimCameraOptions } from "../../firmware-sim/camera.ts";
import type { PictureTruth } from "../../firmware-sim/camera-truth.ts";
import { clockOf, utcUsOf } from "../../protocol/footage.ts";
import { RtspClient } from "../../protocol/rtsp/client-session.ts";
import { H264Depacketiser, vclSha256 } from "../../protocol/rtsp/h264.ts";
import type { AccessUnit } from "../../protocol/rtsp/nal-depacketiser.ts";
import { parseRtcp } from "../../protocol/rtsp/rtcp.ts";
import { parseRtp } from "../../protocol/rtsp/rtp.ts";
import { systemClock } from "../../runtime/clock.ts";
import { silentLog } from "../../runtime/log.ts";
import { eventually } from "../support/program.ts";
import { until as untilWithin } from "../support/relay-server.ts";
import { nodeFlags, scriptPath } from "../support/script.ts";

/** Encoders are slow to start on a busy machine. */
const until = (holds: () => boolean, what: string): Promise<void> => untilWithin(holds, what, 90_000);

async function withCamera<T>(body: (camera: SimCamera, truthFile: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "headwater-camera-"));
  const options: SimCameraOptions = {
    ...{ host: "127.0.0.1", port: 0, path: "yard", width: 320, height: 240, fps: 15, keyFrameSeconds: 1 },
    ...{ truthFile: join(folder, "truth", "camera.ndjson"), seed: 3, log: silentLog, clock: systemClock },
  };
  const camera = new SimCamera(options);
  try {
    await camera.start();
    return await body(camera, options.truthFile);
  } finally {
    await camera.close();
    await rm(folder, { recursive: true });
  }
}

async function readTruth(path: string): Promise<PictureTruth[]> {
  const text = await readFile(path, "utf8");
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as PictureTruth);
}

interface Seen {
  readonly units: AccessUnit[];
  readonly times: number[];
  readonly client: RtspClient;
  closed: boolean;
}

async function watch(url: string): Promise<Seen> {
  const depacketiser = new H264Depacketiser();
  let mapping: ReturnType<typeof clockOf>;
  const client: RtspClient = new RtspClient({
    url,
    onRtp(_track, rtp) {
      const unit = depacketiser.push(parseRtp(rtp)!);
      if (unit === undefined) return;
      seen.units.push(unit);
      seen.times.push(mapping === undefined ? 0 : utcUsOf(mapping, 90_000, unit.rtpTime));
    },
    onRtcp(track, bytes) {
      for (const report of parseRtcp(bytes)) if (report.type === "sr") mapping = clockOf(track, report);
    },
    onClose() {
      seen.closed = true;
    },
  });
  const seen: Seen = { units: [], times: [], client, closed: false };
  await client.connect();
  await client.describe();
  await client.setup("play");
  await client.play();
  return seen;
}

test("what a reader gets is what the truth file says, picture by picture, also across a stall", async () => {
  await withCamera(async (camera, truthFile) => {
    const seen = await watch(camera.url);
    await until(() => seen.units.length >= 20, "20 pictures");
    camera.stall();
    let before = -1;
    // Silence is when a whole second of pictures did not come.
    for (let quietMs = 0; quietMs < 1_000; quietMs += 50) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      if (seen.units.length !== before) quietMs = 0;
      before = seen.units.length;
    }
    assert.equal(seen.closed, false);
    camera.resume();
    await until(() => seen.units.length >= before + 20, "pictures after the stall");
    await seen.client.close();
    await camera.close();
    const truth = await readTruth(truthFile);
    const byTime = new Map(truth.map((picture) => [picture.rtpTime, picture]));
    for (const [i, unit] of seen.units.entries()) {
      const picture = byTime.get(unit.rtpTime)!;
      assert.equal(vclSha256(unit), picture.vclSha256);
      assert.equal(unit.keyFrame, picture.keyFrame);
      assert.equal(unit.damaged, false);
      assert.ok(
        Math.abs(seen.times[i]! - picture.producerUs) < 100,
        "both clocks come from the sender reports",
      );
    }
    assert.equal(seen.units[0]!.keyFrame, true);
    const late = Math.abs(truth.at(-1)!.producerUs - systemClock.nowUs());
    assert.ok(late < 60_000_000, `its time is about now, but is ${late} µs off`);
  });
});

test("an encoder that dies is started again; readers are disconnected and come back", async () => {
  await withCamera(async (camera, truthFile) => {
    const first = await watch(camera.url);
    await until(() => first.units.length > 3, "pictures");
    const pid = camera.encoderPid!;
    process.kill(pid, "SIGKILL");
    await until(() => first.closed, "the disconnection");
    // Until the next encoder shows something there is nothing to watch.
    const second = await eventually("a camera to watch", 90_000, () => watch(camera.url));
    await until(() => second.units.length > 3, "pictures of the second encoder");
    assert.notEqual(camera.encoderPid, pid);
    await second.client.close();
    await camera.close();
    assert.equal(new Set((await readTruth(truthFile)).map(({ ssrc }) => ssrc)).size, 2);
  });
});

test("no two pictures are alike, not of two encoders either that draw the same: a picture is known by its bytes", async () => {
  const digests = (): Promise<string[]> =>
    withCamera(async (camera, truthFile) => {
      await until(() => camera.pictures >= 40, "40 pictures");
      return (await readTruth(truthFile)).map(({ vclSha256 }) => vclSha256);
    });
  const all = (await Promise.all([digests(), digests(), digests()])).flat();
  assert.ok(all.length >= 120);
  assert.equal(new Set(all).size, all.length);
});

test("nobody else may publish, and a path that is not there is not found", async () => {
  await withCamera(async (camera) => {
    const client = new RtspClient({ url: camera.url });
    await client.connect();
    const sdp = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n";
    await assert.rejects(client.announce(sdp), /403/);
    await client.close();
    const other = new RtspClient({ url: camera.url.replace("yard", "cellar") });
    await other.connect();
    await assert.rejects(other.describe(), /404/);
    await other.close();
  });
});

test("without ffmpeg the camera says so, and leaves nothing open", async () => {
  const path = process.env.PATH;
  process.env.PATH = "/nonexistent";
  try {
    await assert.rejects(
      withCamera(async () => undefined),
      { code: "SIM_ENCODER_MISSING" },
    );
  } finally {
    process.env.PATH = path;
  }
});

/** False also for a zombie, which waits only to be buried. */
function runs(pid: number): boolean {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch {
    return false;
  }
}

test("no encoder survives a camera that is killed", async () => {
  const folder = await mkdtemp(join(tmpdir(), "headwater-camera-"));
  const child = fork(
    scriptPath("../support/camera-process.ts", import.meta.url),
    [join(folder, "truth.ndjson")],
    {
      execArgv: [...nodeFlags],
    },
  );
  const [encoderPid] = (await once(child, "message")) as [number];
  assert.ok(runs(encoderPid));
  child.kill("SIGKILL");
  await until(() => !runs(encoderPid), "the encoder's end");
  await rm(folder, { recursive: true });
});
