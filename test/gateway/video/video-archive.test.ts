import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { promisify } from "node:util";
import { FragmentIndex } from "../../../gateway/video/archive/fragment-index.ts";
import { openVideo, type VideoArchive, type VideoOptions } from "../../../gateway/video/video-archive.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip, sendUnit, type TestClip, unitsOf } from "../../support/h264-rtp.ts";
import { archivedDigests, producerUsOf } from "../../support/picture-digests.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const run = promisify(execFile);
const FIRST_US = 1_800_000_000_000_000;
const EPOCH = 0xfeed_0000_0000_0001n;

async function makeFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "headwater-video-"));
  t.after(() => removeFolder(folder));
  return folder;
}

function open(dir: string, changes: Partial<VideoOptions> = {}): Promise<VideoArchive> {
  return openVideo({
    dir,
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    retentionHours: 1_000_000,
    maxBytes: 1e12,
    ...changes,
  });
}

const digestsOf = (clip: TestClip): string[] => clip.pictures.map((picture) => picture.vclSha256);

test("units become playable files with every picture's bytes unchanged", async (t) => {
  const dir = await makeFolder(t);
  const clip = await makeClip(45);
  const video = await open(dir);
  const feed = video.openFeed("yard", clip.sdp);
  for (const unit of unitsOf(clip, EPOCH, FIRST_US)) sendUnit(feed, unit);
  await feed.drained();

  assert.deepEqual(feed.persisted(), [{ epoch: EPOCH, first: 1n, last: 3n }]);
  assert.deepEqual(await archivedDigests(video, "yard"), digestsOf(clip));
  const fragments = await video.fragments("yard", FIRST_US, FIRST_US + 10_000_000, 10);
  assert.deepEqual(
    fragments.map(({ producerUs, durationUs, state, sequence }) => ({
      producerUs,
      durationUs,
      state,
      sequence,
    })),
    [0, 1, 2].map((i) => ({
      producerUs: FIRST_US + i * 1_000_000,
      durationUs: 1_000_000,
      state: "whole",
      sequence: BigInt(i + 1),
    })),
  );
  const [status] = video.cameras();
  assert.equal(`${status!.codec} ${status!.width}x${status!.height}`, "avc1.42c00a 160x120");
  assert.equal(status!.fragments, 3);
  assert.equal(status!.newestUs, FIRST_US + 3_000_000);

  const bytes = (await video.readFragment("yard", fragments[1]!.id))!;
  assert.equal(producerUsOf(bytes), fragments[1]!.producerUs);
  const file = join(dir, "one.mp4");
  await writeFile(file, bytes);
  const { stdout, stderr } = await run("ffprobe", [
    ..."-v warning -count_frames -show_entries stream=codec_name,width,nb_read_frames,start_time -of csv=p=0".split(
      " ",
    ),
    file,
  ]);
  assert.equal(stderr, "");
  assert.equal(stdout.trim(), "h264,160,0.000000,15");
  await video.close();
});

test("framemd5 of the archived sequence equals the source's, also when pictures are sliced", async (t) => {
  const dir = await makeFolder(t);
  for (const [camera, encoder] of [
    ["plain", ["-bf", "0"]],
    ["slices", ["-bf", "0", "-tune", "zerolatency"]],
  ] as const) {
    const clip = await makeClip(45, { encoder });
    const video = await open(dir);
    const feed = video.openFeed(camera, clip.sdp);
    for (const unit of unitsOf(clip, EPOCH, FIRST_US)) sendUnit(feed, unit);
    await feed.close();
    const pieces: string[] = [];
    for (const { id } of await video.fragments(camera, 0, FIRST_US * 2, 100)) {
      const path = join(dir, `${camera}-${pieces.length}.mp4`);
      await writeFile(path, (await video.readFragment(camera, id))!);
      pieces.push(`file '${path}'`);
    }
    await writeFile(join(dir, "list.txt"), pieces.join("\n"));
    await writeFile(join(dir, "source.h264"), clip.annexB);
    const md5 = async (...input: string[]): Promise<string[]> => {
      const { stdout } = await run("ffmpeg", ["-v", "error", ...input, "-f", "framemd5", "-"]);
      return stdout
        .split("\n")
        .filter((line) => line !== "" && !line.startsWith("#"))
        .map((line) => line.split(",").at(-1)!.trim());
    };
    const archived = await md5("-f", "concat", "-safe", "0", "-i", join(dir, "list.txt"));
    assert.equal(archived.length, 45);
    assert.deepEqual(archived, await md5("-f", "h264", "-i", join(dir, "source.h264")));
    await video.close();
  }
});

