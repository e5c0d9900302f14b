import assert from "node:assert/strict";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { gapRecord, gapStartUs, readingRecord } from "../../../agent/sources/reading-record.ts";
import { AgentClock } from "../../../agent/time/agent-clock.ts";
import { estimates, TimeKeeper } from "../../../agent/time/time-keeper.ts";
import { TimedRecords } from "../../../agent/time/timed-records.ts";
import { decodeFrame, type Frame } from "../../../protocol/frame.ts";
import { forEachRecord } from "../../../protocol/record-batch.ts";
import { GAPS_STREAM, type GapRecord } from "../../../protocol/topics.ts";
import { silentLog } from "../../../runtime/log.ts";
import { openBuffer, readAll, temporaryFolder } from "../buffer/records/buffer-fixture.ts";
import { BORN_US, Device } from "./device.ts";

interface Run {
  readonly clock: AgentClock;
  readonly keeper: TimeKeeper;
  readonly records: TimedRecords;
  readonly inner: RecordBuffer;
  /** A reading that says the truth of when it was made. */
  say(ownTimeUs?: number): Promise<void>;
  end(): Promise<void>;
}

/** One start of the agent on the device. */
async function run(t: TestContext, dir: string, device: Device): Promise<Run> {
  const clock = new AgentClock(device.time);
  const inner = await openBuffer(dir, { clock });
  const keeper = new TimeKeeper({
    device: "pi-1",
    time: device.time,
    clock,
    buffer: inner,
    log: silentLog,
    linkUpMs: () => undefined,
    askEveryMs: 5,
  });
  await keeper.start();
  const end = async (): Promise<void> => {
    await keeper.close();
    await inner.close();
  };
  t.after(end);
  return {
    clock,
    keeper,
    inner,
    records: new TimedRecords(inner, keeper),
    say: async (ownTimeUs) => {
      const reading = { sensor: "a", timeUs: ownTimeUs, fields: { trueUs: device.trueUs } };
      await inner.append([readingRecord("pi-1", "sensors", reading, clock.nowUs(), clock.knownBy)]);
    },
    end,
  };
}

interface Said {
  readonly timeUs: number;
  readonly time: string;
  readonly trueUs: number;
  readonly timeSource?: string;
}

function said(frames: readonly Frame[]): Said[] {
  const all: Said[] = [];
  for (const frame of frames.filter(({ stream }) => stream === "sensors")) {
    for (const one of frame.runs) {
      forEachRecord(one, (payload, timeUs) =>
        all.push({ ...(JSON.parse(payload.toString()) as Said), timeUs }),
      );
    }
  }
  return all;
}

function assertTrue(readings: readonly Said[], withinUs = 1_000_000): void {
  for (const { timeUs, time, trueUs } of readings) {
    assert.ok(Math.abs(timeUs - trueUs) <= withinUs, `${timeUs} is not ${trueUs}`);
    assert.ok(Math.abs(Date.parse(time) * 1_000 - trueUs) <= withinUs + 1_000, time);
  }
}

test("a boot in 1970 followed by the jump to today: nothing is read before, and every time is true", async (t) => {
  const device = new Device();
  const dir = await temporaryFolder(t);
  const { clock, keeper, records, say } = await run(t, dir, device);
  device.pass(30);
  await say();
  device.pass(3_600);
  await say();
  assert.deepEqual(await readAll(records), []);
  assert.equal(clock.nowUs() < Date.UTC(2020, 0) * 1_000, true);
  const waiting = records.waiting(undefined, new AbortController().signal);
  // NTP sets the system's clock.
  device.behindUs = 20_000;
  device.kept = true;
  await waiting;
  assert.equal(keeper.known, true);
  device.pass(10);
  await say();
  const readings = said(await readAll(records));
  assert.equal(readings.length, 3);
  assertTrue(readings, 25_000);
  assert.equal(clock.boot?.by, "ntp");
  // What frames say of themselves is true as well, and their checksums hold.
  for (const frame of await readAll(records)) {
    assert.ok(Math.abs(frame.storedUs - device.trueUs) < 4_000e6);
    assert.deepEqual(decodeFrame(frame.bytes).storedUs, frame.storedUs);
  }
  // Somebody corrects the system's clock later: what comes then follows it.
  device.behindUs = 2_000_000;
  device.pass(2);
  assert.ok(Math.abs(clock.nowUs() - (device.trueUs - 2_000_000)) < 1_000);
});

