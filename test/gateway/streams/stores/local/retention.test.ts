import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import test from "node:test";
import { StreamLog } from "../../../../../gateway/streams/stores/local/log/stream-log.ts";
import { arrivedByMs } from "../../../../../gateway/streams/stores/local/segments/segment-age.ts";
import { makeFrame, readAll } from "../../../../contract/streams.ts";
import { makeLocalPlace } from "./local-place.ts";
import { append, makeLogPlace, watchedDisk } from "./log/log-place.ts";

const SHARD_0 = "shardId-000000000000";
const HOUR_MS = 3_600_000;
const START_MS = 1_700_000_000_000;

test("retention removes whole segments; offsets and producers go on, also after a reopening", async () => {
  const place = await makeLocalPlace();
  try {
    place.nowMs = START_MS;
    let streams = await place.open({ segmentBytes: 600 });
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    for (let i = 1; i <= 12; i++) {
      place.nowMs = START_MS + i * HOUR_MS;
      await streams.appendFrame(makeFrame("s", BigInt(i), [`text-${i}`]));
      if (i === 3) {
        const plain = { clientId: "plug", packetId: 1, partitionKey: "k", timeUs: 1, mayRepeat: true };
        await streams.appendPublish("s", { ...plain, payload: Buffer.from("plain") });
      }
    }
    await streams.enforceRetention();
    assert.equal(streams.describe("s").shardList[0]!.trimHorizon, 0);
    assert.ok((await place.segments()).length >= 3);

    place.nowMs = START_MS + (24 + 6) * HOUR_MS;
    await streams.enforceRetention();
    const { trimHorizon, latest } = streams.describe("s").shardList[0]!;
    assert.ok(trimHorizon > 0 && trimHorizon <= 7, `${trimHorizon}`);
    assert.equal(latest, 13);
    const read = await streams.read("s", SHARD_0, 0, 1);
    assert.equal(read.trimmed, trimHorizon);
    assert.equal(read.parts[0]!.first, trimHorizon);
    const kept = await readAll(streams, "s", SHARD_0);
    assert.equal(kept.length, 13 - trimHorizon);
    assert.equal(await streams.position("s", SHARD_0, { at: "trim-horizon" }), trimHorizon);
    const noon = START_MS + 9 * HOUR_MS;
    const at = await streams.position("s", SHARD_0, { at: "time", arrivalMs: noon });
    assert.equal(kept.find(({ offset }) => offset === at)!.text, "text-9");
    assert.equal(kept.find(({ offset }) => offset === at)!.arrivalMs, noon);

    place.nowMs = START_MS + 100 * HOUR_MS;
    await streams.enforceRetention();
    assert.equal((await place.segments()).length, 1);
    assert.deepEqual(await readAll(streams, "s", SHARD_0), []);
    assert.equal(streams.describe("s").shardList[0]!.trimHorizon, 13);

    await streams.close();
    streams = await place.open({ segmentBytes: 600 });
    assert.equal(streams.describe("s").shardList[0]!.latest, 13);
    assert.equal(await streams.appendFrame(makeFrame("s", 12n, ["text-12"])), "duplicate");
    const plain = { clientId: "plug", packetId: 1, partitionKey: "k", timeUs: 1, mayRepeat: true };
    assert.equal(await streams.appendPublish("s", { ...plain, payload: Buffer.from("plain") }), "duplicate");
    const [placed] = await streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
    assert.equal(placed!.offset, 13);
    await streams.close();
  } finally {
    await place.remove();
  }
});

