/** Segments that retention cannot remove: each of its calls fails for once, or for long, and goes well later. */
import assert from "node:assert/strict";
import promises, { cp, mkdir, readdir, writeFile } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { dirname, join, sep } from "node:path";
import test, { type TestContext } from "node:test";
import type { LocalStreams } from "../../../../../gateway/streams/stores/local/local.ts";
import { RecycledSegments } from "../../../../../gateway/streams/stores/local/segments/recycled-segments.ts";
import { Segment } from "../../../../../gateway/streams/stores/local/segments/segment.ts";
import { verifyLocalStreams } from "../../../../../gateway/streams/stores/local/verify.ts";
import { readAll } from "../../../../contract/streams.ts";
import { eventually } from "../../../../support/program.ts";
import { type LocalPlace, makeLocalPlace } from "./local-place.ts";

const SHARD_0 = "shardId-000000000000";
const HOUR_MS = 3_600_000;
const START_MS = 1_700_000_000_000;
const OPTIONS = { segmentBytes: 65_536, recycleSegments: "never" } as const;
const FAILED = "housekeeping failed";

type Call = "unlink of a sidecar" | "unlink of a log" | "open of the folder" | "fsync of the folder";
const CALLS: readonly Call[] = [
  "unlink of a sidecar",
  "unlink of a log",
  "open of the folder",
  "fsync of the folder",
];

/** How the calls of a removal in this place go: `fails` is asked before each. */
function harmRemovals(t: TestContext, { dir }: LocalPlace, fails: (call: Call) => boolean): void {
  const { unlink, open } = promises;
  const logs = join(dir, "logs") + sep;
  const harm = (call: Call, code: string): void => {
    if (fails(call)) throw Object.assign(new Error(`${code}: ${call}`), { code });
  };
  promises.unlink = (async (path: string) => {
    if (path.endsWith(".idx") && path.startsWith(logs)) harm("unlink of a sidecar", "EIO");
    if (path.endsWith(".log") && path.startsWith(logs)) harm("unlink of a log", "EIO");
    await unlink(path);
  }) as typeof unlink;
  promises.open = (async (path: string, ...more: [string]) => {
    if (dirname(path) + sep !== logs) return open(path, ...more);
    harm("open of the folder", "EMFILE");
    const folder = await open(path, ...more);
    const sync = folder.sync.bind(folder);
    folder.sync = async () => {
      harm("fsync of the folder", "EIO");
      await sync();
    };
    return folder;
  }) as typeof open;
  syncBuiltinESMExports();
  t.after(() => {
    Object.assign(promises, { unlink, open });
    syncBuiltinESMExports();
  });
}

/** Five segments of the first hour, and another one for each three hours of the next twenty-four. */
async function filled(t: TestContext): Promise<{ place: LocalPlace; streams: LocalStreams }> {
  const place = await makeLocalPlace();
  t.after(() => place.remove());
  place.nowMs = START_MS;
  const streams = await place.open(OPTIONS);
  t.after(() => streams.close());
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  const data = Buffer.alloc(10_000);
  for (let i = 0; i < 40; i++) await streams.append("s", [{ partitionKey: "k", data }]);
  for (let hour = 1; hour <= 24; hour++) await passHour(place, streams);
  // What is done behind a new segment ends with its sidecar.
  await eventually("a sidecar for each", 20_000, async () => (await sidecars(place)) === 11 || undefined);
  assert.equal((await place.segments()).length, 12);
  assert.deepEqual(place.logged, []);
  return { place, streams };
}

async function passHour(place: LocalPlace, streams: LocalStreams): Promise<void> {
  place.nowMs = place.nowMs! + HOUR_MS;
  await streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
  await streams.enforceRetention();
}

async function sidecars(place: LocalPlace): Promise<number> {
  const names = await readdir(dirname((await place.segments())[0]!));
  return names.filter((name) => name.endsWith(".idx")).length;
}

function trimHorizon(streams: LocalStreams): number {
  return streams.shard("s", 0).trimHorizon;
}

async function unremovedBytes({ metrics }: LocalPlace): Promise<number> {
  return Number(/headwater_log_unremoved_bytes\{stream="s"\} (\d+)/.exec(await metrics.render())![1]);
}

