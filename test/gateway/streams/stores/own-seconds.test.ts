import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { OwnSeconds } from "../../../../gateway/streams/stores/own-seconds.ts";
import { systemClock } from "../../../../runtime/clock.ts";

const START_MS = 1_790_000_000_000;
const YEAR_MS = 365 * 86_400_000;

const handClock = () => {
  const clock = { ...systemClock, nowMs: START_MS, nowUs: () => clock.nowMs * 1000 };
  return clock;
};

const secondOf = (ms: number): number => Math.floor(ms / 1000);

interface Named {
  readonly stream: string;
  readonly reader: string | undefined;
  readonly createdMs: number;
}

const date = (seconds: OwnSeconds, { stream, reader }: Omit<Named, "createdMs">): number =>
  reader === undefined ? seconds.dateStream(stream) : seconds.dateReader(stream, reader);

const end = (seconds: OwnSeconds, { stream, reader, createdMs }: Named): void => {
  if (reader === undefined) seconds.streamGone(stream, [{ createdMs }], []);
  else seconds.readerGone(stream, { name: reader, createdMs });
};

const name = fc.record({
  stream: fc.constantFrom("a", "b"),
  reader: fc.constantFrom(undefined, "a", "b"),
});
const whileMs = (minMs: number) =>
  fc.oneof(fc.constant(0), fc.integer({ min: minMs && -3_000, max: 3_000 }), fc.constantFrom(minMs, YEAR_MS));

test("each is dated behind its predecessor unless the clock has been past that one's second since it was gone", () => {
  const step = fc.record({ name, passMs: whileMs(-YEAR_MS) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const clock = handClock();
      const seconds = new OwnSeconds(clock);
      /** Of what is gone: its second, until the clock was seen past it. */
      const gone = new Map<string, number>();
      const there = new Map<string, Named>();
      for (const { name, passMs } of steps) {
        clock.nowMs += passMs;
        for (const [key, second] of gone) if (second < secondOf(clock.nowMs)) gone.delete(key);
        const key = JSON.stringify(name);
        const known = there.get(key);
        if (known !== undefined) {
          end(seconds, known);
          there.delete(key);
          if (secondOf(known.createdMs) >= secondOf(clock.nowMs)) gone.set(key, secondOf(known.createdMs));
        } else {
          const createdMs = date(seconds, name);
          assert.ok(createdMs >= clock.nowMs);
          const before = gone.get(key);
          if (before !== undefined) assert.equal(createdMs, Math.max(clock.nowMs, (before + 1) * 1000));
          there.set(key, { ...name, createdMs });
        }
      }
    }),
  );
});

test("where the clock is never set back no second is given to a name twice, and none but those ahead are remembered", () => {
  const step = fc.record({ name, passMs: whileMs(0) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const clock = handClock();
      const seconds = new OwnSeconds(clock);
      const last = new Map<string, number>();
      for (const { name, passMs } of steps) {
        clock.nowMs += passMs;
        const key = JSON.stringify(name);
        const createdMs = date(seconds, name);
        assert.ok(secondOf(createdMs) > (last.get(key) ?? 0));
        last.set(key, secondOf(createdMs));
        end(seconds, { ...name, createdMs });
        const ahead = [...last.values()].filter((second) => second >= secondOf(clock.nowMs));
        assert.equal(seconds.size, ahead.length);
      }
    }),
  );
});

test("a stream is dated behind the last of its shards, and a reader behind that of the stream that was deleted", () => {
  const clock = handClock();
  const seconds = new OwnSeconds(clock);
  const shards = [0, 2_000, 1_000].map((ms) => ({ createdMs: START_MS + ms }));
  seconds.streamGone("s", shards, [{ name: "r", createdMs: START_MS + 5_000 }]);
  assert.equal(seconds.dateStream("s"), START_MS + 3_000);
  assert.equal(seconds.dateReader("s", "r"), START_MS + 6_000);
  assert.equal(seconds.dateReader("s", "s"), START_MS);
});

test("what the clock is a year behind of is remembered until it is there again", () => {
  const clock = handClock();
  const seconds = new OwnSeconds(clock);
  clock.nowMs -= YEAR_MS;
  seconds.streamGone("old", [{ createdMs: START_MS }], []);
  for (let i = 0; i < 1_000; i++) {
    clock.nowMs += 1_000;
    seconds.streamGone(`${i}`, [{ createdMs: seconds.dateStream(`${i}`) }], []);
  }
  assert.equal(seconds.dateStream("old"), START_MS + 1_000);
  assert.equal(seconds.size, 2);
  clock.nowMs = START_MS + 1_000;
  seconds.readerGone("s", { name: "r", createdMs: clock.nowMs });
  assert.equal(seconds.size, 1);
});
