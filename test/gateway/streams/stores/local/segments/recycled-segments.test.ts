/** Files written over: what they held before never comes back, and the disk is given back promptly. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { Group } from "../../../../../../gateway/streams/stores/local/log/group.ts";
import {
  createSegmentFile,
  realDisk,
} from "../../../../../../gateway/streams/stores/local/log/segment-file.ts";
import { MAX_PADDING_BYTES } from "../../../../../../gateway/streams/stores/local/segments/log-file.ts";
import { RecycledSegments } from "../../../../../../gateway/streams/stores/local/segments/recycled-segments.ts";
import { Segment } from "../../../../../../gateway/streams/stores/local/segments/segment.ts";
import { scanSegment } from "../../../../../../gateway/streams/stores/local/segments/segment-scan.ts";
import { ENTRY_KIND } from "../../../../../../gateway/streams/stores/log-entry.ts";
import { encodeBatch } from "../../../../../../protocol/record-batch.ts";
import { makeFrame, readAll } from "../../../../../contract/streams.ts";
import { eventually } from "../../../../../support/program.ts";
import { removeFolder } from "../../../../../support/remove-folder.ts";
import { type LocalPlace, makeLocalPlace } from "../local-place.ts";

const SHARD_0 = "shardId-000000000000";
const SEGMENT_BYTES = 64 * 1024;
const HOUR_MS = 3_600_000;

async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "headwater-spares-"));
  try {
    await body(folder);
  } finally {
    await removeFolder(folder);
  }
}

async function withPlace(body: (place: LocalPlace) => Promise<void>): Promise<void> {
  const place = await makeLocalPlace();
  try {
    await body(place);
  } finally {
    await place.remove();
  }
}

/** Sound groups of entries, one behind the other, and where each entry ends. */
function entries(generation: number, sizes: readonly number[]): { bytes: Buffer; ends: number[] } {
  const ends: number[] = [];
  const groups: Buffer[] = [];
  let bytes = 0;
  for (const [i, size] of sizes.entries()) {
    const group = new Group(generation);
    const batch = encodeBatch([{ key: "k", timeUs: 1, payload: Buffer.alloc(size, "HWLE") }]);
    const parts = [{ shard: 0, first: i, count: 1, batch, bytes: batch.length }];
    const head = { kind: ENTRY_KIND.records, number: i + 1, arrivalMs: 1, recordsBefore: i };
    group.add({ ...head, producer: undefined, parts });
    groups.push(Buffer.from(group.contents));
    bytes += group.bytes;
    ends.push(bytes);
  }
  return { bytes: Buffer.concat(groups), ends };
}

test("zeros behind the last entry are neither torn nor damage where a file may have them, and damage where not", async () => {
  await withFolder(async (folder) => {
    const { bytes } = entries(2_222, [30, 8, 55]);
    const path = join(folder, "segment");
    for (const zeros of [1, 100, 4_095, MAX_PADDING_BYTES, MAX_PADDING_BYTES + 1]) {
      await writeFile(path, Buffer.concat([bytes, Buffer.alloc(zeros)]));
      const file = await open(path, "r");
      const size = bytes.length + zeros;
      const scan = (tail: "torn" | "sealed", rest: "nothing" | "zeros") =>
        scanSegment(file, 0, size, 2_222, tail, () => undefined, rest);
      const isPadding = zeros <= MAX_PADDING_BYTES;
      for (const tail of ["torn", "sealed"] as const) {
        const { end, damage, tornBytes } = await scan(tail, "zeros");
        const told = tail === "torn" ? tornBytes : damage.length;
        assert.equal(told > 0, !isPadding, `${tail}, ${zeros} zeros`);
        if (isPadding) assert.equal(end, bytes.length);
      }
      assert.equal((await scan("sealed", "nothing")).damage.length, 1);
      assert.equal((await scan("torn", "nothing")).tornBytes, zeros);
      await file.close();
    }
  });
});

test("over a file full of old entries, or of zeros, a log cut at any byte shows its own entries and no damage", async () => {
  await withFolder(async (folder) => {
    const old = entries(1_111, [5, 40, 3, 77, 20, 9, 60, 11]).bytes;
    const { bytes, ends } = entries(2_222, [30, 8, 55]);
    const path = join(folder, "segment");
    for (const before of [old, Buffer.alloc(old.length)]) {
      assert.ok(before.length > bytes.length);
      for (let cut = 0; cut <= bytes.length; cut++) {
        await writeFile(path, Buffer.concat([bytes.subarray(0, cut), before.subarray(cut)]));
        const file = await open(path, "r");
        const whole = ends.filter((end) => end <= cut);
        for (const tail of ["torn", "sealed"] as const) {
          const found: number[] = [];
          const visit = (entry: { number: number }): number => found.push(entry.number);
          const scan = await scanSegment(file, 0, before.length, 2_222, tail, visit, "old bytes");
          assert.equal(found.length, whole.length, `cut at ${cut}`);
          const torn = cut - (whole.at(-1) ?? 0);
          if (tail === "torn") {
            assert.equal(scan.end, whole.at(-1) ?? 0);
            assert.deepEqual(scan.damage, []);
            // What the generation reached can be told; the first bytes of a head may be anybody's.
            assert.equal(scan.tornBytes > 0, torn >= 24, `cut at ${cut}`);
          } else {
            assert.equal(scan.damage.length, torn >= 24 ? 1 : 0);
          }
        }
        await file.close();
      }
    }
  });
});