test("a stream into which little comes keeps nothing for much longer than it says", async () => {
  const place = await makeLocalPlace();
  try {
    place.nowMs = START_MS;
    const streams = await place.open();
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    for (let hour = 1; hour <= 100; hour++) {
      place.nowMs += HOUR_MS;
      await streams.append("s", [{ partitionKey: "k", data: Buffer.from(`hour ${hour}`) }]);
      await streams.enforceRetention();
      const kept = await readAll(streams, "s", SHARD_0);
      const oldestHour = (kept[0]!.arrivalMs! - START_MS) / HOUR_MS;
      // A whole segment goes at a time; with what came within an eighth of the retention.
      assert.ok(hour - oldestHour <= 24 + 24 / 8 + 1, `in hour ${hour} there is one of hour ${oldestHour}`);
      assert.ok(
        oldestHour === 1 || hour - oldestHour >= 24,
        `in hour ${hour} hour ${oldestHour} is the oldest`,
      );
      assert.equal(kept.at(-1)!.text, `hour ${hour}`);
    }
    assert.ok((await place.segments()).length <= 10);
    await streams.close();
  } finally {
    await place.remove();
  }
});

test("what retention takes while it is being read is told as trimmed", async () => {
  const place = await makeLocalPlace();
  try {
    place.nowMs = START_MS;
    let streams = await place.open({ segmentBytes: 600 });
    await streams.createStream({ name: "s", shards: 1, retentionHours: 1 });
    for (let i = 0; i < 200; i++) {
      place.nowMs += HOUR_MS / 100;
      await streams.appendFrame(makeFrame("s", BigInt(i + 1), [`text-${i}`]));
    }
    await streams.close();
    // Nothing is left in memory: each read looks into a file.
    streams = await place.open({ segmentBytes: 600 });
    let trimmed = 0;
    const read = async (): Promise<void> => {
      for (let at = 0; at < 200; ) {
        const read = await streams.read("s", SHARD_0, at, 1);
        assert.equal((read.parts[0]?.first ?? read.next) - at, read.trimmed, `from ${at}`);
        trimmed += read.trimmed;
        at = read.next;
      }
    };
    await Promise.all([read(), streams.enforceRetention()]);
    // However fast the first was.
    await read();
    assert.ok(trimmed > 0);
    await streams.close();
  } finally {
    await place.remove();
  }
});

test("arrival times never fall, even when the clock does", async () => {
  const place = await makeLocalPlace();
  try {
    place.nowMs = START_MS;
    let streams = await place.open();
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
    place.nowMs = START_MS - HOUR_MS;
    await streams.append("s", [{ partitionKey: "k", data: Buffer.from("y") }]);
    await streams.close();
    streams = await place.open();
    await streams.append("s", [{ partitionKey: "k", data: Buffer.from("z") }]);
    const records = await readAll(streams, "s", SHARD_0);
    assert.deepEqual(
      records.map(({ arrivalMs }) => arrivalMs),
      [START_MS, START_MS, START_MS],
    );
    await streams.close();
  } finally {
    await place.remove();
  }
});

test("a reader goes on while retention takes segments from under it", async () => {
  const place = await makeLocalPlace();
  try {
    place.nowMs = START_MS;
    const streams = await place.open({ segmentBytes: 2_000 });
    await streams.createStream({ name: "s", shards: 1, retentionHours: 1 });
    for (let i = 0; i < 60; i++) {
      place.nowMs += HOUR_MS / 10;
      await streams.appendFrame(makeFrame("s", BigInt(i + 1), [`text-${i}`]));
    }
    const [all] = await Promise.all([readAll(streams, "s", SHARD_0, 0, 1), streams.enforceRetention()]);
    assert.equal(all.at(-1)!.text, "text-59");
    const offsets = all.map(({ offset }) => offset);
    assert.deepEqual(
      offsets,
      [...offsets].sort((a, b) => a - b),
    );
    await streams.close();
  } finally {
    await place.remove();
  }
});