/** What a start finds in the store as it lies there now. */
async function startOfCopy(t: TestContext, { dir, nowMs }: LocalPlace): Promise<string[]> {
  const copy = await makeLocalPlace(`${dir}-copy`);
  t.after(() => copy.remove());
  copy.nowMs = nowMs;
  await cp(dir, copy.dir, { recursive: true });
  const streams = await copy.open(OPTIONS);
  const { latest, trimHorizon: horizon } = streams.shard("s", 0);
  assert.equal((await readAll(streams, "s", SHARD_0)).length, latest - horizon);
  await streams.close();
  return copy.logged;
}

for (const call of CALLS) {
  for (const lasting of [false, true]) {
    test(`a removal whose ${call} fails ${lasting ? "for two runs" : "once"} is made up for by the next run`, async (t) => {
      const { place, streams } = await filled(t);
      let skipped = 0;
      let isBad = true;
      harmRemovals(t, place, (made) => {
        if (!isBad || made !== call) return false;
        // Two of the five go well.
        if (skipped++ < 2) return false;
        isBad = lasting;
        return true;
      });
      await passHour(place, streams);
      if (lasting) await passHour(place, streams);
      // Once a run, not once a segment, and nobody reads what is too old.
      assert.deepEqual(place.logged, Array(lasting ? 2 : 1).fill(FAILED));
      const horizon = trimHorizon(streams);
      assert.ok(horizon >= 35, `${horizon}`);
      assert.ok((await unremovedBytes(place)) > 2 * 65_536);
      assert.deepEqual(await startOfCopy(t, place), []);

      isBad = false;
      place.logged.length = 0;
      await passHour(place, streams);
      const files = await place.segments();
      assert.ok(files.length <= 9, `${files.length} segments`);
      assert.equal(await unremovedBytes(place), 0);
      const left = trimHorizon(streams);
      await streams.close();
      assert.deepEqual((await verifyLocalStreams(place.dir)).findings, []);
      const again = await place.open(OPTIONS);
      t.after(() => again.close());
      assert.equal(trimHorizon(again), left);
      assert.deepEqual(await place.segments(), files);
      assert.deepEqual(place.logged, []);
    });
  }
}

test("a close removes what retention could not", async (t) => {
  const { place, streams } = await filled(t);
  let isBad = true;
  harmRemovals(t, place, (call) => isBad && call === "open of the folder");
  await passHour(place, streams);
  const horizon = trimHorizon(streams);
  isBad = false;
  await streams.close();
  const again = await place.open(OPTIONS);
  t.after(() => again.close());
  assert.equal(trimHorizon(again), horizon);
  assert.deepEqual(place.logged, [FAILED]);
});

test("where a close cannot remove it either, the first run of retention behind a start does, and nothing is missed", async (t) => {
  const { place, streams } = await filled(t);
  let isBad = true;
  harmRemovals(t, place, (call) => isBad && call === "unlink of a log");
  await passHour(place, streams);
  const horizon = trimHorizon(streams);
  await streams.close();
  isBad = false;
  const again = await place.open(OPTIONS);
  t.after(() => again.close());
  assert.deepEqual(place.logged, [FAILED, FAILED]);
  await again.enforceRetention();
  assert.equal(trimHorizon(again), horizon);
  assert.ok((await place.segments()).length <= 9);
});

test("a stream is deleted with what could not be removed of it", async (t) => {
  const { place, streams } = await filled(t);
  harmRemovals(t, place, (call) => call === "unlink of a log");
  await passHour(place, streams);
  await streams.deleteStream("s");
  assert.deepEqual(await readdir(join(place.dir, "logs")), []);
  assert.doesNotMatch(await place.metrics.render(), /headwater_log_unremoved_bytes\{/);
});

test("a file that the pool of spares could not take over for good is not left in it", async (t) => {
  const place = await makeLocalPlace();
  t.after(() => place.remove());
  const spares = new RecycledSegments(join(place.dir, "spares"), 4_096, false);
  await spares.start();
  t.after(() => spares.close());
  spares.want();
  const folder = join(place.dir, "logs", "s");
  await mkdir(folder, { recursive: true });
  const segment = new Segment(folder, 0, 1);
  await writeFile(segment.path, Buffer.alloc(4_096));
  let syncs = 0;
  harmRemovals(t, place, (call) => call === "fsync of the folder" && ++syncs === 2);
  await segment.remove(spares);
  assert.equal(syncs, 2);
  assert.equal(spares.ready, 0);
  assert.deepEqual(await readdir(join(place.dir, "spares")), []);
  assert.deepEqual(await readdir(folder), []);
});
