/** What GET_PARAMETER `persisted` says when the archive knows more ranges than fit an answer. */
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { FragmentIndex } from "../../../gateway/video/archive/fragment-index.ts";
import { SequenceRanges } from "../../../gateway/video/archive/sequence-ranges.ts";
import { openVideo } from "../../../gateway/video/video-archive.ts";
import { formatPersisted, parsePersisted } from "../../../protocol/footage.ts";
import { epochName } from "../../../protocol/frame.ts";
import { MAX_BODY_BYTES } from "../../../protocol/rtsp/messages.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip, sendUnit, unitsOf } from "../../support/h264-rtp.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const EPOCH = 0xfeed_0000_0000_0001n;

test("a unit that comes again is listed, however many ranges are newer than it", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-persisted-"));
  t.after(() => removeFolder(dir));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const open = () => openVideo({ ...parts, dir, retentionHours: 1e6, maxBytes: 1e12 });
  const clip = await makeClip(15);
  const [unit] = unitsOf(clip, EPOCH, 1_800_000_000_000_000);
  const first = await open();
  const before = first.openFeed("yard", clip.sdp);
  sendUnit(before, unit!);
  await before.close();
  await first.close();

  // As a slow link and a full buffer leave it: of three units two were dropped, for hours.
  const ranges = Array.from({ length: 3_000 }, (_, i) => ({
    first: BigInt(i * 3 + 1),
    last: BigInt(i * 3 + 1),
  }));
  const index = new FragmentIndex(join(dir, "index"));
  await index.open();
  const id = "1700000000000000-00000000000000aa-1";
  await index.put(
    "yard",
    { id, bytes: 1, durationUs: 1, state: "whole" },
    {
      name: epochName(EPOCH),
      stored: { ranges: new SequenceRanges(ranges).toString(), usedUs: 1 },
    },
  );
  await index.close();

  const video = await open();
  const feed = video.openFeed("yard", clip.sdp);
  for (const again of [unit!, { ...unit!, sequence: 2n }]) sendUnit(feed, again);
  await feed.drained();
  const text = formatPersisted(feed.persisted());
  const listed = parsePersisted(text);
  assert.ok(Buffer.byteLength(text) < MAX_BODY_BYTES / 2, `${text.length} characters`);
  for (const sequence of [1n, 2n, 8_998n]) {
    assert.ok(
      listed.some((range) => range.epoch === EPOCH && range.first <= sequence && sequence <= range.last),
      `${sequence} is not listed, and would come for ever`,
    );
  }
  await video.close();
});

test("of too many ranges the oldest is forgotten, never the one that was just added", () => {
  let ranges = new SequenceRanges(
    Array.from({ length: 4_096 }, (_, i) => ({ first: BigInt(i * 2 + 100), last: BigInt(i * 2 + 100) })),
  );
  ranges = ranges.with(1n);
  assert.ok(ranges.has(1n) && !ranges.has(100n) && ranges.has(102n));
  assert.equal(ranges.ranges.length, 4_096);
});
