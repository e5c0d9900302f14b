/** Who looks at a stream of large records reads some of them, the newest, and is told so. */
import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { newestRecords } from "../../../gateway/api/console/newest-records.ts";
import { RecentReadings } from "../../../gateway/api/console/recent-readings.ts";
import type { Streams } from "../../../gateway/streams/streams.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { makeLocalPlace } from "../streams/stores/local/local-place.ts";

const MIB = 1_048_576;
const SMALL = 20_000;
const LARGE = 160;
/** What was appended at once is read at once: each try reads so much more, at most. */
const AT_ONCE = 4;
const SLACK_MIB = 4 * AT_ONCE;

/** Counts what is read of it. */
function counted(streams: Streams): { streams: Streams; readMib: () => number } {
  let bytes = 0;
  const read: Streams["read"] = async (...args) => {
    const result = await streams.read(...args);
    for (const { runs } of result.parts) for (const run of runs) bytes += run.body.length;
    return result;
  };
  const watched = new Proxy(streams, {
    get(target, name) {
      if (name === "read") return read;
      const member = Reflect.get(target, name) as unknown;
      return typeof member === "function" ? member.bind(target) : member;
    },
  });
  return { streams: watched, readMib: () => bytes / MIB };
}

/** Small ones, then large ones that are no readings, then `last` small ones. */
async function mixed(t: TestContext, small: number, last: number) {
  const place = await makeLocalPlace();
  const streams = await place.open();
  t.after(async () => {
    await streams.close();
    await place.remove();
  });
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  const put = (from: number, count: number) =>
    streams.append(
      "s",
      Array.from({ length: count }, (_, i) => ({
        partitionKey: "k",
        data: Buffer.from(JSON.stringify({ n: from + i })),
      })),
    );
  for (let n = 0; n < small; n += 1_000) await put(n, Math.min(1_000, small - n));
  const large = Buffer.alloc(MIB - 1, "x");
  for (let n = 0; n < LARGE; n += AT_ONCE)
    await streams.append("s", new Array(AT_ONCE).fill({ partitionKey: "k", data: large }));
  await put(small, last);
  return counted(streams);
}

test("the readings of a stream of large records are found within a bounded part of it", async (t) => {
  for (const small of [SMALL, 0]) {
    const { streams, readMib } = await mixed(t, small, 10);
    const readings = new RecentReadings(streams, systemClock);
    t.after(() => readings.close());
    const begunUs = systemClock.nowUs();
    const { rows, wholeFromUs } = await readings.readings("s", "k", 3_600);
    assert.ok(readMib() < 2 * 64 + SLACK_MIB, `${readMib()} MiB of ${LARGE}`);
    assert.deepEqual(
      rows.slice(-3).map(({ values }) => values.n),
      [7, 8, 9].map((i) => small + i),
    );
    assert.ok(wholeFromUs! > begunUs - 3_600_000_000 && wholeFromUs! <= begunUs);
    // What is new is all read.
    await streams.append("s", [{ partitionKey: "k", data: Buffer.from('{"n":-1}') }]);
    const before = readMib();
    assert.equal((await readings.readings("s", "k", 3_600)).rows.at(-1)!.values.n, -1);
    assert.ok(readMib() - before < 1);
  }
});

test("the newest results of a statement are found within a bounded part of its stream", async (t) => {
  const { streams, readMib } = await mixed(t, SMALL, 10);
  const { rows, isCut } = await newestRecords(streams, "s", 1_000);
  assert.ok(readMib() < 32 + SLACK_MIB, `${readMib()} MiB of ${LARGE}`);
  assert.ok(isCut);
  assert.deepEqual(
    rows,
    Array.from({ length: 10 }, (_, i) => ({ n: SMALL + 9 - i })),
  );
  assert.deepEqual(await newestRecords(streams, "s", 3), {
    rows: [9, 8, 7].map((i) => ({ n: SMALL + i })),
  });
});

test("what was not read or kept of a sensor is told, and nothing where all of it is there", async (t) => {
  const { streams } = await mixed(t, 0, 3);
  const readings = new RecentReadings(streams, systemClock);
  t.after(() => readings.close());
  await streams.createStream({ name: "few", shards: 2, retentionHours: 24 });
  const put = (n: number) => ({ partitionKey: "k", data: Buffer.from(JSON.stringify({ n })) });
  await streams.append("few", [put(1), put(2)]);
  const few = await readings.readings("few", "k", 3_600);
  assert.deepEqual(
    few.rows.map(({ values }) => values.n),
    [1, 2],
  );
  assert.equal(few.wholeFromUs, undefined);
  // More of one key than are kept.
  for (let n = 0; n < 8; n++)
    await streams.append(
      "few",
      Array.from({ length: 1_000 }, (_, i) => put(n + i)),
    );
  const many = await readings.readings("few", "k", 3_600);
  assert.ok(many.wholeFromUs! <= many.rows[0]!.timeUs);
});
