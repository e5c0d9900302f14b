import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { openShape } from "../../../../agent/sources/shape/open-shape.ts";
import { SensorStates } from "../../../../agent/sources/shape/sensor-states.ts";
import type { Shape } from "../../../../agent/sources/shape/shape.ts";
import type { SensorReading } from "../../../../agent/sources/source.ts";
import { type SourceMeters, sourceMeters } from "../../../../agent/sources/source-meters.ts";
import type { FilterConfig, ShapeConfig } from "../../../../config/source-config.ts";
import { systemClock } from "../../../../runtime/clock.ts";
import { Metrics } from "../../../../runtime/metrics.ts";

const NOW_US = Date.parse("2026-06-01T12:00:00Z") * 1_000;

function reading(fields: Record<string, unknown>, sensor = "barn", timeUs?: number): SensorReading {
  return { sensor, timeUs, fields };
}

async function shape(t: TestContext, config: ShapeConfig): Promise<{ shape: Shape; meters: SourceMeters }> {
  const meters = sourceMeters(new Metrics(), "s", "test");
  const made = await openShape("s", config, meters, systemClock);
  t.after(() => made!.close());
  return { shape: made!, meters };
}

async function fields(shape: Shape, ...readings: SensorReading[]): Promise<unknown[]> {
  const lists = await shape.apply(readings.map((one) => ({ reading: one, arrivalUs: NOW_US })));
  return lists.flat().map((one) => one.fields);
}

/** Nothing here takes long; a worker may be kept from its core for a while. */
const filter = (config: Partial<FilterConfig>): ShapeConfig => ({
  filter: { timeoutMs: 30_000, maxBytes: 65_536, memoryMiB: 16, onError: "keep", ...config },
});

test("names become fields, fields are renamed and scaled, some are kept, some added", async (t) => {
  const made = await shape(t, {
    sensor: "farm/{site}/{sensor}/#",
    fields: { temperature: { from: "raw.t", scale: 0.1, offset: -40 }, humidity: "h" },
    drop: ["raw"],
    add: { owner: "anna" },
  });
  const [[one]] = (await made.shape.apply([
    { reading: reading({ raw: { t: 615 }, h: 50, n: 1 }, "farm/north/barn/env"), arrivalUs: NOW_US },
  ])) as [[SensorReading]];
  assert.deepEqual(one, {
    sensor: "barn",
    timeUs: undefined,
    fields: { site: "north", n: 1, temperature: 21.5, humidity: 50, owner: "anna" },
  });
  assert.deepEqual(await fields(made.shape, reading({ h: 1 }, "elsewhere")), [
    { humidity: 1, owner: "anna" },
  ]);
  const kept = await shape(t, { keep: ["a"] });
  assert.deepEqual(await fields(kept.shape, reading({ a: 1, b: 2 })), [{ a: 1 }]);
});

test("a deadband leaves out what says nothing new, by sensor, until it was silent for too long", async (t) => {
  const made = await shape(t, { deadband: { fields: { t: 0.5, h: "10%" }, maxSilenceSeconds: 10 } });
  const passed = async (
    sensor: string,
    value: Record<string, unknown>,
    seconds: number,
  ): Promise<boolean> => {
    const lists = await made.shape.apply([
      { reading: reading(value, sensor), arrivalUs: NOW_US + seconds * 1e6 },
    ]);
    return lists.flat().length === 1;
  };
  assert.deepEqual(
    [
      await passed("a", { t: 20, h: 50 }, 0),
      await passed("a", { t: 20.4, h: 54 }, 1),
      await passed("b", { t: 20.4 }, 1),
      await passed("a", { t: 20.6, h: 50 }, 2),
      await passed("a", { t: 20.6, h: 56 }, 3),
      await passed("a", { t: 20.6, h: 56 }, 4),
      await passed("a", { t: 20.6, h: 56 }, 13.5),
      await passed("a", { other: 1 }, 14),
      await passed("a", { t: 20.6, h: 56 }, 1),
    ],
    [true, false, true, true, true, false, true, true, true],
  );
  assert.equal(made.meters.status().leftOut, 2);
  assert.equal(await passed("a", { t: 20.6 }, 1), false);
  made.shape.reset();
  assert.equal(await passed("a", { t: 20.6 }, 1), true, "what was not stored comes again");
});