test("a unit that comes again is stored once, also after a restart", async (t) => {
  const dir = await makeFolder(t);
  const clip = await makeClip(30);
  const units = unitsOf(clip, EPOCH, FIRST_US);
  for (let start = 0; start < 2; start++) {
    const video = await open(dir);
    const feed = video.openFeed("yard", clip.sdp);
    for (const unit of [...units, ...units]) sendUnit(feed, unit);
    await feed.close();
    assert.equal(video.cameras()[0]!.fragments, 2);
    assert.deepEqual(await archivedDigests(video, "yard"), digestsOf(clip));
    assert.deepEqual(feed.persisted(), [{ epoch: EPOCH, first: 1n, last: 2n }]);
    await video.close();
  }
});

test("a unit without its end is truncated and not persisted until the whole one replaces it", async (t) => {
  const dir = await makeFolder(t);
  const clip = await makeClip(15);
  const [unit] = unitsOf(clip, EPOCH, FIRST_US);
  const video = await open(dir);
  const first = video.openFeed("yard", clip.sdp);
  sendUnit(first, unit!, "half");
  await first.close();
  assert.deepEqual(first.persisted(), []);
  const [part] = await video.fragments("yard", 0, FIRST_US * 2, 10);
  assert.equal(part!.state, "truncated");
  assert.ok((await archivedDigests(video, "yard")).length >= 1);

  const second = video.openFeed("yard", clip.sdp);
  sendUnit(second, unit!);
  await second.close();
  const fragments = await video.fragments("yard", 0, FIRST_US * 2, 10);
  assert.deepEqual(
    fragments.map((fragment) => fragment.state),
    ["whole"],
  );
  assert.deepEqual(await archivedDigests(video, "yard"), digestsOf(clip));
  assert.deepEqual(second.persisted(), [{ epoch: EPOCH, first: 1n, last: 1n }]);
  const [hour] = await readdir(join(dir, "cameras", "yard"));
  assert.equal((await readdir(join(dir, "cameras", "yard", hour!))).length, 1);
  await video.close();
});

test("a unit whose packets do not match its digest is not persisted", async (t) => {
  const dir = await makeFolder(t);
  const clip = await makeClip(15);
  const [unit] = unitsOf(clip, EPOCH, FIRST_US);
  const video = await open(dir);
  const feed = video.openFeed("yard", clip.sdp);
  const damaged = unit!.packets.map(({ track, rtp }, i) => {
    if (i !== 3) return { track, rtp };
    const copy = Buffer.from(rtp);
    copy[copy.length - 1]! ^= 1;
    return { track, rtp: copy };
  });
  const mismatched = {
    rtcp: feed.rtcp.bind(feed),
    packet: (track: number, rtp: Buffer) =>
      feed.packet(track, damaged[unit!.packets.findIndex((p) => p.rtp === rtp)]?.rtp ?? rtp),
  };
  sendUnit(mismatched as unknown as typeof feed, unit!);
  await feed.drained();
  assert.deepEqual(feed.persisted(), []);
  sendUnit(feed, unit!);
  await feed.close();
  assert.deepEqual(feed.persisted(), [{ epoch: EPOCH, first: 1n, last: 1n }]);
  assert.deepEqual(await archivedDigests(video, "yard"), digestsOf(clip));
  await video.close();
});

test("a unit of an unknown codec is kept raw and listed as quarantined", async (t) => {
  const dir = await makeFolder(t);
  const clip = await makeClip(15);
  const [unit] = unitsOf(clip, EPOCH, FIRST_US);
  let video = await open(dir);
  const feed = video.openFeed("odd", clip.sdp.replaceAll("H264", "VP9"));
  sendUnit(feed, unit!);
  await feed.close();
  assert.deepEqual(feed.persisted(), [{ epoch: EPOCH, first: 1n, last: 1n }]);
  await video.close();
  // Its index is lost: the raw file is adopted again.
  await rm(join(dir, "index"), { recursive: true });
  video = await open(dir);
  assert.equal(video.cameras()[0]!.quarantined, 1);
  assert.equal((await video.fragments("odd", 0, FIRST_US * 2, 10))[0]!.state, "quarantined");
  await video.close();
});

