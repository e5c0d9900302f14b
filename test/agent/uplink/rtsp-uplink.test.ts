import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { openLevelFootageBuffer } from "../../../agent/buffer/footage/level-footage-buffer.ts";
import type { FootageBuffer } from "../../../agent/buffer/footage-buffer.ts";
import { RtspUplink, type RtspUplinkOptions } from "../../../agent/uplink/rtsp-uplink.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { createLog, silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { freePorts } from "../../support/program.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { TcpProxy } from "../../support/tcp-proxy.ts";
import { madeUnit, SDP } from "../buffer/footage/made-unit.ts";
import { linkRules } from "./made-rules.ts";
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
    await removeFolder(dir);
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
  more: { password?: string } & Partial<RtspUplinkOptions> = {},
): Promise<RtspUplink> {
  const { password, log = silentLog, ...rest } = more;
  const uplink = new RtspUplink({
    config: { url, device: "pi", password },
    buffer,
    clock: systemClock,
    log,
    metrics: new Metrics(),
    random: () => 0.2,
    ...rest,
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
  // A port that no outgoing connection and no other test is given while the gateway is away.
  const [port] = await freePorts(1);
  const first = await startGateway(t, port);
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

async function startProxy(t: TestContext, targetPort: number): Promise<TcpProxy> {
  const proxy = new TcpProxy({ targetPort });
  await proxy.start();
  t.after(() => proxy.close());
  return proxy;
}

test("a connection that is open on this side alone is left, in the middle of a unit, too", async (t) => {
  const buffer = await openBuffer(t);
  const gateway = await startGateway(t);
  const proxy = await startProxy(t, gateway.server.port);
  for (const number of [1, 2]) await buffer.append(madeUnit("yard", number, 5_000));
  const silence = { quietMs: 200, answerMs: 300 };
  await startUplink(t, `rtsp://127.0.0.1:${proxy.port}`, buffer, { silence });
  await drained(buffer);
  proxy.blackhole();
  // More than the buffers between here and there take.
  await buffer.append(madeUnit("yard", 3, 7_000_000));
  await buffer.append(madeUnit("yard", 4, 1_000));
  while (proxy.counts().connections < 2) await new Promise((resolve) => setTimeout(resolve, 10));
  proxy.restore();
  await drained(buffer);
  assert.deepEqual(numbersOf(gateway), [1, 2, 3, 4]);
});

test("a unit that takes long over a slow link is neither given up nor sent twice", async (t) => {
  const buffer = await openBuffer(t);
  const gateway = await startGateway(t);
  const proxy = await startProxy(t, gateway.server.port);
  proxy.setQuality({ bytesPerSecond: 1_000_000 });
  await buffer.append(madeUnit("yard", 1, 1_500_000));
  // What the proxy holds is confirmed to our kernel already, so the answer must be given that long.
  const limits = { silence: { quietMs: 200, answerMs: 10_000 }, persistTimeoutMs: 300 };
  await startUplink(t, `rtsp://127.0.0.1:${proxy.port}`, buffer, limits);
  await drained(buffer);
  assert.equal(gateway.arrived.length, 1);
  assert.equal(gateway.sessions.length, 1);
});

test("footage keeps to the cap", async (t) => {
  const buffer = await openBuffer(t);
  const gateway = await startGateway(t);
  const proxy = await startProxy(t, gateway.server.port);
  for (const number of [1, 2, 3]) await buffer.append(madeUnit("yard", number, 60_000));
  const rules = linkRules(t, { maxBytesPerSecond: "128KiB" });
  const startMs = performance.now();
  await startUplink(t, `rtsp://127.0.0.1:${proxy.port}`, buffer, { rules });
  await drained(buffer);
  const seconds = (performance.now() - startMs) / 1_000;
  const { upBytes } = proxy.counts();
  assert.ok(upBytes > 180_000 && upBytes <= 131_072 * (seconds + 0.25), `${upBytes} bytes in ${seconds} s`);
});

test("where the mode forbids footage it stays in the buffer, until the schedule lets it go", async (t) => {
  const buffer = await openBuffer(t);
  const gateway = await startGateway(t);
  await buffer.append(madeUnit("yard", 1, 5_000));
  // For this link it is a minute to midnight, and midnight comes when we say so.
  const evening = new Date(2026, 4, 5, 23, 59, 59).getTime();
  let midnight = false;
  const clock = {
    monotonicMs: () => systemClock.monotonicMs(),
    nowUs: () => (evening + (midnight ? 1_000 : 0)) * 1_000,
  };
  const schedule = [{ from: "00:00", to: "06:00", mode: "full" as const }];
  const rules = linkRules(t, { mode: "paused", schedule }, clock);
  await startUplink(t, gateway.url, buffer, { rules });
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.equal(gateway.sessions.length, 0);
  assert.equal(buffer.usage().waitingUnits, 1);
  midnight = true;
  await drained(buffer);
  assert.deepEqual(numbersOf(gateway), [1]);
});
