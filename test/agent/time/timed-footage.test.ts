import assert from "node:assert/strict";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { openLevelFootageBuffer } from "../../../agent/buffer/footage/level-footage-buffer.ts";
import type { FootageGap } from "../../../agent/buffer/footage-buffer.ts";
import { FootageRecorder } from "../../../agent/sources/camera/footage-recorder.ts";
import { AgentClock } from "../../../agent/time/agent-clock.ts";
import { TimeKeeper } from "../../../agent/time/time-keeper.ts";
import { TimedFootage } from "../../../agent/time/timed-footage.ts";
import { encodeRtp } from "../../../protocol/rtsp/rtp.ts";
import { parseSdp } from "../../../protocol/rtsp/sdp.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { SDP } from "../buffer/footage/made-unit.ts";
import { openBuffer, temporaryFolder } from "../buffer/records/buffer-fixture.ts";
import { Device } from "./device.ts";

/** One start of the agent: its records are all sent, its footage waits. */
async function run(t: TestContext, dir: string, device: Device) {
  const clock = new AgentClock(device.time);
  const buffer = await openBuffer(join(dir, "records"), { clock });
  const gaps: FootageGap[] = [];
  const inner = await openLevelFootageBuffer({
    dir: join(dir, "footage"),
    clock,
    log: silentLog,
    metrics: new Metrics(),
    maxBytes: 1 << 26,
    onGap: (gap) => gaps.push(gap),
  });
  const keeper = new TimeKeeper({
    device: "pi-1",
    time: device.time,
    clock,
    buffer,
    waits: () => inner.usage().waitingUnits > 0,
    log: silentLog,
    linkUpMs: () => undefined,
  });
  await keeper.start();
  const footage = new TimedFootage(inner, keeper);
  const recorder = new FootageRecorder({
    camera: "yard",
    sdp: SDP,
    description: parseSdp(SDP),
    buffer: footage,
    clock,
    log: silentLog,
    metrics: new Metrics(),
    timing: { from: "arrival", picturesLate: 0 },
  });
  const end = async (): Promise<void> => {
    await recorder.close();
    await keeper.close();
    await footage.close();
    await buffer.close();
  };
  t.after(end);
  return { keeper, clock, footage, recorder, end };
}

/** A group of ten pictures, 100 ms apart. @returns when the first was made */
function film(device: Device, recorder: FootageRecorder): number {
  const madeUs = device.trueUs;
  for (let i = 0; i < 10; i++) {
    const timestamp = Math.round(device.time.bootUs() * 0.09) >>> 0;
    const fields = { marker: true, payloadType: 96, sequence: i, timestamp, ssrc: 7 };
    recorder.packet(0, encodeRtp(fields, Buffer.alloc(100, i === 0 ? 0x65 : 0x41)));
    device.pass(0.1);
  }
  return madeUs;
}

test("footage of a boot in 1970, also of one before, waits for the time and comes with the true one", async (t) => {
  const device = new Device();
  const dir = await temporaryFolder(t);
  const made: number[] = [];
  const first = await run(t, dir, device);
  device.pass(20);
  made.push(film(device, first.recorder));
  await first.end();
  device.pass(5);
  const second = await run(t, dir, device);
  made.push(film(device, second.recorder));
  // Its last group is still being filmed when the time becomes known.
  made.push(film(device, second.recorder));
  while (second.footage.usage().waitingUnits < 2) await new Promise((resolve) => setTimeout(resolve, 2));
  assert.equal(await second.footage.read("yard", undefined), undefined);
  const waiting = second.footage.waiting("yard", undefined, new AbortController().signal);
  second.keeper.heard({ utcUs: device.trueUs, atMs: second.clock.monotonicMs(), boundUs: 0 });
  await waiting;
  made.push(film(device, second.recorder));
  await second.recorder.close();
  const times: number[] = [];
  for (let after: { epoch: bigint; sequence: bigint } | undefined; ; ) {
    const unit = await second.footage.read("yard", after);
    if (unit === undefined) break;
    times.push(unit.producerUs);
    assert.equal(unit.clocks[0]!.utcUs, unit.producerUs);
    after = unit;
  }
  assert.equal(times.length, made.length);
  for (const [i, timeUs] of times.entries()) {
    assert.ok(Math.abs(timeUs - made[i]!) < 1_000, `unit ${i} says ${timeUs}, it was ${made[i]}`);
  }
  assert.ok(Math.abs(second.footage.usage().oldestUs! - made[0]!) < 1_000);
});
