import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import test, { type TestContext } from "node:test";
import { openVideo, type VideoArchive } from "../../../gateway/video/video-archive.ts";
import { pause } from "../../../runtime/backoff.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { CRASH_EPOCH, CRASH_FIRST_US, CRASH_FRAMES } from "../../support/crashing-archive.ts";
import { makeClip, sendUnit, unitsOf } from "../../support/h264-rtp.ts";
import { archivedDigests } from "../../support/picture-digests.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { nodeFlags, scriptPath } from "../../support/script.ts";
import { SmallDisk } from "../../support/small-disk.ts";

const SCRIPT = scriptPath("../../support/crashing-archive.ts", import.meta.url);
const DISK_BYTES = 64 * 1_048_576;

async function makeFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "headwater-crash-"));
  t.after(() => removeFolder(folder));
  return folder;
}

/** Kills the child once `shouldKill` says so, which gets its process id. @returns all complete lines it printed. */
async function runAndKill(
  t: TestContext,
  dir: string,
  mode: string,
  shouldKill: (line: string, pid: number | undefined) => Promise<boolean> | boolean,
): Promise<string[]> {
  const args = [...nodeFlags, SCRIPT, dir, mode];
  const child: ChildProcess = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  const exit = once(child, "exit");
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stdout! })) {
    lines.push(line);
    if (!child.killed && (await shouldKill(line, child.pid))) child.kill("SIGKILL");
  }
  await exit;
  return lines;
}

function open(dir: string): Promise<VideoArchive> {
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  return openVideo({ ...parts, dir, retentionHours: 1_000_000, maxBytes: 1e12 });
}

test("a file whose index row was never written is adopted after SIGKILL, and stored once", async (t) => {
  const dir = await makeFolder(t);
  await runAndKill(t, dir, "hang-before-index", (line) => line.startsWith("file "));
  const video = await open(dir);
  const clip = await makeClip(CRASH_FRAMES);
  const feed = video.openFeed("yard", clip.sdp);
  assert.deepEqual(feed.persisted(), [{ epoch: CRASH_EPOCH, first: 1n, last: 1n }]);
  const expected = clip.pictures.map((picture) => picture.vclSha256);
  assert.deepEqual(await archivedDigests(video, "yard"), expected.slice(0, 15));
  for (const unit of unitsOf(clip, CRASH_EPOCH, CRASH_FIRST_US)) sendUnit(feed, unit);
  await feed.close();
  assert.equal(video.cameras()[0]!.fragments, CRASH_FRAMES / 15);
  assert.deepEqual(await archivedDigests(video, "yard"), expected);
  await video.close();
});

for (const end of ["SIGKILL", "a power cut"] as const) {
  test(`what was listed as persisted is there after ${end} at any moment, once`, async (t) => {
    const disk = end === "SIGKILL" ? undefined : await SmallDisk.make(DISK_BYTES);
    if (typeof disk === "string") {
      t.skip(disk);
      return;
    }
    t.after(() => disk?.remove());
    const dir = disk === undefined ? await makeFolder(t) : join(disk.path, "video");
    let listed = 0n;
    for (let round = 0; round < 5; round++) {
      const lines = await runAndKill(t, dir, "run", async (line, pid) => {
        // Every other time behind something that was listed, however slow the disk is.
        if (round === 4 || !line.startsWith(round % 2 === 0 ? "persisted" : "ready")) return false;
        await pause(Math.random() * 60);
        await disk?.cutPower(pid);
        return true;
      });
      for (const line of lines) {
        const last = /^persisted (\d+)$/.exec(line)?.[1];
        if (last !== undefined && BigInt(last) > listed) listed = BigInt(last);
      }
      await disk?.unmount();
      await disk?.mount();
      const video = await open(dir);
      const clip = await makeClip(CRASH_FRAMES);
      const ranges = video.openFeed("yard", clip.sdp).persisted();
      const last = ranges[0]?.last ?? 0n;
      assert.ok(last >= listed, `listed ${listed}, now ${last}`);
      const expected = clip.pictures.map((picture) => picture.vclSha256);
      assert.deepEqual(await archivedDigests(video, "yard"), expected.slice(0, Number(last) * 15));
      await video.close();
    }
    assert.equal(listed, BigInt(CRASH_FRAMES / 15));
  });
}

test("half-written, damaged and vanished files do no harm", async (t) => {
  const dir = await makeFolder(t);
  let video = await open(dir);
  const clip = await makeClip(45);
  const feed = video.openFeed("yard", clip.sdp);
  for (const unit of unitsOf(clip, CRASH_EPOCH, CRASH_FIRST_US)) sendUnit(feed, unit);
  await feed.close();
  await video.close();
  const [hour] = await readdir(join(dir, "cameras", "yard"));
  const folder = join(dir, "cameras", "yard", hour!);
  const names = (await readdir(folder)).sort();
  await rm(join(folder, names[0]!));
  await writeFile(join(folder, `${names[1]}.tmp`), "half");
  const stranger = names[1]!.replace(/-1?\d\.mp4$/, "-77.mp4");
  await writeFile(join(folder, stranger), Buffer.alloc(500, 7));
  video = await open(dir);
  assert.equal(video.cameras()[0]!.fragments, 2);
  assert.deepEqual(
    (await readdir(folder)).sort(),
    [names[1]!, names[2]!, stranger.replace(/mp4$/, "damaged")].sort(),
  );
  // The vanished one was persisted: the agent has forgotten it, and asking again would be in vain.
  assert.deepEqual(video.openFeed("yard", clip.sdp).persisted(), [
    { epoch: CRASH_EPOCH, first: 1n, last: 3n },
  ]);
  await video.close();
});
