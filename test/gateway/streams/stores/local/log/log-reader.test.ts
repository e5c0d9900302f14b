/** What readers find where a segment, or what is known of it, was damaged while the log was closed. */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import test from "node:test";
import { makeFrame, readAll } from "../../../../../contract/streams.ts";
import { type LocalPlace, makeLocalPlace } from "../local-place.ts";

const SHARD_0 = "shardId-000000000000";
const BEGIN_MS = 1_700_000_000_000;
/** It ends by itself within seconds. */
const OR_HANGS = { timeout: 60_000 };

/** One record a second, of the given sizes; the first character of each tells which it is. */
async function fill(place: LocalPlace, segmentBytes: number, sizes: readonly number[]): Promise<void> {
  const streams = await place.open({ segmentBytes });
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  for (const [i, size] of sizes.entries()) {
    place.nowMs = BEGIN_MS + i * 1000;
    await streams.appendFrame(makeFrame("s", BigInt(i + 1), [String(i).padEnd(size, ".")]));
  }
  await streams.close();
}

test(
  "a segment of which no record is left holds up neither readers nor who looks for a time",
  OR_HANGS,
  async (t) => {
    const place = await makeLocalPlace();
    t.after(() => place.remove());
    await fill(place, 1, Array<number>(6).fill(20));
    // One record a segment, behind a first one of the state alone; what the sidecar says of it stays.
    const path = (await place.segments())[3]!;
    const bytes = await readFile(path);
    const at = bytes.indexOf("2....");
    assert.ok(at > 0);
    bytes[at]! ^= 1;
    await writeFile(path, bytes);

    const streams = await place.open();
    t.after(() => streams.close());
    const found = await readAll(streams, "s", SHARD_0);
    assert.deepEqual(
      found.map(({ text }) => text[0]),
      ["0", "1", "3", "4", "5"],
    );
    const offsetAt = (arrivalMs: number): Promise<number> =>
      streams.position("s", SHARD_0, { at: "time", arrivalMs });
    for (const [second, offset] of [0, 1, 3, 3, 4, 5, 6].entries()) {
      assert.equal(await offsetAt(BEGIN_MS + second * 1000), offset, `second ${second}`);
    }
  },
);

test("a time is found behind megabytes of older records, also where the index points are damaged", async (t) => {
  const place = await makeLocalPlace();
  t.after(() => place.remove());
  await fill(place, 4_000_000, Array<number>(8).fill(700_000));
  const [first, second] = await place.segments();
  assert.ok(second !== undefined);
  const sidecar = first!.replace(".log", ".idx");
  const bytes = await readFile(sidecar);
  bytes[bytes.length - 1]! ^= 1;
  await writeFile(sidecar, bytes);

  const streams = await place.open();
  t.after(() => streams.close());
  for (let offset = 0; offset < 8; offset++) {
    const start = { at: "time", arrivalMs: BEGIN_MS + offset * 1000 - 500 } as const;
    assert.equal(await streams.position("s", SHARD_0, start), offset);
  }
});
