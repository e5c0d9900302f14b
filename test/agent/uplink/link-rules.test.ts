import assert from "node:assert/strict";
import test from "node:test";
import { z } from "zod";
import { linkKeys } from "../../../config/link-config.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { type LinkInput, linkRules } from "./made-rules.ts";

const config = z.strictObject(linkKeys);

class HandClock implements Clock {
  ms: number;
  constructor(text: string) {
    this.ms = new Date(text).getTime();
  }
  nowUs(): number {
    return this.ms * 1_000;
  }
  monotonicMs(): number {
    return this.ms;
  }
}

test("without a word in the config everything goes, at once", async (t) => {
  const link = linkRules(t, {}, new HandClock("2026-05-05T12:00"));
  assert.ok(link.sends("debug") && link.sendsFootage);
  assert.deepEqual([link.gatherMs, link.statusSeconds], [0, 1]);
  assert.deepEqual(link.status(), { mode: "full", by: "config" });
  await link.gather(new AbortController().signal);
});

test("metered: the important streams, in larger batches, a status a minute, no footage", (t) => {
  const clock = new HandClock("2026-05-05T12:00");
  const link = linkRules(t, { mode: "metered", metered: { batchSeconds: 20 } }, clock);
  assert.deepEqual(
    ["alarms", "sensors", "debug"].map((stream) => link.sends(stream)),
    [true, true, false],
  );
  assert.ok(link.sends("constructor"), "a stream may be called as a member of every object");
  assert.deepEqual([link.gatherMs, link.statusSeconds, link.sendsFootage], [20_000, 60, false]);
  assert.ok(linkRules(t, { mode: "metered", metered: { footage: true } }, clock).sendsFootage);
});

test("paused: nothing, or what is more important than the pause", (t) => {
  const clock = new HandClock("2026-05-05T12:00");
  const paused = linkRules(t, { mode: "paused" }, clock);
  assert.ok(!paused.sends("alarms") && !paused.sendsFootage);
  const except = linkRules(t, { mode: "paused", paused: { minPriority: 10 } }, clock);
  assert.ok(except.sends("alarms") && !except.sends("sensors") && !except.sendsFootage);
});

test("the schedule changes the mode and the cap at its minute, and whoever waits hears of it", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const clock = new HandClock("2026-05-05T21:59:00");
  const link = linkRules(
    t,
    { mode: "paused", schedule: [{ from: "22:00", to: "06:00", mode: "full", maxBytesPerSecond: "64KiB" }] },
    clock,
  );
  const { until, ...now } = link.status();
  assert.deepEqual(now, { mode: "paused", by: "config" });
  assert.equal(new Date(until!).getHours(), 22);
  let told = 0;
  const stop = link.onChange(() => told++);
  const footage = link.footageMayGo(new AbortController().signal);
  for (let second = 0; second < 59; second++) {
    clock.ms += 1_000;
    t.mock.timers.tick(1_000);
  }
  assert.equal(told, 0);
  clock.ms += 1_000;
  t.mock.timers.tick(1_000);
  assert.equal(told, 1);
  await footage;
  assert.equal(link.pacer.bytesPerSecond, 65_536);
  assert.deepEqual([link.mode, link.status().by], ["full", "schedule"]);
  stop();
});

test("a window's time does not hold while the time of day is not known", (t) => {
  let known = false;
  const clock = new HandClock("2026-05-05T12:00");
  const input: LinkInput = { mode: "paused", schedule: [{ from: "00:00", to: "24:00", mode: "full" }] };
  const link = linkRules(t, input, clock, { timeKnown: () => known });
  assert.deepEqual(link.status(), { mode: "paused", by: "config" });
  known = true;
  void link.start();
  assert.equal(link.mode, "full");
});

test("gathering ends with the time, with other rules, and with the connection", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const link = linkRules(t, { mode: "metered" }, new HandClock("2026-05-05T12:00"));
  const ended = new AbortController();
  const timed = link.gather(new AbortController().signal);
  t.mock.timers.tick(30_000);
  await timed;
  const cut = link.gather(ended.signal);
  ended.abort();
  await cut;
});

test("what a config may say of the link", () => {
  const parse = (input: unknown) => config.safeParse(input);
  const schedule = (entry: object) => parse({ schedule: [{ from: "22:00", to: "06:00", ...entry }] });
  const days = (text: string) => schedule({ days: text }).data?.schedule[0]?.days;
  assert.deepEqual(days("mon-fri"), [1, 2, 3, 4, 5]);
  assert.deepEqual(days("sat, sun"), [0, 6]);
  assert.deepEqual(days("fri-mon,Wed"), [0, 1, 3, 5, 6]);
  assert.deepEqual(schedule({}).data?.schedule[0], {
    days: [0, 1, 2, 3, 4, 5, 6],
    fromMinute: 1_320,
    toMinute: 360,
  });
  assert.equal(schedule({ maxBytesPerSecond: "2KiB" }).data?.schedule[0]?.maxBytesPerSecond, 2_048);
  assert.equal(
    schedule({ maxBytesPerSecond: "none" }).data?.schedule[0]?.maxBytesPerSecond,
    Number.POSITIVE_INFINITY,
  );
  for (const bad of [
    { schedule: [{ from: "22:00" }] },
    { schedule: [{ from: "24:00", to: "06:00" }] },
    { schedule: [{ from: "7:60", to: "06:00" }] },
    { schedule: [{ from: "22:00", to: "06:00", days: "mon-fri-sun" }] },
    { schedule: [{ from: "22:00", to: "06:00", days: "someday" }] },
    { schedule: [{ from: "22:00", to: "06:00", days: "" }] },
    { maxBytesPerSecond: 0 },
    { maxBytesPerSecond: "10B" },
    { mode: "slow" },
    { metered: { minPriority: 1_000 } },
  ]) {
    assert.equal(parse(bad).success, false, JSON.stringify(bad));
  }
});
