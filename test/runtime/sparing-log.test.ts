import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { silentLog } from "../../runtime/log.ts";
import { SparingLog } from "../../runtime/sparing-log.ts";

test("of each kind ten lines a minute, by a clock that jumps as it likes, and none goes uncounted", () => {
  const event = fc.record({
    kind: fc.constantFrom("one", "other"),
    afterUs: fc.oneof({ weight: 9, arbitrary: fc.nat(1_000_000) }, fc.integer({ min: -200e6, max: 200e6 })),
  });
  fc.assert(
    fc.property(fc.array(event, { maxLength: 200 }), (events) => {
      const lines: Array<{ kind: string; unsaid: number; sinceUs: number }> = [];
      const budgets = new Map<string, { sinceUs: number; lines: number }>();
      let nowUs = 1e15;
      const log = {
        ...silentLog,
        warn: ({ unsaid = 0 }: { unsaid?: number }, kind: string) =>
          void lines.push({ kind, unsaid, sinceUs: budgets.get(kind)!.sinceUs }),
      };
      const sparing = new SparingLog(log);
      const last = new Map<string, number>();
      for (const { kind, afterUs } of events) {
        nowUs += afterUs;
        const budget = budgets.get(kind);
        if (budget === undefined || Math.abs(nowUs - budget.sinceUs) >= 60e6)
          budgets.set(kind, { sinceUs: nowUs, lines: 0 });
        const before = lines.length;
        sparing.warn(nowUs, {}, kind);
        const wrote = lines.length - before;
        budgets.get(kind)!.lines += wrote;
        assert.ok(budgets.get(kind)!.lines <= 10);
        last.set(kind, wrote === 1 ? 0 : (last.get(kind) ?? 0) + 1);
      }
      for (const kind of new Set(events.map((one) => one.kind))) {
        const told = lines.filter((line) => line.kind === kind);
        const counted = told.reduce((sum, { unsaid }) => sum + 1 + unsaid, 0) + (last.get(kind) ?? 0);
        assert.equal(counted, events.filter((one) => one.kind === kind).length);
      }
    }),
  );
});
