/** Retention and the other cameras: nobody waits for it, and nobody's clock makes others' footage go. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { FragmentIndex } from "../../../gateway/video/archive/fragment-index.ts";
import { openVideo } from "../../../gateway/video/video-archive.ts";
import { pause } from "../../../runtime/backoff.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip, sendUnit, unitsOf } from "../../support/h264-rtp.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const FIRST_US = 1_800_000_000_000_000;
const OLD = 1_500;
const PATIENCE_MS = 500;

test("a unit that comes while thousands of old ones are removed is stored among them", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-turns-"));
  // First: an archive looks after its retention by itself every few seconds.
  const clip = await makeClip(15, { size: "64x64" });
  let removals = 0;
  let stored = (): void => undefined;
  const isStored = new Promise<void>((resolve) => {
    stored = resolve;
  });
  class CountingIndex extends FragmentIndex {
    override async remove(camera: string, ids: readonly string[]): Promise<void> {
      await super.remove(camera, ids);
      removals++;
      // The unit's own syncs may be slower than all removals; so each gives it time, until it has come between two.
      const enough = new AbortController();
      await Promise.race([isStored, pause(PATIENCE_MS, enough.signal)]);
      enough.abort();
    }
  }
  const index = new CountingIndex(join(dir, "index"));
  await mkdir(dir, { recursive: true });
  await index.open();
  const folder = join(dir, "cameras/yard", new Date(FIRST_US / 1_000).toISOString().slice(0, 13));
  await mkdir(folder, { recursive: true });
  const put: Promise<unknown>[] = [];
  for (let n = 1; n <= OLD; n++) {
    const id = `${FIRST_US + n * 1_000}-00000000000000aa-${n}`;
    await writeFile(join(folder, `${id}.mp4`), "");
    // Not one by one: the rows of one turn are one batch.
    put.push(index.put("yard", { id, bytes: 1_000, durationUs: 1_000, state: "whole" }));
  }
  await Promise.all(put);
  const nowUs = FIRST_US + 48 * 3_600_000_000;
  const clock = { nowUs: () => nowUs, monotonicMs: () => nowUs / 1_000 };
  const parts = { clock, log: silentLog, metrics: new Metrics(), index };
  const video = await openVideo({ ...parts, dir, retentionHours: 24, maxBytes: 1e12 });
  t.after(async () => {
    await video.close();
    await removeFolder(dir);
  });
  assert.equal(video.cameras()[0]!.fragments, OLD);
  const [unit] = unitsOf(clip, 1n, nowUs);
  const feed = video.openFeed("yard", clip.sdp);
  const removed = video.enforceRetention();
  sendUnit(feed, unit!);
  await feed.drained();
  const removalsBefore = removals;
  stored();
  await removed;
  assert.ok(removals > removalsBefore, "all of them went before it was stored");
  assert.deepEqual(feed.persisted(), [{ epoch: 1n, first: 1n, last: 1n }]);
  assert.equal(video.cameras()[0]!.fragments, 1);
});

test("footage that is dated years ahead does not crowd out what others send now", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-ahead-"));
  const clock = { nowUs: () => FIRST_US, monotonicMs: () => performance.now() };
  const parts = { clock, log: silentLog, metrics: new Metrics(), dir, retentionHours: 24 };
  const clip = await makeClip(60);
  const first = await openVideo({ ...parts, maxBytes: 1e12 });
  const store = async (video: typeof first, camera: string, producerUs: number): Promise<void> => {
    const feed = video.openFeed(camera, clip.sdp);
    for (const unit of unitsOf(clip, 7n, producerUs)) sendUnit(feed, unit);
    await feed.close();
  };
  await store(first, "ahead", FIRST_US + 10 * 366 * 24 * 3_600_000_000);
  await store(first, "yard", FIRST_US);
  const maxBytes = first.cameras()[1]!.storedBytes + first.cameras()[0]!.storedBytes / 2;
  await first.close();
  const video = await openVideo({ ...parts, maxBytes });
  t.after(async () => {
    await video.close();
    await removeFolder(dir);
  });
  await video.enforceRetention();
  const [ahead, yard] = video.cameras();
  assert.equal(yard!.fragments, 4);
  assert.ok(ahead!.fragments < 4 && ahead!.fragments > 0, `${ahead!.fragments} fragments`);
  assert.ok(ahead!.storedBytes + yard!.storedBytes <= maxBytes);
});