/** Frames of about 4 KB, up to `last`, one group each. */
async function appendUpTo(
  streams: Awaited<ReturnType<LocalPlace["open"]>>,
  first: number,
  last: number,
): Promise<void> {
  for (let i = first; i <= last; i++) await streams.appendFrame(makeFrame("s", BigInt(i), [textOf(i)]));
}

/** More frames than any wait for a spare takes. */
const MAX_FRAMES = 5_000;

/**
 * Frames from 1 on, at least so many, until it holds of what the segments were recycled from: a spare is
 * made in the background, which takes as long as the disk takes. @returns the last one's number
 */
async function appendUntil(
  place: LocalPlace,
  streams: Awaited<ReturnType<LocalPlace["open"]>>,
  atLeast: number,
  holds: (recycledBytes: readonly number[]) => boolean,
): Promise<number> {
  await appendUpTo(streams, 1, atLeast);
  for (let last = atLeast; ; last++) {
    const recycled = await recycledBytesOf(place);
    if (holds(recycled)) return last;
    assert.ok(last < MAX_FRAMES, recycled.join());
    await appendUpTo(streams, last + 1, last + 1);
  }
}

function isRecycled(bytes: number | undefined): boolean {
  return (bytes ?? 0) >= SEGMENT_BYTES;
}

function textOf(i: number): string {
  return `${i}/${"x".repeat(4_000)}`;
}

async function spares(place: LocalPlace): Promise<string[]> {
  return readdir(join(place.dir, "spares"));
}

test("a brisk log writes over spares, and gives the disk back when it is closed", async () => {
  await withPlace(async (place) => {
    let streams = await place.open({ segmentBytes: SEGMENT_BYTES, recycleSegments: "filled" });
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const count = await appendUntil(place, streams, 100, (all) => all.filter(isRecycled).length > 2);
    await streams.close();
    for (const path of await place.segments()) {
      const { size, blocks } = await stat(path);
      assert.ok(blocks * 512 <= size + 8_192, `${size} bytes in ${blocks} blocks`);
    }
    assert.deepEqual(await readdir(place.dir).then((names) => names.includes("spares")), false);
    streams = await place.open({ segmentBytes: SEGMENT_BYTES, recycleSegments: "filled" });
    assert.deepEqual(place.logged, []);
    const texts = (await readAll(streams, "s", SHARD_0, 0, 100_000)).map(({ text }) => text);
    assert.deepEqual(
      texts,
      Array.from({ length: count }, (_, i) => textOf(i + 1)),
    );
    await streams.close();
  });
});

async function recycledBytesOf(place: LocalPlace): Promise<number[]> {
  return Promise.all(
    (await place.segments()).map(async (path) => {
      const file = await open(path, "r");
      const { buffer } = await file.read(Buffer.alloc(16), 0, 16, 0);
      await file.close();
      return buffer.readUInt32BE(12);
    }),
  );
}

test("a copy taken of a brisk log while it is open opens without a word of damage", async () => {
  await withPlace(async (place) => {
    const streams = await place.open({ segmentBytes: SEGMENT_BYTES, recycleSegments: "filled" });
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await streams.close();
    const open = await place.open({ segmentBytes: SEGMENT_BYTES, recycleSegments: "filled" });
    const count = await appendUntil(place, open, 97, (all) => isRecycled(all.at(-1)));
    // As a crash leaves it: no sidecar for the last segment, which is longer than what it holds.
    const paths = await place.segments();
    const kept = new Map(await Promise.all(paths.map(async (path) => [path, await readFile(path)] as const)));
    assert.ok(kept.get(paths.at(-1)!)!.length >= SEGMENT_BYTES);
    await open.close();
    for (const [path, bytes] of kept) {
      await writeFile(path, bytes);
      await rm(path.replace(".log", ".idx"), { force: true });
    }
    const again = await place.open({ segmentBytes: SEGMENT_BYTES, recycleSegments: "filled" });
    assert.deepEqual(place.logged, []);
    assert.equal((await readAll(again, "s", SHARD_0, 0, 100_000)).length, count);
    assert.equal(await again.appendFrame(makeFrame("s", BigInt(count), [textOf(count)])), "duplicate");
    await appendUpTo(again, count + 1, count + 33);
    assert.equal((await readAll(again, "s", SHARD_0, 0, 100_000)).length, count + 33);
    await again.close();
  });
});