test("the gateway's answer does as well, is kept over a crash, and gives the same bytes again", async (t) => {
  const device = new Device();
  const dir = await temporaryFolder(t);
  const first = await run(t, dir, device);
  device.pass(100);
  await first.say();
  device.pass(0.08);
  const heard = { utcUs: device.trueUs - 30_000, atMs: first.clock.monotonicMs(), boundUs: 40_000 };
  first.keeper.heard(heard);
  await first.keeper.whenKnown(new AbortController().signal);
  const sent = (await readAll(first.records)).map(({ bytes }) => Buffer.from(bytes));
  // A second opinion changes nothing that may be on its way already.
  first.keeper.heard({ ...heard, utcUs: heard.utcUs + 5e6 });
  await first.end();
  device.pass(60);
  const second = await run(t, dir, device);
  assert.equal(second.keeper.known, true);
  assert.deepEqual(
    (await readAll(second.records)).map(({ bytes }) => Buffer.from(bytes)),
    sent,
  );
  await second.say();
  const frames = await readAll(second.records);
  assertTrue(said(frames), 40_000);
  // Also a start with nothing left to send goes on with the same moment.
  for (const { epoch, sequence } of frames) await second.records.ack(epoch, sequence);
  assert.equal(second.inner.usage().waitingRecords, 0);
  const moment = second.clock.boot;
  await second.end();
  const third = await run(t, dir, device);
  assert.deepEqual(third.clock.boot, moment);
});

test("boots that never knew the time are estimated in their order, marked, and their bounds told", async (t) => {
  const device = new Device();
  const dir = await temporaryFolder(t);
  const known = await run(t, dir, device);
  device.behindUs = 0;
  device.kept = true;
  await known.keeper.whenKnown(new AbortController().signal);
  await known.say();
  await known.end();
  for (let boot = 0; boot < 3; boot++) {
    device.reboot(3_600);
    const unknown = await run(t, dir, device);
    device.pass(600);
    await unknown.say();
    await unknown.end();
    // A start in the same boot is of that boot.
    const again = await run(t, dir, device);
    device.pass(60);
    await again.say();
    await again.end();
  }
  device.reboot(3_600);
  const last = await run(t, dir, device);
  await last.say();
  last.keeper.heard({ utcUs: device.trueUs, atMs: last.clock.monotonicMs(), boundUs: 1_000 });
  await last.keeper.whenKnown(new AbortController().signal);
  while (last.inner.usage().waitingRecords < 11) await new Promise((resolve) => setTimeout(resolve, 5));
  const frames = await readAll(last.records);
  const readings = said(frames);
  assert.equal(readings.length, 8);
  const estimated = readings.filter(({ timeSource }) => timeSource === "estimated");
  assert.equal(estimated.length, 6);
  assert.equal(frames.filter(({ timeSource }) => timeSource === "estimated").length, 6);
  assertTrue(readings.filter(({ timeSource }) => timeSource !== "estimated"));
  for (let i = 1; i < readings.length; i++) assert.ok(readings[i]!.timeUs >= readings[i - 1]!.timeUs);
  // Between two records of one boot as much time lies as did in truth.
  for (let i = 0; i < 6; i += 2) {
    const apartUs = estimated[i + 1]!.timeUs - estimated[i]!.timeUs;
    assert.ok(Math.abs(apartUs - 60e6) < 10_000, String(apartUs));
  }
  const gaps: GapRecord[] = [];
  for (const { stream, runs } of frames) {
    if (stream !== GAPS_STREAM) continue;
    for (const one of runs)
      forEachRecord(one, (payload) => gaps.push(JSON.parse(payload.toString()) as GapRecord));
  }
  assert.equal(gaps.length, 3);
  for (const [i, gap] of gaps.entries()) {
    assert.match(gap.reason, /^the times of boot boot-\d are estimated$/);
    const { trueUs } = estimated[2 * i]!;
    assert.ok(gap.fromUs <= trueUs && trueUs <= gap.toUs + 660e6, JSON.stringify(gap));
  }
});

test("a report of a gap that was made before the time was known comes out with true ends", async (t) => {
  const device = new Device();
  const { clock, keeper, records, inner } = await run(t, await temporaryFolder(t), device);
  device.pass(50);
  const fromUs = clock.nowUs();
  device.pass(50);
  const toUs = clock.nowUs();
  await inner.append([gapRecord("pi-1", { sensor: "a", stream: "sensors", reason: "lost", fromUs, toUs })]);
  keeper.heard({ utcUs: device.trueUs, atMs: clock.monotonicMs(), boundUs: 0 });
  await keeper.whenKnown(new AbortController().signal);
  const [frame] = await readAll(records);
  forEachRecord(frame!.runs[0]!, (payload) => {
    const gap = JSON.parse(payload.toString()) as GapRecord;
    assert.deepEqual([gap.fromUs, gap.toUs], [BORN_US + 50e6, BORN_US + 100e6]);
    assert.equal(Date.parse(gap.time) * 1_000, BORN_US + 100e6);
  });
});

