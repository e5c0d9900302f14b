/** Whose a camera's name is: the first device's that uses it, but one device may not take them all. */
import assert from "node:assert/strict";
import test from "node:test";
import { TooManyOfDeviceError } from "../../../gateway/video/video.ts";
import type { Log } from "../../../runtime/log.ts";
import { silentLog } from "../../../runtime/log.ts";
import { makeClip } from "../../support/h264-rtp.ts";
import { DEVICES, openRtspHouse } from "../ingest/rtsp-house.ts";

const MAX_OF_DEVICE = 64;

test("a device that claims name after name is refused the 65th, logged and counted; others find names", async (t) => {
  const reasons: string[] = [];
  const log: Log = {
    ...silentLog,
    child: () => log,
    warn: (fields) => void reasons.push(String((fields as { reason?: string }).reason)),
  };
  const house = await openRtspHouse(t, DEVICES, { log });
  const { sdp } = await makeClip(1);
  for (let n = 0; n < MAX_OF_DEVICE; n++) {
    const client = await house.client(`pi-1/camera-${n}`, "pi-1");
    await client.announce(sdp);
    await client.close();
  }
  const refused = await house.client("pi-1/one-more", "pi-1");
  await assert.rejects(refused.announce(sdp), /403 Too Many Cameras Of This Device/);
  assert.match(reasons.join("\n"), /pi-1 has 64 cameras already, so one-more is not taken from it/);
  const counted = await house.metrics.render();
  assert.match(counted, /headwater_rtsp_publications_total\{result="too_many_of_device"\} 1/);
  assert.match(counted, /headwater_rtsp_publications_total\{result="accepted"\} 64/);
  assert.equal(house.video.cameras().length, MAX_OF_DEVICE);
  // Its own it may publish again, and another device a name that nobody has.
  await (await house.client("pi-1/camera-7", "pi-1")).announce(sdp);
  await (await house.client("pi-2/one-more", "pi-2")).announce(sdp);
});

test("the names that a device has count after a restart, too", async (t) => {
  const before = await openRtspHouse(t, DEVICES);
  const { sdp } = await makeClip(1);
  for (let n = 0; n < MAX_OF_DEVICE; n++) await before.video.openFeed(`camera-${n}`, sdp, "pi-1").close();
  const { video } = await before.again();
  assert.throws(() => video.openFeed("one-more", sdp, "pi-1"), TooManyOfDeviceError);
  await video.openFeed("camera-0", sdp, "pi-1").close();
  await video.openFeed("one-more", sdp, "pi-2").close();
});