test("a reader hears of what retention took while it began to read", async () => {
  const place = await makeLocalPlace();
  try {
    place.nowMs = START_MS;
    let streams = await place.open({ segmentBytes: 600 });
    await streams.createStream({ name: "s", shards: 1, retentionHours: 1 });
    for (let i = 0; i < 60; i++) await streams.appendFrame(makeFrame("s", BigInt(i + 1), [`text-${i}`]));
    await streams.close();
    // Nothing is in memory, and the index has to be read before the segment is opened.
    streams = await place.open({ segmentBytes: 600 });
    place.nowMs += 2 * HOUR_MS;
    const removed = streams.enforceRetention();
    const reads = await Promise.all(Array.from({ length: 8 }, () => streams.read("s", SHARD_0, 0, 1)));
    for (const { parts, next, trimmed } of reads) assert.equal(trimmed, parts[0]?.first ?? next);
    await removed;
    assert.equal((await streams.read("s", SHARD_0, 0, 1)).trimmed, 60);
    await streams.close();
  } finally {
    await place.remove();
  }
});

test("a moment of a clock that is years ahead does not end retention, nor does one of a clock that is behind", async () => {
  const place = await makeLocalPlace();
  try {
    place.nowMs = START_MS;
    let streams = await place.open({ segmentBytes: 600 });
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const append = (n: number) => streams.appendFrame(makeFrame("s", BigInt(n), [`text-${n}`]));
    for (let n = 1; n <= 48; n++) {
      place.nowMs = START_MS + n * HOUR_MS;
      if (n === 5) place.jumpMs = 10 * 365 * 24 * HOUR_MS;
      if (n === 8) place.jumpMs = -START_MS;
      await append(n);
      place.jumpMs = 0;
    }
    await streams.close();
    streams = await place.open({ segmentBytes: 600 });
    await streams.enforceRetention();
    const { trimHorizon } = streams.describe("s").shardList[0]!;
    assert.ok(trimHorizon >= 15 && trimHorizon <= 24, `${trimHorizon}`);
    // Without traffic, too.
    place.nowMs += 25 * HOUR_MS;
    await streams.enforceRetention();
    place.nowMs += 25 * HOUR_MS;
    await streams.enforceRetention();
    assert.equal(streams.describe("s").shardList[0]!.trimHorizon, 48);
    await streams.close();
  } finally {
    await place.remove();
  }
});

test("records of a segment that was begun while the clock was years ahead become too old as others do", async () => {
  const place = await makeLocalPlace();
  try {
    place.nowMs = START_MS;
    const streams = await place.open({ segmentBytes: 600 });
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const append = (n: number) => streams.appendFrame(makeFrame("s", BigInt(n), [`${n}${"x".repeat(300)}`]));
    for (let n = 1; n <= 8; n++) {
      if (n === 5) place.jumpMs = 10 * 365 * 24 * HOUR_MS;
      await append(n);
    }
    await streams.splitShard("s", SHARD_0, 1n);
    await streams.mergeShards("s", "shardId-000000000001", "shardId-000000000002");
    place.jumpMs = 0;
    for (let hours = 0; hours <= 50; hours += 25) {
      await streams.enforceRetention();
      const { shardList } = streams.describe("s");
      if (hours === 0) assert.equal(shardList[0]!.trimHorizon, 0);
      // Nor are the shards listed for years that were closed then.
      const indexes = shardList.map(({ index }) => index);
      if (hours >= 25) assert.deepEqual(indexes, [3], `after ${hours} hours`);
      place.nowMs += 25 * HOUR_MS;
    }
    // And while it is behind, traffic is not cut up.
    place.jumpMs = -START_MS;
    for (let n = 9; n <= 14; n++) {
      await streams.appendFrame(makeFrame("s", BigInt(n), ["short"]));
      await streams.enforceRetention();
    }
    const segments = await place.segments();
    assert.ok(segments.length <= 4, `${segments.length} segments`);
    await streams.close();
  } finally {
    await place.remove();
  }
});