test("without brackets units are cut at key frames", async (t) => {
  const dir = await makeFolder(t);
  const clip = await makeClip(45, { firstRtpTime: 0xffff_fff0 });
  const video = await open(dir);
  const feed = video.openFeed("plain", clip.sdp);
  for (const unit of unitsOf(clip, EPOCH, FIRST_US))
    for (const { track, rtp } of unit.packets) feed.packet(track, rtp);
  await feed.close();
  const fragments = await video.fragments("plain", 0, Number.MAX_SAFE_INTEGER, 10);
  assert.equal(fragments.length, 3);
  assert.equal(fragments[2]!.producerUs - fragments[0]!.producerUs, 2_000_000);
  assert.deepEqual(await archivedDigests(video, "plain"), digestsOf(clip));
  assert.deepEqual(feed.persisted(), []);
  await video.close();
});

test("a lost or damaged index is made again from the files", async (t) => {
  const dir = await makeFolder(t);
  const clip = await makeClip(30);
  let video = await open(dir);
  const feed = video.openFeed("yard", clip.sdp);
  for (const unit of unitsOf(clip, EPOCH, FIRST_US)) sendUnit(feed, unit);
  await feed.close();
  await video.close();
  for (const name of await readdir(join(dir, "index"))) {
    if (name.startsWith("MANIFEST")) await writeFile(join(dir, "index", name), "garbage");
  }
  video = await open(dir);
  assert.equal(video.cameras()[0]!.fragments, 2);
  assert.deepEqual(video.openFeed("yard", clip.sdp).persisted(), [{ epoch: EPOCH, first: 1n, last: 2n }]);
  assert.deepEqual(await archivedDigests(video, "yard"), digestsOf(clip));
  await video.close();
});

test("the oldest footage goes by age and by bytes, with its files", async (t) => {
  const dir = await makeFolder(t);
  const clip = await makeClip(60);
  let nowUs = FIRST_US + 10_000_000;
  const clock = { nowUs: () => nowUs, monotonicMs: () => performance.now() };
  const video = await open(dir, { clock, retentionHours: 1 });
  const feed = video.openFeed("yard", clip.sdp);
  for (const unit of unitsOf(clip, EPOCH, FIRST_US)) sendUnit(feed, unit);
  await feed.close();
  nowUs = FIRST_US + 3_600_000_000 + 2_500_000;
  await video.enforceRetention();
  const left = await video.fragments("yard", 0, FIRST_US * 2, 10);
  assert.deepEqual(
    left.map((fragment) => fragment.sequence),
    [3n, 4n],
  );
  assert.equal(video.cameras()[0]!.oldestUs, FIRST_US + 2_000_000);
  await video.close();

  const small = await open(dir, { clock, maxBytes: left[1]!.bytes });
  await small.enforceRetention();
  const [only] = await small.fragments("yard", 0, FIRST_US * 2, 10);
  assert.equal(only!.sequence, 4n);
  assert.equal(small.cameras()[0]!.storedBytes, only!.bytes);
  // What retention took was persisted all the same: the agent may forget it.
  assert.deepEqual(small.openFeed("yard", clip.sdp).persisted(), [{ epoch: EPOCH, first: 1n, last: 4n }]);
  await small.close();
});

test("names that would leave the folder are refused", async (t) => {
  const video = await open(await makeFolder(t));
  for (const name of ["..", ".", "a/b", "", "x".repeat(65)]) {
    assert.throws(() => video.openFeed(name, "v=0"), /no name for a camera/);
  }
  assert.throws(() => video.openFeed("yard", "v=0\r\ns=x\r\n"));
  assert.equal(await video.readFragment("yard", "../../x"), undefined);
  assert.deepEqual(video.cameras(), []);
  await video.close();
});

test("a wall clock that jumps ahead empties no archive", async (t) => {
  const dir = await makeFolder(t);
  const clip = await makeClip(30);
  let [nowUs, monotonicMs] = [FIRST_US, 0];
  const clock = { nowUs: () => nowUs, monotonicMs: () => monotonicMs };
  const video = await open(dir, { clock, retentionHours: 24 });
  t.after(() => video.close());
  const feed = video.openFeed("yard", clip.sdp);
  for (const unit of unitsOf(clip, EPOCH, FIRST_US)) sendUnit(feed, unit);
  await feed.close();
  monotonicMs += 5_000;
  nowUs += 10 * 365 * 86_400_000_000;
  await video.enforceRetention();
  assert.equal(video.cameras()[0]!.fragments, 2);
  // Set right again; then a day and more passes.
  nowUs = FIRST_US + 10_000_000;
  monotonicMs += 5_000;
  await video.enforceRetention();
  assert.equal(video.cameras()[0]!.fragments, 2);
  nowUs += 25 * 3_600_000_000;
  monotonicMs += 25 * 3_600_000;
  await video.enforceRetention();
  assert.equal(video.cameras()[0]!.fragments, 0);
});

