import assert from "node:assert/strict";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import test, { type TestContext } from "node:test";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { MqttUplink, type MqttUplinkOptions } from "../../../agent/uplink/mqtt-uplink.ts";
import { epochName } from "../../../protocol/frame.ts";
import type { StatusMessage } from "../../../protocol/topics.ts";
import { Backoff } from "../../../runtime/backoff.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { createLog, silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { openBuffer, record, temporaryFolder, texts } from "../buffer/records/buffer-fixture.ts";
import { StandInBroker } from "./stand-in-broker.ts";

async function uplink(
  t: TestContext,
  port: number,
  buffer: RecordBuffer,
  options: Partial<MqttUplinkOptions> = {},
): Promise<MqttUplink> {
  const status: StatusMessage = {
    version: "0",
    buffer: { waitingRecords: 0, waitingBytes: 0, maxBytes: 1, oldestAgeMs: 0, droppedRecords: 0 },
    sources: [],
    residentBytes: 1,
  };
  const made = new MqttUplink({
    url: `mqtt://127.0.0.1:${port}`,
    device: "pi-1",
    buffer,
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    publishBytes: 2_000,
    windowBytes: 10_000,
    statusSeconds: 0.1,
    status: () => status,
    backoff: new Backoff(5, 50),
    ...options,
  });
  await made.start();
  t.after(() => made.close());
  return made;
}

async function waitFor(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

async function fill(buffer: RecordBuffer, count: number, from = 0): Promise<void> {
  const appends: Promise<void>[] = [];
  for (let i = 0; i < count; i++) appends.push(buffer.append([record(`${from + i}`.padEnd(100))]));
  await Promise.all(appends);
}

test("every frame arrives in order, is acknowledged and forgotten", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { commitRecords: 5 });
  const gateway = new StandInBroker();
  const up = await uplink(t, await gateway.start(t), buffer);
  await fill(buffer, 200);
  await gateway.until(() => texts(gateway.frames).length === 200);
  assert.deepEqual(
    texts(gateway.frames).map(Number),
    Array.from({ length: 200 }, (_, i) => i),
  );
  await waitFor(() => buffer.usage().waitingBytes === 0);
  await gateway.until(() => gateway.statuses.length > 0);
  assert.equal(up.connected, true);
  await up.close();
  await buffer.close();
});

test("the log tells that it is connected, that it broke, and that it is back; each once while it breaks over and over", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { commitRecords: 5 });
  const gateway = new StandInBroker();
  let publishes = 0;
  gateway.onFrames = () => (++publishes <= 6 ? "cut" : "ack");
  const lines: string[] = [];
  const log = createLog("agent", "info", { write: (line: string) => lines.push(line) });
  const up = await uplink(t, await gateway.start(t), buffer, { log });
  await fill(buffer, 30);
  await waitFor(() => buffer.usage().waitingBytes === 0);
  const said = lines.map((line) => JSON.parse(line) as { msg: string; reason?: string });
  const reasons = said.flatMap(({ reason }) => reason ?? []);
  assert.ok(reasons.length > 0);
  // A connection that is cut ends by a reset or by an end, as it happens: what is told is another one than the time before.
  for (const [i, reason] of reasons.entries()) assert.notEqual(reason, reasons[i - 1]);
  assert.deepEqual(
    said.map(({ msg }) => msg),
    [...reasons.flatMap(() => ["uplink connected", "uplink ended, trying again"]), "uplink connected"],
  );
  await up.close();
  await buffer.close();
});