for (const [way, jumpMs] of [
  ["ahead", 9_000 * HOUR_MS],
  ["back", -100 * HOUR_MS],
] as const) {
  test(`a clock that jumps ${way} while retention is at work costs nothing`, async (t) => {
    const place = await makeLocalPlace();
    t.after(() => place.remove());
    place.nowMs = START_MS;
    let jumps = false;
    const disk = watchedDisk(() => {
      if (jumps) place.jumpMs = jumpMs;
    });
    const streams = await place.open({ segmentBytes: 600, disk });
    t.after(() => streams.close());
    for (const name of ["a", "b"]) await streams.createStream({ name, shards: 1, retentionHours: 24 });
    await streams.appendFrame(makeFrame("a", 1n, ["old"]));
    place.nowMs += 30 * HOUR_MS;
    for (let i = 1; i <= 12; i++) await streams.appendFrame(makeFrame("b", BigInt(i), [`text-${i}`]));
    if (way === "back") {
      // By the clock as it will be then, the last segment is older than all that stands in it.
      place.jumpMs = jumpMs;
      for (let i = 13; i <= 24; i++) await streams.appendFrame(makeFrame("b", BigInt(i), [`text-${i}`]));
      place.jumpMs = 0;
    }
    const before = (await readAll(streams, "b", SHARD_0)).length;
    // Stream a gets a new segment; by then retention has begun.
    jumps = true;
    await streams.enforceRetention();
    assert.equal(place.jumpMs, jumpMs);
    assert.deepEqual(await readAll(streams, "a", SHARD_0), []);
    assert.equal((await readAll(streams, "b", SHARD_0)).length, before);
  });
}

test("what a segment holds is no older than a sound clock says", () => {
  const day = (createdDay: number, newestDay: number) => ({ createdMs: createdDay, newestMs: newestDay });
  // By its newest record, as long as that lies in the past.
  assert.equal(arrivedByMs([day(100, 110), day(109, 120)], 0, 130), 110);
  // The clock was ahead while it was filled, and while the next one was made.
  assert.equal(arrivedByMs([day(100, 900), day(900, 900), day(120, 900)], 0, 130), 120);
  assert.equal(arrivedByMs([day(100, 900), day(900, 900), day(120, 900)], 1, 130), 120);
  // The clock was behind while the next one was made, or its head is damaged.
  assert.equal(arrivedByMs([day(100, 900), day(1, 900), day(0, 900), day(125, 900)], 0, 130), 125);
  assert.equal(arrivedByMs([day(100, 900)], 0, 130), undefined);
  // The clock is behind now.
  assert.equal(arrivedByMs([day(100, 110), day(110, 120)], 0, 5), undefined);
});

test("a log that cannot be written gives back what is too old all the same, and is repaired without an append", async (t) => {
  const place = await makeLogPlace();
  t.after(() => place.remove());
  let failing = false;
  const disk = watchedDisk(() => {
    if (failing) throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
  });
  let nowMs = START_MS;
  const log = await StreamLog.create(place.options({ disk, segmentBytes: 1_000, nowMs: () => nowMs }));
  for (let n = 1; n <= 4; n++) await append(log, n, { bytes: 1_000 });
  assert.equal(log.segments.length, 4);
  failing = true;
  await assert.rejects(append(log, 5), { code: "LOG_FULL" });
  // Until then the repair may have a new segment in the making, and its pause is still to come.
  while (!place.logged.includes("the log cannot be repaired yet")) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  nowMs += 2 * HOUR_MS;
  assert.equal(await log.removeBefore(nowMs - HOUR_MS), 3);
  assert.equal((await readdir(place.folder)).filter((name) => name.endsWith(".log")).length, 1);
  failing = false;
  place.passedMs += 1_000;
  assert.equal(await log.removeBefore(nowMs - HOUR_MS), 0);
  while (!place.logged.includes("the log is repaired and accepts again")) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(await log.removeBefore(nowMs - HOUR_MS), 1);
  assert.equal(await append(log, 5), 4);
  await log.close();
});
