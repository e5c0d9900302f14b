import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, symlink, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { openLevelFootageBuffer } from "../../../agent/buffer/footage/level-footage-buffer.ts";
import type { FootageBuffer, FootageGap, UnitPlace } from "../../../agent/buffer/footage-buffer.ts";
import { CameraSource } from "../../../agent/sources/camera.ts";
import { provisionalUs } from "../../../agent/time/provisional-time.ts";
import type { CameraSourceConfig } from "../../../config/source-config.ts";
import { type FootageUnit, utcUsOf } from "../../../protocol/footage.ts";
import { H264Depacketiser, vclSha256 } from "../../../protocol/rtsp/h264.ts";
import type { AccessUnit } from "../../../protocol/rtsp/nal-depacketiser.ts";
import { parseRtp } from "../../../protocol/rtsp/rtp.ts";
import { type Clock, systemClock } from "../../../runtime/clock.ts";
import { createLog, type Log, silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { startGstCamera } from "../../support/gst-camera.ts";
import { freePorts } from "../../support/program.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { nodeFlags, scriptPath } from "../../support/script.ts";
import { LavfiCamera, type LavfiCameraOptions } from "./lavfi-camera.ts";

interface Bench {
  readonly buffer: FootageBuffer;
  readonly gaps: FootageGap[];
}

async function openBench(t: TestContext): Promise<Bench> {
  const dir = await mkdtemp(join(tmpdir(), "hw-camera-"));
  const gaps: FootageGap[] = [];
  const buffer = await openLevelFootageBuffer({
    dir,
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    maxBytes: 1 << 28,
    onGap: (gap) => gaps.push(gap),
  });
  t.after(async () => {
    await buffer.close();
    await removeFolder(dir);
  });
  return { buffer, gaps };
}

async function startCamera(t: TestContext, options: LavfiCameraOptions = {}): Promise<LavfiCamera> {
  const camera = new LavfiCamera(options);
  t.after(() => camera.close());
  await camera.start();
  return camera;
}

async function startSource(
  t: TestContext,
  buffer: FootageBuffer,
  config: Partial<CameraSourceConfig> & { url: string },
  more: { log?: Log; ffmpeg?: string; clock?: Clock } = {},
): Promise<CameraSource> {
  const source = new CameraSource({
    config: { type: "camera", name: "yard", stallSeconds: 8, ...config },
    device: "pi",
    buffer,
    clock: more.clock ?? systemClock,
    log: more.log ?? silentLog,
    metrics: new Metrics(),
    random: () => 0.3,
    ...(more.ffmpeg !== undefined && { ffmpeg: more.ffmpeg }),
  });
  t.after(() => source.close());
  await source.start();
  return source;
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** False also for a process that has ended and waits for its parent. */
function lives(pid: number): boolean {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch {
    return false;
  }
}

async function unitsOf(buffer: FootageBuffer): Promise<FootageUnit[]> {
  const units: FootageUnit[] = [];
  let after: UnitPlace | undefined;
  for (;;) {
    const unit = await buffer.read("yard", after);
    if (unit === undefined) return units;
    units.push(unit);
    after = unit;
  }
}

/** Each picture's digest and when, by the unit's clock, it was made. */
function picturesOf(unit: FootageUnit): { sha256: string; utcUs: number }[] {
  const depacketiser = new H264Depacketiser();
  const found: AccessUnit[] = [];
  for (const { rtp } of unit.packets) {
    const access = depacketiser.push(parseRtp(rtp)!);
    if (access !== undefined) found.push(access);
  }
  found.push(depacketiser.flush()!);
  return found.map((one) => ({
    sha256: vclSha256(one),
    utcUs: utcUsOf(unit.clocks[0]!, 90_000, one.rtpTime),
  }));
}

test("every picture of the camera is stored as it was, with the time at which it was made", async (t) => {
  const { buffer, gaps } = await openBench(t);
  const camera = await startCamera(t);
  const source = await startSource(t, buffer, { url: camera.url });
  await until(() => buffer.usage().waitingUnits >= 4);
  const { pid } = { pid: source.ffmpegPid! };
  await source.close();
  assert.equal(lives(pid), false);
  assert.equal(source.status().state, "stopped");
  const units = await unitsOf(buffer);
  const known = [...camera.pictures.keys()];
  const stored = units.flatMap(picturesOf);
  const first = known.indexOf(stored[0]!.sha256);
  assert.notEqual(first, -1);
  assert.deepEqual(
    stored.map(({ sha256 }) => sha256),
    known.slice(first, first + stored.length),
  );
  assert.ok(units.every(({ startsWithKeyFrame }) => startsWithKeyFrame));
  // The first unit came in a burst; what follows is known to a few milliseconds on an idle machine.
  const errorsMs = units
    .slice(1)
    .flatMap(picturesOf)
    .map(({ sha256, utcUs }) => (utcUs - camera.pictures.get(sha256)!) / 1_000);
  // A busy machine lets pictures leave late, some or most of them, and once in a while one early: the fifth that left soonest tells.
  const offMs = errorsMs.sort((a, b) => a - b)[Math.floor(errorsMs.length * 0.8)]!;
  t.diagnostic(`producer time is off by ${offMs.toFixed(1)} ms`);
  assert.ok(Math.abs(offMs) < 60, `${offMs} ms, of ${errorsMs.map((ms) => ms.toFixed(1)).join(" ")}`);
  assert.deepEqual(gaps, []);
});

test("a camera that stalls is connected to again, and the gap is reported", async (t) => {
  const { buffer, gaps } = await openBench(t);
  const camera = await startCamera(t);
  const source = await startSource(t, buffer, { url: camera.url, stallSeconds: 2 });
  await until(() => buffer.usage().waitingUnits >= 1);
  const pid = source.ffmpegPid!;
  camera.stalled = true;
  await until(() => source.status().state === "stalled");
  await until(() => !lives(pid));
  await until(() => source.status().lastError !== undefined);
  assert.match(source.status().lastError!, /CAMERA_STALLED/);
  const before = buffer.usage().waitingUnits;
  camera.stalled = false;
  await until(() => buffer.usage().waitingUnits >= before + 2);
  // On a busy machine those two may be the last ones from before the stall.
  await until(() => gaps.length > 0);
  await until(() => source.status().state === "running");
  assert.ok(gaps[0]!.toUs - gaps[0]!.fromUs >= 1_000_000);
  // There may be more on a machine so busy that pictures did not come for two seconds. Each is told once.
  for (const [i, { fromUs }] of gaps.entries()) assert.ok(i === 0 || fromUs >= gaps[i - 1]!.toUs);
});

test("a gap is reported also after the clock was set back", async (t) => {
  const { buffer, gaps } = await openBench(t);
  const camera = await startCamera(t);
  let aheadUs = 3_600_000_000;
  const clock = { nowUs: () => systemClock.nowUs() + aheadUs, monotonicMs: () => systemClock.monotonicMs() };
  const source = await startSource(t, buffer, { url: camera.url, stallSeconds: 2 }, { clock });
  await until(() => buffer.usage().waitingUnits >= 1);
  aheadUs = 0;
  const before = buffer.usage().waitingUnits;
  await until(() => buffer.usage().waitingUnits >= before + 2);
  const fromUs = systemClock.nowUs();
  camera.stalled = true;
  await until(() => source.status().state === "stalled");
  camera.stalled = false;
  await until(() => gaps.length > 0);
  assert.ok(Math.abs(gaps[0]!.fromUs - fromUs) < 60_000_000, `${gaps[0]!.fromUs - fromUs} µs off`);
  assert.ok(gaps[0]!.toUs - gaps[0]!.fromUs >= 1_000_000);
});

test("the time for which a device without a clock was off is a gap in its footage", async (t) => {
  const { buffer, gaps } = await openBench(t);
  const camera = await startCamera(t);
  const before = await startSource(t, buffer, { url: camera.url });
  await until(() => buffer.usage().waitingUnits >= 1);
  await before.close();
  const lastUs = buffer.newestUs("yard")!;
  gaps.length = 0;
  // As the agent's clock has it while nobody has said what time it is.
  const startUs = provisionalUs(1, 0) - systemClock.monotonicMs() * 1_000;
  const nowUs = () => startUs + systemClock.monotonicMs() * 1_000;
  const clock = { nowUs, monotonicMs: () => systemClock.monotonicMs() };
  const beganUs = nowUs();
  await startSource(t, buffer, { url: camera.url }, { clock });
  await until(() => gaps.length > 0);
  assert.equal(gaps[0]!.fromUs, lastUs);
  assert.ok(Math.abs(gaps[0]!.toUs - beganUs) < 60_000_000, `${gaps[0]!.toUs - beganUs} µs off`);
  const { waitingUnits } = buffer.usage();
  await until(() => buffer.usage().waitingUnits >= waitingUnits + 2);
  assert.equal(gaps.length, 1);
});

test("a camera that is not there is waited for, and so is one that went", async (t) => {
  const { buffer } = await openBench(t);
  const [port] = await freePorts(1);
  const first = await startCamera(t, { port: port! });
  const { url } = first;
  await first.close();
  const source = await startSource(t, buffer, { url });
  await until(() => source.status().lastError !== undefined);
  assert.match(source.status().lastError!, /refuses connections/);
  assert.equal(source.status().state, "waiting");
  const second = await startCamera(t, { port: port! });
  await until(() => buffer.usage().waitingUnits >= 1);
  await second.close();
  await until(() => source.status().state === "waiting");
  const third = await startCamera(t, { port: port! });
  const before = buffer.usage().waitingUnits;
  await until(() => buffer.usage().waitingUnits > before + 1);
  await third.close();
});

test("without ffmpeg the source says so and tries again", async (t) => {
  const { buffer } = await openBench(t);
  const camera = await startCamera(t);
  const dir = await mkdtemp(join(tmpdir(), "hw-ffmpeg-"));
  t.after(() => removeFolder(dir));
  const ffmpeg = join(dir, "ffmpeg");
  const source = await startSource(t, buffer, { url: camera.url }, { ffmpeg });
  await until(() => source.status().lastError !== undefined);
  assert.match(source.status().lastError!, /FFMPEG_MISSING.*apt-get install ffmpeg/);
  await symlink("/usr/bin/ffmpeg", ffmpeg);
  await until(() => source.status().state === "running");
  // It vanishes after it was used, which fluent-ffmpeg alone answers with an uncaught TypeError.
  await unlink(ffmpeg);
  process.kill(source.ffmpegPid!, "SIGKILL");
  await until(() => /FFMPEG_MISSING/.test(source.status().lastError ?? ""));
});

test("passwords stay out of log and status, right or wrong", async (t) => {
  const { buffer } = await openBench(t);
  const camera = await startCamera(t, { password: "s3cret/w@rd" });
  let lines = "";
  const log = createLog("test", "debug", { write: (line: string) => (lines += line) });
  const wrong = await startSource(
    t,
    buffer,
    { url: camera.url, username: "admin", password: "wr0ng:w@rd" },
    { log },
  );
  await until(() => wrong.status().lastError !== undefined);
  assert.match(wrong.status().lastError!, /refused the credentials/);
  await wrong.close();
  const right = await startSource(
    t,
    buffer,
    { url: camera.url, username: "admin", password: "s3cret/w@rd" },
    { log },
  );
  await until(() => buffer.usage().waitingUnits >= 1);
  process.kill(right.ffmpegPid!, "SIGKILL");
  await until(() => right.status().lastError !== undefined);
  const said = lines + JSON.stringify([wrong.status(), right.status()]);
  assert.doesNotMatch(said, /w@rd|w%40rd|s3cret|wr0ng/);
  assert.match(lines, /camera lost/);
});

test("no ffmpeg outlives an agent that is killed", async (t) => {
  const camera = await startCamera(t);
  const script = scriptPath("./camera-child.ts", import.meta.url);
  const child = fork(script, [camera.url], { execArgv: [...nodeFlags], stdio: "inherit" });
  t.after(() => child.kill("SIGKILL"));
  const [pid] = (await once(child, "message")) as [number];
  assert.equal(lives(pid), true);
  child.kill("SIGKILL");
  await once(child, "exit");
  const killedMs = performance.now();
  await until(() => !lives(pid));
  t.diagnostic(`ffmpeg was gone ${Math.round(performance.now() - killedMs)} ms after the agent`);
});

test("a camera that shares no code with ours is stored, with Digest", async (t) => {
  const { buffer } = await openBench(t);
  const credentials = { username: "admin", password: "p@ss/word" };
  const camera = await startGstCamera(credentials);
  t.after(() => camera.close());
  const source = await startSource(t, buffer, { url: camera.url, ...credentials });
  await until(() => buffer.usage().waitingUnits >= 2);
  await source.close();
  const [, second] = await unitsOf(buffer);
  assert.equal(second!.startsWithKeyFrame, true);
  assert.equal(picturesOf(second!).length, 15);
});

test("a camera whose picture stands still while its sound goes on is connected to again", {
  timeout: 240_000,
}, async (t) => {
  const { buffer } = await openBench(t);
  const folder = await mkdtemp(join(tmpdir(), "hw-camera-"));
  t.after(() => removeFolder(folder));
  // In ffmpeg's place: two seconds of pictures, and a tone without end.
  const program = join(folder, "ffmpeg");
  const video = "-re -f lavfi -i testsrc2=size=160x120:rate=10:duration=2";
  const coders = "-c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g 10 -c:a aac";
  const script = `#!/bin/sh\nfor last; do :; done\nexec ffmpeg -v error ${video} -re -f lavfi -i sine -map 0:v -map 1:a ${coders} -max_interleave_delta 200000 -f rtsp -rtsp_transport tcp "$last"\n`;
  await writeFile(program, script, { mode: 0o755 });
  const source = await startSource(
    t,
    buffer,
    { url: "rtsp://127.0.0.1:1/", stallSeconds: 2 },
    { ffmpeg: program },
  );
  await until(() => /CAMERA_STALLED/.test(source.status().lastError ?? ""));
  const newest = buffer.newestUs("yard") ?? 0;
  await until(() => (buffer.newestUs("yard") ?? 0) > newest);
});

/** A program in ffmpeg's place whose pictures, ten a second, have these times. @param times an expression of ffmpeg's `setts` */
async function ffmpegThatTells(t: TestContext, times: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "hw-camera-"));
  t.after(() => removeFolder(folder));
  const program = join(folder, "ffmpeg");
  const video = "-re -f lavfi -i testsrc2=size=160x120:rate=10 -vsync passthrough -enc_time_base 1/90000";
  const coders = "-c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g 10";
  const to = `-bsf:v 'setts=ts=${times}' -f rtsp -rtsp_transport tcp "$last"`;
  const script = `#!/bin/sh\nfor last; do :; done\nexec ffmpeg -v error ${video} ${coders} ${to}\n`;
  await writeFile(program, script, { mode: 0o755 });
  return program;
}

