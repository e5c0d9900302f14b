/** Who else is at the RTSP door: strangers, and devices that are after one another's cameras. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import test, { type TestContext } from "node:test";
import { encodeUnitBegin, encodeUnitEnd, unitDigest } from "../../../protocol/footage.ts";
import type { RtspClient } from "../../../protocol/rtsp/client-session.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { type Log, silentLog } from "../../../runtime/log.ts";
import { makeClip, type TestUnit, unitsOf } from "../../support/h264-rtp.ts";
import { eventually } from "../../support/program.ts";
import { DEVICES, openRtspHouse, type RtspHouse } from "./rtsp-house.ts";

async function publish(house: RtspHouse, path: string, device: string | undefined, sdp: string) {
  const client = await house.client(path, device);
  await client.announce(sdp);
  await client.setup("record");
  await client.record();
  return client;
}

function send(client: RtspClient, unit: TestUnit): void {
  client.sendRtcp(0, encodeUnitBegin(1, unit));
  for (const { track, rtp } of unit.packets) client.sendRtp(track, rtp);
  const sha256 = unitDigest(unit.packets);
  client.sendRtcp(0, encodeUnitEnd(1, { packetCount: unit.packets.length, sha256 }));
}

async function persisted(client: RtspClient, list: string): Promise<void> {
  await eventually(`${list} is persisted`, 60_000, async () =>
    (await client.getParameter("persisted")) === list ? true : undefined,
  );
}

test("with passwords a device reads its own cameras and no other's, under whatever path", async (t) => {
  const house = await openRtspHouse(t, DEVICES);
  const clip = await makeClip(15);
  await publish(house, "yard", "pi-1", clip.sdp);
  await publish(house, "pi-1/porch", "pi-1", clip.sdp);
  const read = async (path: string, device: string): Promise<void> => {
    const client = await house.client(path, device);
    await client.describe();
    await client.setup("play");
    await client.play();
  };
  for (const path of ["yard", "pi-1/yard", "porch", "pi-1/porch"]) await read(path, "pi-1");
  for (const path of ["yard", "porch"]) await assert.rejects(read(path, "pi-2"), /404/);
  for (const path of ["pi-1/yard", "pi-1/porch"]) await assert.rejects(read(path, "pi-2"), /401/);
  for (const path of ["pi-2/yard", "pi-2/porch"]) await assert.rejects(read(path, "pi-2"), /404/);
});

test("a camera is its device's: another that takes its epoch makes nothing of it look persisted", async (t) => {
  let house = await openRtspHouse(t, DEVICES);
  const clip = await makeClip(30);
  const [first, second] = unitsOf(clip, 0xabcn, systemClock.nowUs());
  const owner = await publish(house, "pi-1/yard", "pi-1", clip.sdp);
  send(owner, first!);
  await persisted(owner, "0000000000000abc:1-1");
  await owner.close();
  // The list of what is persisted told the other which epoch it is, before.
  for (const path of ["pi-2/yard", "yard"]) {
    await assert.rejects(publish(house, path, "pi-2", clip.sdp), /403 Another Device/);
  }
  house = await house.again();
  for (const path of ["pi-2/yard", "yard"]) {
    await assert.rejects(publish(house, path, "pi-2", clip.sdp), /403 Another Device/);
  }
  const back = await publish(house, "yard", "pi-1", clip.sdp);
  send(back, second!);
  await persisted(back, "0000000000000abc:1-2");
});

test("where the door is open, a camera is still the one device's that its path names", async (t) => {
  const house = await openRtspHouse(t);
  const clip = await makeClip(15);
  const first = await publish(house, "pi-1/yard", undefined, clip.sdp);
  for (const path of ["pi-2/yard", "yard"]) {
    await assert.rejects(publish(house, path, undefined, clip.sdp), /403 Another Device/);
  }
  await first.close();
  for (const path of ["pi-2/yard", "yard"]) {
    await assert.rejects(publish(house, path, undefined, clip.sdp), /403 Another Device/);
  }
  await publish(house, "pi-1/yard", undefined, clip.sdp);
  // Of a camera that nobody named a device for, the first that is named becomes the one.
  await (await publish(house, "porch", undefined, clip.sdp)).close();
  await publish(house, "pi-2/porch", undefined, clip.sdp);
  await assert.rejects(publish(house, "porch", undefined, clip.sdp), /403 Another Device/);
});

async function crowd(t: TestContext, port: number, count: number): Promise<Socket[]> {
  const sockets: Socket[] = [];
  for (let n = 0; n < count; n++) {
    const socket = connect(port, "127.0.0.1");
    socket.on("error", () => undefined);
    sockets.push(socket);
    t.after(() => socket.destroy());
    await once(socket, "connect");
  }
  return sockets;
}

for (const devices of [DEVICES, []]) {
  const door = devices.length === 0 ? "an open door" : "a door with passwords";
  test(`strangers at ${door} keep nobody out, and end nobody who was let in`, async (t) => {
    const house = await openRtspHouse(t, devices);
    const clip = await makeClip(30);
    const device = devices[0]?.id;
    const [first, second] = unitsOf(clip, 1n, systemClock.nowUs());
    const publisher = await publish(house, "yard", device, clip.sdp);
    send(publisher, first!);
    const strangers = await crowd(t, house.ingest.port, 1_200);
    const reader = await house.client("yard", device);
    await reader.describe();
    await reader.setup("play");
    await reader.play();
    send(publisher, second!);
    await persisted(publisher, "0000000000000001:1-2");
    await eventually(
      "the oldest stranger has left",
      60_000,
      async () => strangers[0]!.destroyed || undefined,
    );
    assert.equal(strangers.at(-1)!.destroyed, false);
    assert.match(
      await house.metrics.render(),
      /headwater_rtsp_connections_ended_total\{whose="oldest stranger"\} [1-9]/,
    );
  });
}

test("strangers who talk nonsense do not fill the log", async (t) => {
  const lines: string[] = [];
  const count = (_fields: object, message?: string): void => void lines.push(message ?? "");
  const log: Log = { ...silentLog, child: () => log, info: count, warn: count, error: count };
  const house = await openRtspHouse(t, DEVICES, { log });
  for (let n = 0; n < 100; n++) {
    const socket = connect(house.ingest.port, "127.0.0.1");
    socket.on("error", () => undefined);
    socket.resume();
    socket.write("GET / HTTP/1.1\r\n\r\n");
    // Also after an error, for which `once` of node:events would reject.
    await new Promise((resolve) => socket.once("close", resolve));
  }
  assert.ok(lines.length > 0 && lines.length <= 12, `${lines.length} lines`);
});
