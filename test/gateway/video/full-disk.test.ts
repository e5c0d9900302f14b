/** A disk that was full: what comes behind it is stored, found after a crash, and old footage still makes room. */
import assert from "node:assert/strict";
import { cp, mkdtemp, open, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { FragmentIndex } from "../../../gateway/video/archive/fragment-index.ts";
import { openVideo } from "../../../gateway/video/video-archive.ts";
import { encodeRtp } from "../../../protocol/rtsp/rtp.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip, sendUnit, type TestUnit, unitsOf } from "../../support/h264-rtp.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { SmallDisk } from "../../support/small-disk.ts";

const DISK_BYTES = 48 * 1_048_576;
const FIRST_US = 1_800_000_000_000_000;

async function makeDisk(t: TestContext): Promise<SmallDisk | undefined> {
  const disk = await SmallDisk.make(DISK_BYTES);
  if (typeof disk === "string") {
    t.skip(disk);
    return undefined;
  }
  t.after(() => disk.remove());
  return disk;
}

/** @returns what makes room again */
async function fill(disk: SmallDisk): Promise<() => Promise<void>> {
  const path = join(disk.path, "filler");
  const file = await open(path, "w");
  try {
    // What a large write leaves, smaller ones take.
    for (const bytes of [1_048_576, 4_096]) {
      const zeros = Buffer.alloc(bytes);
      await assert.rejects(
        async () => {
          for (;;) await file.appendFile(zeros);
        },
        { code: "ENOSPC" },
      );
      await file.datasync().catch(() => undefined);
    }
  } finally {
    await file.close();
  }
  return () => rm(path);
}

/** The row of unit `n`, with an epoch of some kilobytes beside it, as gaps make one. */
function put(index: FragmentIndex, n: number): Promise<void> {
  const id = `${String(FIRST_US + n).padStart(16, "0")}-00000000000000aa-${n}`;
  const stored = {
    ranges: Array.from({ length: 400 }, (_, i) => `${i * 2 + 1}-${i * 2 + 1}`).join(","),
    usedUs: n,
  };
  return index.put(
    "yard",
    { id, bytes: 1, durationUs: 1, state: "whole" },
    { name: "00000000000000aa", stored },
  );
}

/** Puts until the disk refuses. @returns how many were taken */
async function exhaust(index: FragmentIndex, from: number): Promise<number> {
  for (let n = from; ; n++) {
    try {
      await put(index, n);
    } catch {
      return n - from;
    }
  }
}

/** As a crash leaves a folder: at one moment. A database may be tidying up its files in another thread meanwhile. */
async function copyOf(folder: string, copy: string): Promise<void> {
  for (;;) {
    const before = (await readdir(folder)).sort();
    await removeFolder(copy);
    const whole = await cp(folder, copy, { recursive: true }).then(
      () => true,
      () => false,
    );
    if (whole && isDeepStrictEqual((await readdir(folder)).sort(), before)) return;
  }
}

for (const tidiedUp of [false, true]) {
  const when = tidiedUp ? ", also where it was to be tidied up meanwhile" : "";
  test(`rows that are taken after a full disk are there after a crash${when}`, async (t) => {
    const disk = await makeDisk(t);
    if (disk === undefined) return;
    const index = new FragmentIndex(join(disk.path, "index"));
    await index.open();
    t.after(() => index.close());
    for (let n = 0; n < 100; n++) await put(index, n);
    const makeRoom = await fill(disk);
    const taken = 100 + (await exhaust(index, 100));
    if (tidiedUp) await index.compact().catch(() => undefined);
    await makeRoom();
    for (let n = 10_000; n < 10_050; n++) await put(index, n);

    const copy = await mkdtemp(join(tmpdir(), "headwater-index-"));
    t.after(() => removeFolder(copy));
    await copyOf(join(disk.path, "index"), copy);
    const crashed = new FragmentIndex(copy);
    await crashed.open();
    t.after(() => crashed.close());
    const found: number[] = [];
    for await (const { id } of crashed.rows("yard")) found.push(Number(id.slice(34)));
    const expected = [
      ...Array.from({ length: taken }, (_, n) => n),
      ...Array.from({ length: 50 }, (_, n) => 10_000 + n),
    ];
    assert.deepEqual(found, expected);
  });
}

/** The unit with 1.2 MB more of pictures that nobody could show. */
function heavy(unit: TestUnit, sequence: bigint): TestUnit {
  const noise = Buffer.concat([Buffer.of(0x41), Buffer.alloc(60_000, 7)]);
  const packets = Array.from({ length: 20 }, (_, i) => ({
    track: 0,
    rtp: encodeRtp(
      { marker: true, payloadType: 96, sequence: 40_000 + i, timestamp: 9_000_000 + i * 6_000, ssrc: 1 },
      noise,
    ),
  }));
  const producerUs = unit.producerUs + Number(sequence) * 2_000_000;
  return { ...unit, sequence, producerUs, packets: [...unit.packets, ...packets] };
}

test("a full disk takes no deletion either, but old footage goes all the same and makes room", async (t) => {
  const disk = await makeDisk(t);
  if (disk === undefined) return;
  let nowUs = FIRST_US;
  const clock = { nowUs: () => nowUs, monotonicMs: () => nowUs / 1_000 };
  const index = new FragmentIndex(join(disk.path, "video", "index"));
  const parts = { clock, log: silentLog, metrics: new Metrics(), index };
  const video = await openVideo({
    ...parts,
    dir: join(disk.path, "video"),
    retentionHours: 1,
    maxBytes: 1e12,
  });
  t.after(() => video.close());
  const clip = await makeClip(15);
  const [unit] = unitsOf(clip, 1n, FIRST_US);
  const feed = video.openFeed("yard", clip.sdp);
  const store = async (sequence: bigint): Promise<void> => {
    sendUnit(feed, heavy(unit!, sequence));
    await feed.drained();
  };
  for (let sequence = 1n; sequence <= 20n; sequence++) await store(sequence);
  assert.equal(video.cameras()[0]!.fragments, 20);
  await fill(disk);
  await exhaust(index, 0);
  await store(21n);
  assert.equal(video.cameras()[0]!.fragments, 20);

  nowUs = FIRST_US + 4_000_000_000;
  await video.enforceRetention();
  assert.equal(video.cameras()[0]!.fragments, 0);
  assert.deepEqual(await readdir(join(disk.path, "video/cameras/yard")), []);
  await store(2_500n);
  assert.equal(video.cameras()[0]!.fragments, 1);
});

test("an index that a full disk keeps from opening is not taken for a damaged one", async (t) => {
  const disk = await makeDisk(t);
  if (disk === undefined) return;
  const clip = await makeClip(15);
  const [unit] = unitsOf(clip, 1n, FIRST_US);
  const dir = join(disk.path, "video");
  const parts = {
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    retentionHours: 1e6,
    maxBytes: 1e12,
  };
  const first = await openVideo({ ...parts, dir });
  const feed = first.openFeed("yard", clip.sdp);
  sendUnit(feed, unit!);
  await feed.close();
  await first.close();
  const makeRoom = await fill(disk);
  for (let start = 0; start < 2; start++) {
    await assert.rejects(openVideo({ ...parts, dir }), {
      code: "DATABASE_WRITE_FAILED",
      hint: /free disk space/,
    });
  }
  assert.deepEqual(await readdir(dir), ["cameras", "format", "index"]);
  await makeRoom();
  const second = await openVideo({ ...parts, dir });
  assert.equal(second.cameras()[0]!.fragments, 1);
  await second.close();
});
