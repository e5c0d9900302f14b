/** A log of which a segment's file is gone at one of its ends, as after a job that clears away old `*.log`. */
import assert from "node:assert/strict";
import promises, { cp, readdir, rm } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { dirname } from "node:path";
import test, { type TestContext } from "node:test";
import { verifyLocalStreams } from "../../../../../gateway/streams/stores/local/verify.ts";
import { makeFrame, readAll } from "../../../../contract/streams.ts";
import { type LocalPlace, makeLocalPlace } from "./local-place.ts";

const SHARD_0 = "shardId-000000000000";
const HOUR_MS = 3_600_000;
const FRAMES = 60;
const DAMAGED = "the log is damaged; what can be read is kept";

/** Sixty frames in four segments, closed. */
async function filled(t: TestContext): Promise<LocalPlace> {
  const place = await makeLocalPlace();
  t.after(() => place.remove());
  place.nowMs = 1_700_000_000_000;
  const streams = await place.open({ segmentBytes: 65_536 });
  await streams.createStream({ name: "s", shards: 2, retentionHours: 24 });
  const text = "x".repeat(4_000);
  for (let i = 1; i <= FRAMES; i++) await streams.appendFrame(makeFrame("s", BigInt(i), [text]));
  await streams.close();
  return place;
}

async function goneFindings({ dir }: LocalPlace): Promise<string[]> {
  const { findings } = await verifyLocalStreams(dir);
  return findings.filter(({ detail }) => detail.startsWith("the segment is gone")).map(({ file }) => file);
}

test("the oldest segment's file is missed until its records would have been too old", async (t) => {
  const place = await filled(t);
  const [first] = await place.segments();
  await rm(first!);
  assert.deepEqual(await goneFindings(place), [first!.slice(place.dir.length + 1)]);
  let streams = await place.open();
  assert.deepEqual(place.logged, [DAMAGED]);
  assert.ok((streams.describe("s").damagedBytes ?? 0) > 60_000);
  place.nowMs = place.nowMs! + 30 * HOUR_MS;
  await streams.enforceRetention();
  await streams.close();
  place.logged.length = 0;
  streams = await place.open();
  assert.deepEqual(place.logged, []);
  await streams.close();
  assert.deepEqual(await goneFindings(place), []);
  const left = (await readdir(dirname(first!))).filter((name) => name.endsWith(".idx"));
  assert.equal(left.length, (await place.segments()).length);
});

for (const many of [1, 2]) {
  test(`the offsets of the last ${many} segments whose files are gone are not given out again, also behind a crash`, async (t) => {
    const place = await filled(t);
    const gone = (await place.segments()).slice(-many);
    for (const path of gone) await rm(path);
    assert.equal((await goneFindings(place)).length, many);
    let streams = await place.open();
    assert.deepEqual(place.logged, Array(many).fill(DAMAGED));
    assert.equal(streams.shard("s", 0).latest, FRAMES);
    // What a crash leaves of a start at which nothing was appended.
    const crashed = await makeLocalPlace(`${place.dir}-crashed`);
    t.after(() => crashed.remove());
    await cp(place.dir, crashed.dir, { recursive: true });
    await streams.close();
    crashed.nowMs = place.nowMs;
    streams = await crashed.open();
    t.after(() => streams.close());
    // It is lost, so it is no repetition.
    assert.equal(await streams.appendFrame(makeFrame("s", BigInt(FRAMES), ["again"])), "stored");
    const records = await readAll(streams, "s", SHARD_0);
    assert.equal(records.at(-1)!.text, "again");
    assert.equal(streams.shard("s", 0).latest, FRAMES + 1);
    assert.ok(records.length < FRAMES);
  });
}

test("however many segments are too old, their folder is not listed for each of them", async (t) => {
  const place = await filled(t);
  const streams = await place.open({ segmentBytes: 4_096 });
  t.after(() => streams.close());
  const data = Buffer.alloc(4_000);
  for (let i = 1; i <= 40; i++) await streams.append("s", [{ partitionKey: "k", data }]);
  const many = (await place.segments()).length;
  assert.ok(many > 40);
  const { readdir: list } = promises;
  let listings = 0;
  promises.readdir = ((...args: Parameters<typeof list>) => {
    listings++;
    return list(...args);
  }) as typeof list;
  syncBuiltinESMExports();
  t.after(() => {
    promises.readdir = list;
    syncBuiltinESMExports();
  });
  place.nowMs = place.nowMs! + 30 * HOUR_MS;
  await streams.enforceRetention();
  assert.ok(listings < 10, `${listings} listings for ${many} segments`);
  assert.equal((await place.segments()).length, 1);
});
