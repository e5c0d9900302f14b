import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import type { FootageBuffer } from "../../../agent/buffer/footage-buffer.ts";
import { openLevelFootageBuffer } from "../../../agent/buffer/level-footage-buffer.ts";
import { RtspUplink } from "../../../agent/uplink/rtsp-uplink.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { createLog, type Log, silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { madeUnit, SDP } from "../buffer/made-unit.ts";
import { StandInGateway } from "./stand-in-gateway.ts";

async function openBuffer(t: TestContext): Promise<FootageBuffer> {
  const dir = await mkdtemp(join(tmpdir(), "hw-uplink-"));
  const buffer = await openLevelFootageBuffer({
    dir,
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    maxBytes: 1 << 28,
  });
  t.after(async () => {
    await buffer.close();
    await rm(dir, { recursive: true, force: true });
  });
  return buffer;
}

async function startGateway(t: TestContext, port = 0, password?: string): Promise<StandInGateway> {
  const gateway = new StandInGateway(port, password);
  await gateway.server.start();
  t.after(() => gateway.server.close());
  return gateway;
}

async function startUplink(
  t: TestContext,
  url: string,
  buffer: FootageBuffer,
  more: { password?: string; log?: Log; persistTimeoutMs?: number } = {},
): Promise<RtspUplink> {
  const { password, log = silentLog, persistTimeoutMs } = more;
  const uplink = new RtspUplink({
    config: { url, device: "pi", password },
    buffer,
    clock: systemClock,
    log,
    metrics: new Metrics(),
    random: () => 0.2,
    ...(persistTimeoutMs !== undefined && { persistTimeoutMs }),
  });
  await uplink.start();
  t.after(() => uplink.close());
  return uplink;
}

/** Resolves when the buffer holds nothing more: the gateway has stored it and was believed. */
async function drained(buffer: FootageBuffer): Promise<void> {
  while (buffer.usage().waitingUnits > 0) await new Promise((resolve) => setTimeout(resolve, 10));
}

function numbersOf(gateway: StandInGateway): number[] {
  return [...gateway.persisted.values()].map(
    ({ begin }) => (begin.producerUs - 1_767_225_600_000_000) / 1_000_000,
  );
}

test("units arrive whole, in order, with their times, and are deleted once persisted", async (t) => {
  const buffer = await openBuffer(t);
  const gateway = await startGateway(t);
  const units = [1, 2, 3].map((number) => madeUnit("yard", number, 30_000));
  for (const unit of units) await buffer.append(unit);
  const uplink = await startUplink(t, gateway.url, buffer);
  await drained(buffer);
  assert.deepEqual(numbersOf(gateway), [1, 2, 3]);
  for (const [i, arrived] of gateway.arrived.entries()) {
    assert.equal(arrived.path, "pi/yard");
    assert.equal(arrived.sdp, SDP);
    assert.deepEqual(
      arrived.packets.map((rtp) => Buffer.from(rtp)),
      units[i]!.packets.map(({ rtp }) => rtp),
    );
    const { rtpTime, utcUs } = units[i]!.clocks[0]!;
    assert.equal(arrived.senderReports[0]?.rtpTime, rtpTime);
    assert.ok(Math.abs(arrived.senderReports[0]!.utcUs - utcUs) <= 1);
  }
  assert.equal(gateway.arrived.length, 3);
  assert.deepEqual(gateway.recordedFrom, [units[0]!.producerUs]);
  // A unit that is stored later follows on the same session.
  await buffer.append(madeUnit("yard", 4, 1_000));
  await drained(buffer);
  assert.equal(gateway.sessions.length, 1);
  await uplink.close();
  await uplink.close();
});

test("nothing is deleted before it is persisted, and what is not is sent again", async (t) => {
  const buffer = await openBuffer(t);
  const gateway = await startGateway(t);
  gateway.persists = false;
  for (const number of [1, 2]) await buffer.append(madeUnit("yard", number, 5_000));
  await startUplink(t, gateway.url, buffer, { persistTimeoutMs: 300 });
  await gateway.until(() => gateway.arrived.length >= 4);
  assert.equal(buffer.usage().waitingUnits, 2);
  gateway.persists = true;
  await drained(buffer);
  assert.deepEqual(numbersOf(gateway), [1, 2]);
});

