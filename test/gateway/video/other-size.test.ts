/** A camera that changes its picture size in the middle of a session, whose description stays as it was. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { promisify } from "node:util";
import { openVideo } from "../../../gateway/video/video-archive.ts";
import type { FootagePacket } from "../../../protocol/footage.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip, Packer, sendUnit, type TestUnit } from "../../support/h264-rtp.ts";
import { pictureDigests } from "../../support/picture-digests.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const run = promisify(execFile);
const FIRST_US = 1_800_000_000_000_000;

for (const bracketed of [true, false]) {
  test(`every file has its own size, ${bracketed ? "from an agent" : "from a plain camera"}`, async (t) => {
    const dir = await mkdtemp(join(tmpdir(), "headwater-size-"));
    const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
    const video = await openVideo({ ...parts, dir: join(dir, "video"), retentionHours: 1e6, maxBytes: 1e12 });
    t.after(async () => {
      await video.close();
      await removeFolder(dir);
    });
    const small = await makeClip(30);
    const large = await makeClip(30, { size: "320x240", firstRtpTime: 30 * 6_000 });
    const packer = new Packer();
    const groups: FootagePacket[][] = [];
    for (const picture of [...small.pictures, ...large.pictures]) {
      if (picture.keyFrame) groups.push([]);
      groups.at(-1)!.push(...packer.packets(picture));
    }
    const inits: string[] = [];
    const feed = video.openFeed("yard", small.sdp);
    video.watch("yard", { init: (mimeType) => inits.push(mimeType), media: () => {}, backlogBytes: () => 0 });
    for (const [i, packets] of groups.entries()) {
      const unit: TestUnit = {
        epoch: 1n,
        sequence: BigInt(i + 1),
        producerUs: FIRST_US + i * 1_000_000,
        startsWithKeyFrame: true,
        packets,
      };
      if (bracketed) sendUnit(feed, unit);
      else for (const { track, rtp } of packets) feed.packet(track, rtp);
      while (inits.length === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await feed.close();

    const fragments = await video.fragments("yard", 0, Number.MAX_SAFE_INTEGER, 10);
    assert.equal(fragments.length, 4);
    const digests: string[] = [];
    const sizes: string[] = [];
    for (const { id, state } of fragments) {
      assert.equal(state, "whole");
      const bytes = (await video.readFragment("yard", id))!;
      digests.push(...pictureDigests(bytes).map(({ vclSha256 }) => vclSha256));
      await writeFile(join(dir, "one.mp4"), bytes);
      const { stdout, stderr } = await run("ffprobe", [
        ..."-v warning -count_frames -show_entries stream=width,nb_read_frames -of csv=p=0".split(" "),
        join(dir, "one.mp4"),
      ]);
      assert.equal(stderr, "");
      sizes.push(stdout.trim());
    }
    assert.deepEqual(sizes, ["160,15", "160,15", "320,15", "320,15"]);
    assert.deepEqual(
      digests,
      [...small.pictures, ...large.pictures].map(({ vclSha256 }) => vclSha256),
    );
    assert.equal(`${video.cameras()[0]!.width}x${video.cameras()[0]!.height}`, "320x240");
    assert.equal(inits.length, 2);
  });
}
