/** A camera whose device is gone, or has another name now, is another's on the operator's word. */
import assert from "node:assert/strict";
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { CameraInUseError, CameraTakenError } from "../../../gateway/video/video.ts";
import { RtspClient } from "../../../protocol/rtsp/client-session.ts";
import { makeClip, sendUnit, unitsOf } from "../../support/h264-rtp.ts";
import { eventually } from "../../support/program.ts";
import { JoiningRig } from "../identity/joining-rig.ts";
import { DEVICES, openRtspHouse } from "../ingest/rtsp-house.ts";

test("a camera that is given has another device from then on, also after a restart, and its archive stays", async (t) => {
  const house = await openRtspHouse(t, DEVICES);
  const clip = await makeClip(30);
  const [first, second] = unitsOf(clip, 5n, 1_800_000_000_000_000);
  const { video } = house;
  const feed = video.openFeed("yard", clip.sdp, "pi-1");
  sendUnit(feed, first!);
  await assert.rejects(video.giveCamera("yard", "pi-2"), CameraInUseError);
  await feed.close();
  await video.giveCamera("yard", "pi-2");
  assert.equal(await readFile(join(house.dir, "video/cameras/yard/device"), "utf8"), "pi-2\n");
  assert.throws(() => video.openFeed("yard", clip.sdp, "pi-1"), CameraTakenError);
  const { video: again } = await house.again();
  assert.throws(() => again.openFeed("yard", clip.sdp, "pi-1"), CameraTakenError);
  const other = again.openFeed("yard", clip.sdp, "pi-2");
  sendUnit(other, second!);
  await other.close();
  assert.equal((await again.fragments("yard", 0, Number.MAX_SAFE_INTEGER, 10)).length, 2);
});

test("what the disk refuses to write down is told, and written at the next publisher's start", async (t) => {
  const house = await openRtspHouse(t, DEVICES);
  const { sdp } = await makeClip(1);
  await house.video.openFeed("yard", sdp, "pi-1").close();
  const file = join(house.dir, "video/cameras/yard/device");
  await eventually("the first is written down", 60_000, async () =>
    (await readFile(file, "utf8").catch(() => "")) === "pi-1\n" ? true : undefined,
  );
  // No file can take this name.
  await rm(file);
  await mkdir(join(file, "in the way"), { recursive: true });
  await assert.rejects(house.video.giveCamera("yard", "pi-2"));
  assert.throws(() => house.video.openFeed("yard", sdp, "pi-1"), CameraTakenError);
  await rm(file, { recursive: true });
  const feed = house.video.openFeed("yard", sdp, "pi-2");
  await feed.drained();
  assert.equal(await readFile(file, "utf8"), "pi-2\n");
});

test("the operator gives a camera by the gateway's command; what cannot be is told", async (t) => {
  const yaml = `devices: [${DEVICES.map((one) => JSON.stringify(one)).join(", ")}]\n`;
  const rig = await JoiningRig.start(t, "", yaml);
  const unknown = await rig.devices("give", "yard", "pi-2");
  assert.equal(unknown.code, 1);
  assert.match(unknown.errors, /VIDEO_UNKNOWN_CAMERA|no camera is named yard/);
  for (const args of [["give"], ["give", "yard"], ["give", "yard", "pi-2", "more"], ["toString"]])
    assert.equal((await rig.devices(...args)).code, 2, args.join(" "));
  const { sdp } = await makeClip(1);
  const publish = async (device: (typeof DEVICES)[number]): Promise<RtspClient> => {
    const url = `${rig.gateway.addresses.rtsp}/yard`;
    const client = new RtspClient({ url, credentials: { username: device.id, password: device.password } });
    t.after(() => client.close());
    await client.connect();
    await client.announce(sdp);
    return client;
  };
  const [one, two] = DEVICES as [(typeof DEVICES)[number], (typeof DEVICES)[number]];
  const publishing = await publish(one);
  const inUse = await rig.devices("give", "yard", "pi-2");
  assert.deepEqual([inUse.code, /yard is published now by pi-1/.test(inUse.errors)], [1, true], inUse.errors);
  await assert.rejects(publish(two), /403/);
  await publishing.close();
  await eventually("the first has left", 60_000, async () =>
    (await rig.devices("give", "yard", "pi-2")).code === 0 ? true : undefined,
  );
  await publish(two);
  await assert.rejects(publish(one), /403/);
});