test("no change by more than the band goes missing", () => {
  return fc.assert(
    fc.asyncProperty(fc.array(fc.double({ min: -100, max: 100, noNaN: true })), async (values) => {
      const meters = sourceMeters(new Metrics(), "s", "test");
      const made = await openShape(
        "s",
        { deadband: { fields: { "*": 5 }, maxSilenceSeconds: 1e4 } },
        meters,
        systemClock,
      );
      let last: number | undefined;
      for (const value of values) {
        const lists = await made!.apply([{ reading: reading({ value }), arrivalUs: NOW_US }]);
        if (lists.flat().length > 0) last = value;
        assert.ok(Math.abs(value - last!) <= 5);
      }
    }),
  );
});

test("sampling takes the first of each interval, or each n-th", async (t) => {
  const slow = await shape(t, { sample: { everySeconds: 10 } });
  const taken: number[] = [];
  for (let second = 0; second < 35; second++) {
    const lists = await slow.shape.apply([
      { reading: reading({ second }), arrivalUs: NOW_US + second * 1e6 },
    ]);
    if (lists.flat().length > 0) taken.push(second);
  }
  assert.deepEqual(taken, [0, 10, 20, 30]);
  const third = await shape(t, { sample: { oneIn: 3 } });
  const some = await fields(third.shape, ...Array.from({ length: 8 }, (_, n) => reading({ n })));
  assert.deepEqual(some, [{ n: 0 }, { n: 3 }, { n: 6 }]);
});

test("a JavaScript expression keeps, drops, changes and multiplies", async (t) => {
  const { shape: kept, meters } = await shape(t, filter({ javascript: "record.t > 20" }));
  assert.deepEqual(await fields(kept, reading({ t: 21 }), reading({ t: 19 }), reading({ t: 22 })), [
    { t: 21 },
    { t: 22 },
  ]);
  assert.equal(meters.status().leftOut, 1);
  const { shape: changed } = await shape(
    t,
    filter({ javascript: "({ ...record, sensor: 'x', f: record.t * 1.8 + 32 })" }),
  );
  const timeUs = NOW_US - 123_456;
  assert.deepEqual(
    (await changed.apply([{ reading: reading({ t: 10 }, "barn", timeUs), arrivalUs: NOW_US }])).flat(),
    [{ sensor: "x", timeUs, fields: { t: 10, f: 50 } }],
  );
  const { shape: several } = await shape(
    t,
    filter({ javascript: "record.values.map((value) => ({ value }))" }),
  );
  assert.deepEqual(await fields(several, reading({ values: [1, 2] })), [{ value: 1 }, { value: 2 }]);
});

test("a jq expression does the same", async (t) => {
  const { shape: made } = await shape(t, filter({ jq: "select(.t > 20) | {t, f: (.t * 1.8 + 32)}" }));
  assert.deepEqual(await fields(made, reading({ t: 30 }), reading({ t: 10 })), [{ t: 30, f: 86 }]);
  const { shape: several } = await shape(t, filter({ jq: ".values[] | {value: .}" }));
  assert.deepEqual(await fields(several, reading({ values: [1, 2] })), [{ value: 1 }, { value: 2 }]);
});

test("one that fails keeps the reading with the reason, or drops it, and is counted", async (t) => {
  for (const config of [{ javascript: "record.a.b.c" }, { jq: ".a | keys" }]) {
    const kept = await shape(t, filter(config));
    const [one] = (await fields(kept.shape, reading({ t: 1 }))) as [Record<string, unknown>];
    assert.equal(one.t, 1);
    assert.ok(String(one.filter_error).length > 3);
    assert.match(kept.meters.status().lastError ?? "", /^filter: /);
    const dropped = await shape(t, filter({ ...config, onError: "drop" }));
    assert.deepEqual(await fields(dropped.shape, reading({ t: 1 })), []);
  }
  const odd = await shape(t, filter({ javascript: "'text'" }));
  const [one] = (await fields(odd.shape, reading({}))) as [Record<string, unknown>];
  assert.match(String(one.filter_error), /neither true/);
});