test("a file that cannot be removed counts no longer, and keeps no other footage", async (t) => {
  const dir = await makeFolder(t);
  const clip = await makeClip(60);
  let nowUs = FIRST_US;
  const clock = { nowUs: () => nowUs, monotonicMs: () => nowUs / 1_000 };
  const video = await open(dir, { clock, retentionHours: 1 });
  t.after(() => video.close());
  for (const camera of ["porch", "yard"]) {
    const feed = video.openFeed(camera, clip.sdp);
    for (const unit of unitsOf(clip, EPOCH, FIRST_US)) sendUnit(feed, unit);
    await feed.close();
  }
  const [hour] = await readdir(join(dir, "cameras/porch"));
  const [first] = await readdir(join(dir, "cameras/porch", hour!));
  // A folder in its place: what removes files does not remove it.
  await rm(join(dir, "cameras/porch", hour!, first!));
  await mkdir(join(dir, "cameras/porch", hour!, first!));
  nowUs += 2 * 3_600_000_000;
  await video.enforceRetention();
  for (const { camera, fragments, storedBytes, oldestUs } of video.cameras()) {
    assert.deepEqual(
      { camera, fragments, storedBytes, oldestUs },
      { camera, fragments: 0, storedBytes: 0, oldestUs: undefined },
    );
  }
  assert.deepEqual(await readdir(join(dir, "cameras/porch", hour!)), [first]);
  assert.deepEqual(await readdir(join(dir, "cameras/yard")), []);
});

test("of a damaged file nothing is served; it is set aside", async (t) => {
  const dir = await makeFolder(t);
  const clip = await makeClip(30);
  const video = await open(dir);
  t.after(() => video.close());
  const feed = video.openFeed("yard", clip.sdp);
  for (const unit of unitsOf(clip, EPOCH, FIRST_US)) sendUnit(feed, unit);
  await feed.close();
  const [damaged, sound] = await video.fragments("yard", 0, FIRST_US * 2, 10);
  const [hour] = await readdir(join(dir, "cameras/yard"));
  const path = join(dir, "cameras/yard", hour!, `${damaged!.id}.mp4`);
  const bytes = await readFile(path);
  bytes[bytes.length >> 1]! ^= 1;
  await writeFile(path, bytes);
  const answers = await Promise.all([1, 2, 3].map(() => video.readFragment("yard", damaged!.id)));
  assert.deepEqual(answers, [undefined, undefined, undefined]);
  assert.deepEqual(await readFile(path.replace(/mp4$/, "damaged")), bytes);
  assert.ok((await video.readFragment("yard", sound!.id)) !== undefined);
  const [status] = video.cameras();
  assert.deepEqual(
    [status!.fragments, status!.damaged, status!.storedBytes],
    [1, 1, sound!.bytes + bytes.length],
  );
});

test("an epoch in use is remembered, also when the clock was set back behind 256 others", async (t) => {
  const dir = await makeFolder(t);
  const clip = await makeClip(15);
  const [unit] = unitsOf(clip, EPOCH, FIRST_US);
  const index = new FragmentIndex(join(dir, "index"));
  await mkdir(dir, { recursive: true });
  await index.open();
  for (let n = 0; n < 256; n++) {
    const name = n.toString(16).padStart(16, "0");
    const row = { id: `1700000000000000-${name}-1`, bytes: 1, durationUs: 1, state: "whole" } as const;
    await index.put("yard", row, { name, stored: { ranges: "1-1", usedUs: FIRST_US } });
  }
  await index.close();
  await mkdir(join(dir, "cameras/yard"), { recursive: true });
  const video = await open(dir, { clock: { nowUs: () => 1_000_000, monotonicMs: () => performance.now() } });
  t.after(() => video.close());
  const feed = video.openFeed("yard", clip.sdp);
  sendUnit(feed, unit!);
  await feed.drained();
  assert.ok(feed.persisted().some(({ epoch }) => epoch === EPOCH));
});
