import assert from "node:assert/strict";
import test from "node:test";
import { CrampedTimes } from "../../../../agent/sources/camera/cramped-times.ts";

/** Whether a camera with these steps between its pictures, in RTP ticks and each 80 ms after the last, is given up. */
function isGivenUp(steps: readonly number[]): boolean {
  const times = new CrampedTimes();
  let rtpTime = 0xffff_0000;
  return steps.some((step, i) => {
    rtpTime = (rtpTime + step) >>> 0;
    return times.note(rtpTime, i * 80);
  });
}

const many = (step: number, count: number): number[] => new Array<number>(count).fill(step);

test("times that follow one another tick by tick are noticed once pictures were apart", () => {
  assert.ok(isGivenUp([...many(7_200, 6), ...many(1, 6)]));
  // With pictures that others lead in to.
  const leading = [14_400, -7_200, 14_400, -7_200, 14_400, -7_200];
  assert.ok(isGivenUp([...leading, ...many(1, 6)]));
});

test("a camera whose times are always close is not given up again and again", () => {
  assert.ok(!isGivenUp(many(1, 1_000)));
  // It counts milliseconds, and is late now and then.
  assert.ok(!isGivenUp([...many(80, 20), 110, ...many(80, 20), 95, 95, ...many(80, 100)]));
  // It tells whole seconds, from which ffmpeg makes ticks.
  assert.ok(!isGivenUp(Array.from({ length: 600 }, (_, i) => (i % 12 === 0 ? 89_989 : 1))));
});