test("the log's last word of a gateway that is away is not that it is connected, also where it is away as it broke", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const port = await new StandInBroker().start(t);
  // As a forwarder that takes connections whether or not somebody is behind it.
  let tries = 0;
  let isOpen = true;
  const sockets = new Set<Socket>();
  const forwarder = createServer((socket) => {
    tries++;
    socket.on("error", () => {});
    if (!isOpen) return void socket.resume().end();
    sockets.add(socket);
    const gateway = connect(port, "127.0.0.1").on("error", () => {});
    socket.pipe(gateway);
    gateway.on("data", (bytes) => socket.writable && socket.write(bytes));
  });
  await new Promise<void>((resolve) => forwarder.listen(0, "127.0.0.1", resolve));
  t.after(() => forwarder.close());
  const lines: string[] = [];
  const log = createLog("agent", "info", { write: (line: string) => lines.push(line) });
  const up = await uplink(t, (forwarder.address() as AddressInfo).port, buffer, { log });
  const breaks = async (): Promise<void> => {
    await waitFor(() => up.connected);
    // With an end, and no reset: all of them are told in the same words.
    for (const socket of sockets) socket.end();
    await waitFor(() => !up.connected);
  };
  await breaks();
  await waitFor(() => up.connected);
  isOpen = false;
  await breaks();
  const before = tries;
  await waitFor(() => tries > before + 4);
  assert.deepEqual(
    lines.map((line) => (JSON.parse(line) as { msg: string }).msg),
    ["uplink connected", "uplink ended, trying again", "uplink connected", "uplink ended, trying again"],
  );
  await up.close();
  await buffer.close();
});

test("after cut connections everything is sent again from the oldest, in order", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { commitRecords: 5 });
  const gateway = new StandInBroker();
  let publishes = 0;
  gateway.onFrames = () => (++publishes % 4 === 0 ? "cut" : "ack");
  const up = await uplink(t, await gateway.start(t), buffer);
  await fill(buffer, 300);
  await waitFor(() => buffer.usage().waitingBytes === 0);
  assert.deepEqual(
    texts(gateway.unique).map(Number),
    Array.from({ length: 300 }, (_, i) => i),
  );
  assert.ok(gateway.connections > 2);
  await up.close();
  await buffer.close();
});

test("a gateway that withholds PUBACK stops the window, and is left after a while", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { commitRecords: 5 });
  const gateway = new StandInBroker();
  let silent = true;
  gateway.onFrames = () => (silent ? "withhold" : "ack");
  const up = await uplink(t, await gateway.start(t), buffer, { ackTimeoutMs: 200 });
  await fill(buffer, 300);
  await waitFor(() => gateway.connections >= 2);
  // Of each connection: a slow disk has the uplink leave many before the last record is in the buffer.
  const mostBytes = Math.max(...gateway.broughtBytes);
  assert.ok(mostBytes <= 12_000, `${mostBytes} bytes under way`);
  assert.equal(buffer.usage().waitingRecords, 300);
  silent = false;
  await waitFor(() => buffer.usage().waitingBytes === 0);
  assert.equal(new Set(texts(gateway.unique)).size, 300);
  await up.close();
  await buffer.close();
});

test("a busy gateway is left alone for as long as it asks", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const gateway = new StandInBroker();
  let busyAtMs = 0;
  let backAtMs = 0;
  gateway.onFrames = () => {
    if (busyAtMs === 0) {
      busyAtMs = performance.now();
      return "busy";
    }
    backAtMs ||= performance.now();
    return "ack";
  };
  const up = await uplink(t, await gateway.start(t), buffer);
  await fill(buffer, 3);
  await waitFor(() => buffer.usage().waitingBytes === 0);
  assert.ok(backAtMs - busyAtMs >= 50, `${backAtMs - busyAtMs} ms`);
  await up.close();
  await buffer.close();
});

test("an epoch of an earlier start is declared drained once all of it is acknowledged", async (t) => {
  const dir = await temporaryFolder(t);
  const before = await openBuffer(dir);
  await fill(before, 10);
  const [old] = await before.read(undefined, 1);
  await before.close();
  const buffer = await openBuffer(dir);
  const gateway = new StandInBroker();
  const up = await uplink(t, await gateway.start(t), buffer);
  await fill(buffer, 1, 10);
  await gateway.until(() => gateway.drained.length > 0);
  assert.deepEqual(gateway.drained, [epochName(old!.epoch)]);
  await waitFor(() => buffer.usage().waitingBytes === 0);
  while ((await buffer.drainedEpochs()).length > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  await up.close();
  await buffer.close();
});

test("a gateway that answers pings and never confirms a subscription is left", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const gateway = new StandInBroker();
  gateway.ignoredSubscribes = 2;
  await uplink(t, await gateway.start(t), buffer, { connectTimeoutMs: 500 });
  await fill(buffer, 3);
  await gateway.until(() => texts(gateway.frames).length === 3);
  assert.ok(gateway.connections >= 3, String(gateway.connections));
});