test("a camera whose times go back is connected to again", { timeout: 240_000 }, async (t) => {
  const { buffer } = await openBench(t);
  // Two seconds of pictures, and then each a tick behind the one before, as ffmpeg makes of such times.
  const program = await ffmpegThatTells(t, "if(lt(N\\,20)\\,TS\\,PREV_OUTPTS+1)");
  const source = await startSource(t, buffer, { url: "rtsp://127.0.0.1:1/" }, { ffmpeg: program });
  await until(() => /CAMERA_TIMES/.test(source.status().lastError ?? ""));
  const newest = buffer.newestUs("yard") ?? 0;
  await until(() => (buffer.newestUs("yard") ?? 0) > newest);
  assert.notEqual(source.status().state, "stalled");
});

test("a camera that tells its times in whole seconds alone is recorded as it is", {
  timeout: 240_000,
}, async (t) => {
  const { buffer } = await openBench(t);
  // What ffmpeg makes of a second's pictures that all have one time.
  const program = await ffmpegThatTells(t, "floor(N/10)*90000+mod(N\\,10)");
  const source = await startSource(t, buffer, { url: "rtsp://127.0.0.1:1/" }, { ffmpeg: program });
  await until(() => source.status().lastError !== undefined || buffer.usage().waitingUnits >= 4);
  assert.equal(source.status().lastError, undefined);
});

test("a camera that cannot even be asked for is its own trouble, and not the agent's", async (t) => {
  const { buffer } = await openBench(t);
  const source = await startSource(t, buffer, { url: "rtsp://127.0.0.1:554544/x" });
  await until(() => source.status().lastError !== undefined);
  assert.match(source.status().lastError!, /Invalid URL/);
  assert.equal(source.status().health, "backing-off");
  await source.close();
});
