import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { type LinkMode, Schedule, type ScheduleEntry } from "../../../agent/uplink/schedule.ts";

const FREE = { mode: "full", maxBytesPerSecond: Number.POSITIVE_INFINITY } as const;
const WEEKDAYS = [1, 2, 3, 4, 5];
const EVERY_DAY = [0, ...WEEKDAYS, 6];
const MINUTE_MS = 60_000;

function inZone(t: TestContext, zone: string): void {
  const before = process.env.TZ;
  process.env.TZ = zone;
  t.after(() => {
    if (before === undefined) delete process.env.TZ;
    else process.env.TZ = before;
  });
}

function entry(days: readonly number[], from: string, to: string, mode: LinkMode = "paused"): ScheduleEntry {
  const minute = (text: string): number => Number(text.slice(0, 2)) * 60 + Number(text.slice(3));
  const maxBytesPerSecond = Number.POSITIVE_INFINITY;
  return { days, fromMinute: minute(from), toMinute: minute(to), mode, maxBytesPerSecond };
}

function at(text: string): number {
  return new Date(text).getTime();
}

test("a window holds from its first minute, and not in its last", (t) => {
  inZone(t, "Europe/Berlin");
  const schedule = new Schedule([entry(EVERY_DAY, "06:00", "22:00")], FREE);
  const modes = ["05:59:59.999", "06:00:00", "21:59:59.999", "22:00:00"].map(
    (time) => schedule.at(at(`2026-05-05T${time}`)).mode,
  );
  assert.deepEqual(modes, ["full", "paused", "paused", "full"]);
  assert.equal(schedule.nextChangeMs(at("2026-05-05T12:00")), at("2026-05-05T22:00"));
  assert.equal(schedule.nextChangeMs(at("2026-05-05T22:00")), at("2026-05-06T06:00"));
});

test("a window over midnight belongs to the day on which it begins", (t) => {
  inZone(t, "America/New_York");
  const schedule = new Schedule([entry(WEEKDAYS, "22:00", "06:00")], FREE);
  // 2026-05-08 is a Friday.
  assert.equal(schedule.at(at("2026-05-08T23:00")).mode, "paused");
  assert.equal(schedule.at(at("2026-05-09T05:59")).mode, "paused");
  assert.equal(schedule.at(at("2026-05-09T06:00")).mode, "full");
  assert.equal(schedule.at(at("2026-05-09T23:00")).mode, "full");
  assert.equal(schedule.at(at("2026-05-11T05:00")).mode, "full");
  assert.equal(schedule.nextChangeMs(at("2026-05-09T06:00")), at("2026-05-11T22:00"));
});

test("the first window that holds decides, and what follows on without a difference is one", (t) => {
  inZone(t, "UTC");
  const noon = { ...entry(EVERY_DAY, "12:00", "13:00", "full"), maxBytesPerSecond: 1_000 };
  const schedule = new Schedule(
    [noon, entry(EVERY_DAY, "08:00", "12:00"), entry(EVERY_DAY, "08:00", "24:00")],
    FREE,
  );
  assert.equal(schedule.at(at("2026-05-05T12:30")).maxBytesPerSecond, 1_000);
  assert.equal(schedule.at(at("2026-05-05T13:00")).mode, "paused");
  assert.equal(schedule.nextChangeMs(at("2026-05-05T13:00")), at("2026-05-06T00:00"));
  const always = new Schedule([entry(EVERY_DAY, "00:00", "12:00"), entry(EVERY_DAY, "12:00", "00:00")], FREE);
  assert.equal(always.at(at("2026-05-05T03:00")).mode, "paused");
  assert.equal(always.nextChangeMs(at("2026-05-05T03:00")), undefined);
  assert.equal(new Schedule([], FREE).nextChangeMs(0), undefined);
});

test("when summer time begins, a window within the missing hour begins at the jump", (t) => {
  inZone(t, "Europe/Berlin");
  const schedule = new Schedule([entry(EVERY_DAY, "02:30", "05:00")], FREE);
  assert.equal(schedule.nextChangeMs(at("2026-03-29T00:00Z")), at("2026-03-29T01:00Z"));
  assert.equal(schedule.at(at("2026-03-29T01:00Z")).mode, "paused");
});

test("when summer time ends, a window within the doubled hour comes twice", (t) => {
  inZone(t, "Europe/Berlin");
  const schedule = new Schedule([entry(EVERY_DAY, "02:15", "02:45")], FREE);
  const changes: string[] = [];
  let utcMs = at("2026-10-24T22:00Z");
  for (let i = 0; i < 4; i++) {
    utcMs = schedule.nextChangeMs(utcMs)!;
    changes.push(new Date(utcMs).toISOString().slice(11, 16));
  }
  assert.deepEqual(changes, ["00:15", "00:45", "01:15", "01:45"]);
});

for (const zone of ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut"]) {
  test(`in ${zone} the next change is the first minute in which something else holds`, (t) => {
    inZone(t, zone);
    const minute = fc.integer({ min: 0, max: 95 }).map((quarter) => quarter * 15);
    const entries = fc.array(
      fc.record({
        days: fc.uniqueArray(fc.integer({ min: 0, max: 6 }), { minLength: 1 }),
        fromMinute: minute,
        toMinute: minute.map((at) => (at === 0 ? 1_440 : at)),
        mode: fc.constantFrom<LinkMode>("full", "metered", "paused"),
        maxBytesPerSecond: fc.constantFrom(1_000, Number.POSITIVE_INFINITY),
      }),
      { maxLength: 4 },
    );
    // Around both changes of the clock in 2026, north and south.
    const start = fc
      .tuple(
        fc.constantFrom(at("2026-03-06Z"), at("2026-03-27Z"), at("2026-04-03Z"), at("2026-10-24Z")),
        fc.nat(4 * 1_440),
      )
      .map(([day, minutes]) => day + minutes * MINUTE_MS);
    fc.assert(
      fc.property(entries, start, (all, utcMs) => {
        const schedule = new Schedule(all, FREE);
        const said = schedule.nextChangeMs(utcMs);
        const now = schedule.at(utcMs);
        const differs = (ms: number): boolean => {
          const one = schedule.at(ms);
          return one.mode !== now.mode || one.maxBytesPerSecond !== now.maxBytesPerSecond;
        };
        const end = said ?? utcMs + 7 * 1_440 * MINUTE_MS;
        for (let ms = utcMs; ms < end; ms += 5 * MINUTE_MS)
          assert.ok(!differs(ms), new Date(ms).toISOString());
        if (said !== undefined) assert.ok(differs(said));
      }),
      { numRuns: 60 },
    );
  });
}