test("a closed segment that a crash left uncut is cut at the next start", async () => {
  await withPlace(async (place) => {
    let streams = await place.open({ segmentBytes: SEGMENT_BYTES, recycleSegments: "filled" });
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    // Behind the last entry of a fresh file old bytes would be damage.
    const count = await appendUntil(place, streams, 60, (all) => all.slice(0, -1).some(isRecycled));
    await streams.close();
    const recycled = await recycledBytesOf(place);
    const middle = (await place.segments())[recycled.findIndex(isRecycled)]!;
    const bytes = await readFile(middle);
    await rm(middle.replace(".log", ".idx"));
    const old = entries(1_111, [50_000]).bytes;
    await writeFile(middle, Buffer.concat([bytes, old.subarray(7)]));
    streams = await place.open({ segmentBytes: SEGMENT_BYTES, recycleSegments: "filled" });
    assert.deepEqual(place.logged, []);
    assert.equal((await stat(middle)).size, bytes.length);
    assert.equal((await readAll(streams, "s", SHARD_0, 0, 100_000)).length, count);
    await streams.close();
  });
});

test("retention and deletion free the disk, but for the spares", async () => {
  await withPlace(async (place) => {
    const startMs = 1_700_000_000_000;
    place.nowMs = startMs;
    const streams = await place.open({ segmentBytes: SEGMENT_BYTES, recycleSegments: "filled" });
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await appendUpTo(streams, 1, 200);
    for (let hour = 1; hour <= 30; hour++) {
      place.nowMs = startMs + hour * HOUR_MS;
      await streams.enforceRetention();
    }
    assert.equal((await place.segments()).length, 1);
    // One that is still being made is not kept beside two others.
    await eventually(
      "two spares at most",
      60_000,
      async () => (await spares(place)).length <= 2 || undefined,
    );
    await streams.deleteStream("s");
    assert.deepEqual(await readdir(join(place.dir, "logs")), []);
    let bytes = 0;
    for (const name of await spares(place))
      bytes += (await stat(join(place.dir, "spares", name))).blocks * 512;
    assert.ok(bytes <= 2 * (SEGMENT_BYTES + 8_192), `${bytes} bytes in spares`);
    await streams.close();
  });
});

test("a segment that is given while the disk becomes short leaves no spare behind", async () => {
  await withFolder(async (folder) => {
    const pool = new RecycledSegments(join(folder, "spares"), 8_192, false);
    await pool.start();
    await mkdir(join(folder, "log"));
    const path = join(folder, "log", "0");
    await writeFile(path, Buffer.alloc(8_192));
    pool.want();
    const given = pool.give(path);
    await pool.release();
    await given;
    assert.equal(pool.ready, 0);
    assert.deepEqual(await readdir(join(folder, "spares")), []);
    await pool.close();
  });
});

test("a spare that cannot be opened is not left lying, where nobody knows it any more", async () => {
  await withFolder(async (folder) => {
    const spare = join(folder, "1.spare");
    // Opening it fails, as it does where a process has no file descriptor left.
    await symlink(spare, spare);
    const state = { nextOffsets: [], records: 0, arrivalMs: 0, producers: { epochs: [], clients: [] } };
    const segment = new Segment(folder, 7, 1);
    await assert.rejects(createSegmentFile(realDisk, "00".repeat(16), 0, segment, state, spare), {
      code: "ELOOP",
    });
    assert.deepEqual(await readdir(folder), []);
  });
});

test("the pool takes few files, of the right size, and lets go of all", async () => {
  await withFolder(async (folder) => {
    const pool = new RecycledSegments(join(folder, "spares"), 8_192, true);
    await pool.start();
    await mkdir(join(folder, "log"));
    const paths = await Promise.all(
      [8_192, 100, 9_000, 8_192, 20_000].map(async (bytes, i) => {
        const path = join(folder, "log", String(i));
        await writeFile(path, Buffer.alloc(bytes));
        return path;
      }),
    );
    // Nobody had use for a spare so far.
    assert.equal(await pool.give(paths[0]!), false);
    pool.want();
    while (pool.ready === 0) await new Promise((resolve) => setImmediate(resolve));
    const spare = pool.take();
    assert.equal((await stat(spare!)).size, 8_192);
    assert.equal(pool.ready, 0);
    assert.equal(await pool.give(paths[1]!), false);
    assert.equal(await pool.give(paths[4]!), false);
    assert.equal(await pool.give(paths[0]!), true);
    assert.equal(await pool.give(paths[2]!), true);
    assert.equal(await pool.give(paths[3]!), false);
    assert.deepEqual((await readdir(join(folder, "log"))).sort(), ["1", "3", "4"]);
    await pool.release();
    assert.equal(pool.ready, 0);
    assert.equal(pool.take(), undefined);
    await pool.close();
    await pool.close();
  });
});