test("one that never ends, or takes all memory, hurts only the reading that it was at", async (t) => {
  const endless = "record.n === 2 ? (() => { for (;;); })() : record";
  const hungry =
    "record.n === 2 ? (() => { const a = []; for (;;) a.push(new Array(1000).fill(a.length)); })() : record";
  const jq = "if .n == 2 then [range(1000000000000)] else . end";
  for (const config of [{ javascript: endless }, { javascript: hungry, timeoutMs: 60_000 }, { jq }]) {
    const { shape: made } = await shape(t, filter({ timeoutMs: 1_500, ...config }));
    const all = (await fields(made, ...[1, 2, 3].map((n) => reading({ n })))) as Record<string, unknown>[];
    assert.deepEqual(
      all.map(({ n, filter_error }) => [n, filter_error !== undefined]),
      [
        [1, false],
        [2, true],
        [3, false],
      ],
    );
    assert.match(String(all[1]!.filter_error), /longer than|memory/);
  }
});

test("what it makes is bounded, and it reaches nothing of Node", async (t) => {
  const large = await shape(t, filter({ javascript: "({ text: 'x'.repeat(1000) })", maxBytes: 500 }));
  const [one] = (await fields(large.shape, reading({}))) as [Record<string, unknown>];
  assert.match(String(one.filter_error), /more than 500 bytes/);
  const many = await shape(t, filter({ jq: "range(1000) | {n: .}" }));
  assert.match(
    String(((await fields(many.shape, reading({}))) as [Record<string, unknown>])[0].filter_error),
    /more than 100/,
  );
  const deep = "(() => { let a = {}; for (let i = 0; i < 5000; i++) a = { a }; return a; })()";
  const nested = await shape(t, filter({ javascript: deep }));
  const [kept] = (await fields(nested.shape, reading({}))) as [Record<string, unknown>];
  assert.match(String(kept.filter_error), /nested/);
  const names = [
    "process",
    "require",
    "globalThis.constructor.constructor('return process')()",
    "fetch",
    "import('fs')",
  ];
  for (const javascript of names) {
    const { shape: made } = await shape(t, filter({ javascript: `({ found: typeof (${javascript}) })` }));
    const [found] = (await fields(made, reading({}))) as [Record<string, unknown>];
    assert.ok(
      found.filter_error !== undefined || found.found === "undefined" || javascript.startsWith("import"),
      javascript,
    );
  }
});

test("an expression that cannot be read is a clear error at the start", async (t) => {
  const meters = sourceMeters(new Metrics(), "s", "test");
  for (const config of [{ javascript: "record.(" }, { jq: ".a | (" }]) {
    await assert.rejects(openShape("board", filter(config), meters, systemClock), { code: "FILTER_INVALID" });
  }
  t.diagnostic("both are refused");
});

test("any reading goes through an expression that keeps it unchanged", async (t) => {
  const { shape: js } = await shape(t, filter({ javascript: "record" }));
  const { shape: jq } = await shape(t, filter({ jq: "." }));
  await fc.assert(
    fc.asyncProperty(fc.dictionary(fc.stringMatching(/^[a-z]{1,8}$/), fc.jsonValue()), async (given) => {
      const { device: _d, sensor: _s, time: _t, ...rest } = given as Record<string, unknown>;
      const plain = JSON.parse(JSON.stringify(rest)) as Record<string, unknown>;
      for (const made of [js, jq]) assert.deepEqual(await fields(made, reading(plain)), [plain]);
    }),
    { numRuns: 200 },
  );
});

test("what is remembered of sensors is bounded", () => {
  const states = new SensorStates<number>(3);
  for (let i = 0; i < 10; i++) states.set(String(i), i);
  assert.deepEqual([states.size, states.get("6"), states.get("7")], [3, undefined, 7]);
});