test("a device with a clock is believed at once, and what is drained is forgotten", async (t) => {
  const device = new Device();
  device.behindUs = 0;
  device.time = { ...device.time, hasClock: true };
  const { keeper, clock } = await run(t, await temporaryFolder(t), device);
  assert.equal(keeper.known, true);
  assert.equal(keeper.mayBeProvisional, false);
  assert.equal(clock.boot?.by, "system");
});

test("estimates lie between what was known before and after", () => {
  const entries = [1, 2, 3].map((slot) => ({ slot, bootId: `b${slot}`, order: slot, afterUs: 1_000 }));
  const made = estimates(entries, entries[2], 4_000);
  assert.deepEqual(
    made.map(({ moment }) => [moment!.utcUs, moment!.boundUs]),
    [
      [2_000, 2_000],
      [3_000, 2_000],
    ],
  );
});

test("a gap since an earlier boot begins where its last record was, though the time is not known yet", () => {
  assert.equal(gapStartUs(BORN_US, 5e6), BORN_US);
  assert.equal(gapStartUs(BORN_US, BORN_US - 1e6), BORN_US - 1e6);
  assert.equal(gapStartUs(BORN_US, BORN_US + 1e6), BORN_US);
});

test("a system's clock that the gateway's late answer does not contradict is kept", async (t) => {
  const device = new Device();
  device.behindUs = 0;
  const { clock, keeper } = await run(t, await temporaryFolder(t), device);
  keeper.heard({ utcUs: device.trueUs + 800_000, atMs: clock.monotonicMs(), boundUs: 900_000 });
  await keeper.whenKnown(new AbortController().signal);
  assert.ok(Math.abs(clock.nowUs() - device.trueUs) < 1_000);
});

test("every record says how its time was known; NTP goes without saying", async (t) => {
  const device = new Device();
  const { clock, keeper, records, inner, say } = await run(t, await temporaryFolder(t), device);
  device.pass(60);
  await say();
  await say(device.trueUs - 5e6);
  // Nobody could know yet that this one is ten minutes ahead.
  await say(device.trueUs + 600e6);
  keeper.heard({ utcUs: device.trueUs, atMs: clock.monotonicMs(), boundUs: 20_000 });
  await keeper.whenKnown(new AbortController().signal);
  await say();
  await say(device.trueUs - 5e6);
  clock.set({ ...clock.boot!, by: "ntp" });
  // Whoever set the system's clock back to 1970 is not followed.
  await say();
  const frames = await readAll(records);
  const readings = said(frames);
  const sources = ["gateway", "sensor", "gateway", "gateway", "sensor", undefined];
  assert.deepEqual(
    readings.map(({ timeSource }) => timeSource),
    sources,
  );
  assertTrue(readings, 5e6);
  for (const { timeUs, time } of readings) assert.equal(Date.parse(time), Math.floor(timeUs / 1_000));
  // A decoder's own field of this name stays, under another.
  const reading = { sensor: "a", timeUs: undefined, fields: { timeSource: "GPS" } };
  const { payload } = readingRecord("pi-1", "sensors", reading, device.trueUs, "gateway");
  const whole = JSON.parse(Buffer.from(payload).toString()) as Record<string, unknown>;
  assert.deepEqual([whole.timeSource, whole.reported_timeSource], ["gateway", "GPS"]);
  assert.equal(inner.usage().waitingRecords, 6);
});