test("a connection cut inside a unit costs only time", async (t) => {
  const buffer = await openBuffer(t);
  const gateway = await startGateway(t);
  gateway.cutAfterPackets = 5;
  for (const number of [1, 2, 3]) await buffer.append(madeUnit("yard", number, 40_000));
  await startUplink(t, gateway.url, buffer);
  await drained(buffer);
  assert.equal(gateway.sessions.length, 2);
  assert.deepEqual(numbersOf(gateway), [1, 2, 3]);
  assert.equal(gateway.mismatches, 0);
});

test("what the gateway persisted without our knowing is not sent again", async (t) => {
  const buffer = await openBuffer(t);
  const gateway = await startGateway(t);
  const place = await buffer.append(madeUnit("yard", 1, 5_000));
  await buffer.append(madeUnit("yard", 2, 5_000));
  gateway.persisted.set("before", {
    path: "pi/yard",
    sdp: SDP,
    begin: {
      kind: "begin",
      ...place,
      producerUs: madeUnit("yard", 1, 1).producerUs,
      startsWithKeyFrame: true,
    },
    packets: [],
    senderReports: [],
  });
  await startUplink(t, gateway.url, buffer);
  await drained(buffer);
  assert.deepEqual(
    gateway.arrived.map(({ begin }) => begin.sequence),
    [2n],
  );
});

test("a gateway that is away is found again when it is back", async (t) => {
  const buffer = await openBuffer(t);
  const first = await startGateway(t);
  const { port } = first.server;
  await buffer.append(madeUnit("yard", 1, 5_000));
  await startUplink(t, first.url, buffer);
  await drained(buffer);
  await first.server.close();
  for (const number of [2, 3]) await buffer.append(madeUnit("yard", number, 5_000));
  const second = await startGateway(t, port);
  await drained(buffer);
  assert.deepEqual(numbersOf(second), [2, 3]);
});

test("another session description opens another session, and order is kept", async (t) => {
  const buffer = await openBuffer(t);
  const gateway = await startGateway(t);
  const otherSdp = SDP.replace("packetization-mode=1", "packetization-mode=1;profile-level-id=42c01f");
  await buffer.append(madeUnit("yard", 1, 5_000));
  await buffer.append({ ...madeUnit("yard", 2, 5_000), sdp: otherSdp });
  await buffer.append({ ...madeUnit("yard", 3, 5_000), sdp: otherSdp });
  await startUplink(t, gateway.url, buffer);
  await drained(buffer);
  assert.deepEqual(numbersOf(gateway), [1, 2, 3]);
  assert.deepEqual(
    gateway.arrived.map(({ sdp }) => sdp),
    [SDP, otherSdp, otherSdp],
  );
  assert.equal(gateway.sessions.length, 2);
});

test("a camera that appears later gets a session of its own", async (t) => {
  const buffer = await openBuffer(t);
  const gateway = await startGateway(t);
  await startUplink(t, gateway.url, buffer);
  await buffer.append(madeUnit("yard", 1, 5_000));
  await drained(buffer);
  await buffer.append(madeUnit("door", 1, 5_000));
  await drained(buffer);
  assert.deepEqual(
    gateway.arrived.map(({ path }) => path),
    ["pi/yard", "pi/door"],
  );
});

test("the device signs in, and its password stays out of the log", async (t) => {
  const buffer = await openBuffer(t);
  const gateway = await startGateway(t, 0, "right horse battery");
  let lines = "";
  const log = createLog("test", "debug", { write: (line: string) => (lines += line) });
  await buffer.append(madeUnit("yard", 1, 5_000));
  const wrong = await startUplink(t, gateway.url, buffer, { password: "wrong horse battery", log });
  while (!lines.includes("401")) await new Promise((resolve) => setTimeout(resolve, 10));
  await wrong.close();
  assert.equal(buffer.usage().waitingUnits, 1);
  await startUplink(t, gateway.url, buffer, { password: "right horse battery", log });
  await drained(buffer);
  assert.doesNotMatch(lines, /horse/);
});

test("a server that cannot say what it stored gets no footage deleted", async (t) => {
  const buffer = await openBuffer(t);
  const gateway = await startGateway(t);
  gateway.knowsPersisted = false;
  let lines = "";
  const log = createLog("test", "debug", { write: (line: string) => (lines += line) });
  await buffer.append(madeUnit("yard", 1, 5_000));
  await startUplink(t, gateway.url, buffer, { log });
  while (!lines.includes("UPLINK_NOT_A_GATEWAY")) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal(buffer.usage().waitingUnits, 1);
});
