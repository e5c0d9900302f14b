import assert from "node:assert/strict";
import test from "node:test";
import { clockOf } from "../../../protocol/footage.ts";
import { RtspStatusError } from "../../../protocol/rtsp/client-errors.ts";
import { RtspClient } from "../../../protocol/rtsp/client-session.ts";
import { H264Depacketiser, isVcl, nalType } from "../../../protocol/rtsp/h264.ts";
import type { AccessUnit } from "../../../protocol/rtsp/nal-depacketiser.ts";
import { parseRtcp } from "../../../protocol/rtsp/rtcp.ts";
import { parseRtp } from "../../../protocol/rtsp/rtp.ts";
import { h264ParameterSets } from "../../../protocol/rtsp/sdp.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { startGstCamera } from "../../support/gst-camera.ts";
import { until } from "../../support/relay-server.ts";

test("a camera of another make is read with Digest: sliced pictures are put together, its clock is kept", async () => {
  const credentials = { username: "admin", password: 'p:ä"ss' };
  const camera = await startGstCamera(credentials);
  const depacketiser = new H264Depacketiser();
  const units: AccessUnit[] = [];
  /** How far off the camera's clock is by each of its reports. */
  const offUs: number[] = [];
  const client = new RtspClient({
    url: camera.url,
    credentials,
    onRtp(track, rtp) {
      assert.equal(track, 0);
      const unit = depacketiser.push(parseRtp(rtp)!);
      if (unit !== undefined) units.push(unit);
    },
    onRtcp(track, bytes) {
      for (const report of parseRtcp(bytes)) {
        const clock = report.type === "sr" ? clockOf(track, report) : undefined;
        if (clock !== undefined) offUs.push(clock.utcUs - systemClock.nowUs());
      }
    },
  });
  try {
    await client.connect();
    assert.ok((await client.options()).includes("DESCRIBE"));
    const { description } = await client.describe();
    assert.equal(description.media[0]!.encoding, "H264");
    assert.equal(h264ParameterSets(description.media[0]!).length, 2);
    await client.setup("play");
    await client.play();
    await client.keepAlive();
    await until(() => units.length >= 40 && offUs.length > 0, "40 pictures and a sender report");
    assert.ok(units.every(({ damaged }) => !damaged));
    assert.ok(units.filter(({ keyFrame }) => keyFrame).length >= 2);
    const slices = units[1]!.nals.filter(isVcl);
    assert.ok(slices.length >= 1);
    const key = units.find(({ keyFrame }) => keyFrame)!;
    assert.deepEqual(new Set(key.nals.map(nalType)).has(7), true);
    assert.ok(Math.abs(offUs[0]!) < 15_000_000);
    await client.close();

    const wrong = new RtspClient({ url: camera.url.replace("//", "//admin:falsch@") });
    await wrong.connect();
    await assert.rejects(wrong.describe(), (error: Error) => {
      assert.ok(error instanceof RtspStatusError && error.status === 401);
      assert.doesNotMatch(error.message, /falsch/);
      return true;
    });
    await wrong.close();
  } finally {
    await client.close();
    await camera.close();
  }
});