test("a crystal that drifts is corrected by the gateway, never back by a little, and what was said stays", async (t) => {
  const device = new Device();
  const dir = await temporaryFolder(t);
  const { clock, keeper, records, say, end } = await run(t, dir, device);
  await say();
  const hear = (offUs: number): void =>
    keeper.heard({ utcUs: device.trueUs + offUs, atMs: clock.monotonicMs(), boundUs: 10_000 });
  hear(0);
  await keeper.whenKnown(new AbortController().signal);
  const sent = (await readAll(records)).map(({ bytes }) => Buffer.from(bytes));
  assert.equal(keeper.needed(), false);
  device.pass(601);
  assert.equal(keeper.needed(), true);
  hear(3e6);
  assert.ok(Math.abs(clock.nowUs() - device.trueUs - 3e6) < 1_000);
  // An answer that agrees changes nothing; one that is half a second back is waited for.
  device.pass(601);
  hear(3e6 + 50_000);
  const beforeUs = clock.nowUs();
  assert.ok(Math.abs(beforeUs - device.trueUs - 3e6) < 1_000);
  device.pass(601);
  const lastUs = clock.nowUs();
  hear(2.5e6);
  device.pass(0.2);
  assert.equal(clock.nowUs(), lastUs);
  device.pass(0.4);
  assert.ok(clock.nowUs() > lastUs && Math.abs(clock.nowUs() - device.trueUs - 2.5e6) < 1_000);
  assert.deepEqual(
    (await readAll(records)).map(({ bytes }) => Buffer.from(bytes)),
    sent,
  );
  await end();
  const again = await run(t, dir, device);
  assert.ok(Math.abs(again.clock.nowUs() - device.trueUs - 2.5e6) < 1_000);
  assert.deepEqual(
    (await readAll(again.records)).map(({ bytes }) => Buffer.from(bytes)),
    sent,
  );
});

test("a clock that nobody confirmed gives way to the gateway, and the gateway to NTP", async (t) => {
  const device = new Device();
  device.behindUs = -3_600e6;
  device.time = { ...device.time, hasClock: true };
  const { clock, keeper } = await run(t, await temporaryFolder(t), device);
  assert.deepEqual([clock.boot?.by, keeper.needed()], ["system", true]);
  keeper.heard({ utcUs: device.trueUs, atMs: clock.monotonicMs(), boundUs: 10_000 });
  assert.equal(clock.boot?.by, "gateway");
  assert.ok(Math.abs(clock.nowUs() - device.trueUs) < 1_000);
  device.behindUs = 200_000;
  device.kept = true;
  // Asked at most every five minutes.
  device.pass(301);
  const by = (): string | undefined => clock.boot?.by;
  while (by() !== "ntp") await new Promise((resolve) => setTimeout(resolve, 2));
  assert.equal(keeper.needed(), false);
  device.pass(1);
  assert.ok(Math.abs(clock.nowUs() - device.trueUs + 200_000) < 1_000);
});

test("a gap since a boot whose records are long sent begins when that was", async (t) => {
  const device = new Device();
  const dir = await temporaryFolder(t);
  const first = await run(t, dir, device);
  device.pass(70);
  // As a serial line's mark has it.
  const lastUs = first.clock.nowUs();
  const trulyUs = device.trueUs;
  first.keeper.heard({ utcUs: device.trueUs, atMs: first.clock.monotonicMs(), boundUs: 0 });
  await first.keeper.whenKnown(new AbortController().signal);
  await first.end();
  device.reboot(3_600);
  device.pass(30);
  const second = await run(t, dir, device);
  const toUs = second.clock.nowUs();
  const gap = { sensor: "a", stream: "sensors", reason: "lost", fromUs: gapStartUs(lastUs, toUs), toUs };
  await second.inner.append([gapRecord("pi-1", gap)]);
  second.keeper.heard({ utcUs: device.trueUs, atMs: second.clock.monotonicMs(), boundUs: 0 });
  await second.keeper.whenKnown(new AbortController().signal);
  const [frame] = await readAll(second.records);
  forEachRecord(frame!.runs[0]!, (payload) => {
    const { fromUs, toUs } = JSON.parse(payload.toString()) as GapRecord;
    assert.ok(Math.abs(fromUs - trulyUs) < 1_000 && Math.abs(toUs - device.trueUs) < 1_000);
  });
});

test("damage that the opening of the buffer tells of has the time that is known only behind it", async (t) => {
  const device = new Device();
  const dir = await temporaryFolder(t);
  const first = await run(t, dir, device);
  await first.say();
  await first.end();
  const [part] = (await readdir(join(dir, "chain"))).sort();
  await rm(join(dir, "chain", part!), { recursive: true });
  device.reboot(3_600);
  device.kept = true;
  device.behindUs = 0;
  const { records } = await run(t, dir, device);
  const reports = (await readAll(records)).filter(({ stream }) => stream === GAPS_STREAM);
  // Behind it may stand the bounds of the first boot, which never knew the time.
  const [{ storedUs, runs }] = reports as [Frame];
  forEachRecord(runs[0]!, (payload, timeUs) => {
    const { toUs, reason } = JSON.parse(payload.toString()) as GapRecord;
    assert.match(reason, /^buffer damaged/);
    for (const us of [storedUs, timeUs, toUs]) assert.ok(Math.abs(us - device.trueUs) < 1_000_000, `${us}`);
  });
});
