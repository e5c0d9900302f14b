import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { access } from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { crc16 } from "../../../agent/sources/decode/crc16.ts";
import { SerialSource } from "../../../agent/sources/serial.ts";
import type { SerialSourceConfig } from "../../../config/source-config.ts";
import { GAPS_STREAM, type GapRecord } from "../../../protocol/topics.ts";
import { Backoff } from "../../../runtime/backoff.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { openBuffer, readAll, record, temporaryFolder, texts } from "../buffer/records/buffer-fixture.ts";
import { cobsEncode, nmeaSentence } from "./decode/encoders.ts";
import { drained, stored, until } from "./source-parts.ts";

/** A PTY by socat: what is written to the child's stdin comes out at `path`. */
async function plug(t: TestContext, path: string): Promise<ChildProcess> {
  const child = spawn("socat", [`pty,raw,echo=0,link=${path}`, "-"], { stdio: ["pipe", "ignore", "ignore"] });
  t.after(() => child.kill());
  await until(() =>
    access(path).then(
      () => true,
      () => false,
    ),
  );
  return child;
}

async function unplug(child: ChildProcess): Promise<void> {
  child.kill();
  await once(child, "exit");
}

function serial(
  t: TestContext,
  path: string,
  buffer: RecordBuffer,
  more: Partial<SerialSourceConfig> = {},
): SerialSource {
  const source = new SerialSource({
    config: {
      type: "serial",
      name: "board",
      path,
      baudRate: 115_200,
      format: "json-lines",
      stream: "sensors",
      ...more,
    },
    device: "pi-1",
    buffer,
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    backoff: new Backoff(5, 20),
  });
  t.after(() => source.close());
  return source;
}

test("lines become records; garbage is counted and stops nothing", async (t) => {
  const folder = await temporaryFolder(t);
  const buffer = await openBuffer(join(folder, "buffer"));
  const child = await plug(t, join(folder, "tty"));
  const source = serial(t, join(folder, "tty"), buffer);
  await source.start();
  await until(() => source.status().state === "running");
  const time = new Date().toISOString();
  child.stdin!.write(`{"sensor":"yard","counter":1,"time":"${time}"}\r\n`);
  child.stdin!.write(Buffer.from([0xff, 0x00, 0x41, 0x0a]));
  child.stdin!.write("[1]\n12\n{\n\n");
  child.stdin!.write(`{"counter":2}\n`);
  await until(() => buffer.usage().waitingRecords === 2);
  const records = texts(await readAll(buffer)).map((text) => JSON.parse(text) as Record<string, unknown>);
  assert.deepEqual(records[0], { device: "pi-1", sensor: "yard", time, counter: 1 });
  assert.deepEqual({ ...records[1], time: "" }, { device: "pi-1", sensor: "board", time: "", counter: 2 });
  assert.equal(source.status().state, "running");
  assert.equal(source.status().rejected, 4);
  await source.close();
  await unplug(child);
  await buffer.close();
});

test("a port that goes away is opened again, and the gap is reported", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "tty");
  const buffer = await openBuffer(join(folder, "buffer"));
  const source = serial(t, path, buffer);
  await source.start();
  await until(() => source.status().lastError !== undefined);
  const first = await plug(t, path);
  await until(() => source.status().state === "running");
  first.stdin!.write(`{"counter":1}\n`);
  await until(() => buffer.usage().waitingRecords === 1);
  await unplug(first);
  const second = await plug(t, path);
  await until(() => buffer.usage().waitingRecords === 2);
  second.stdin!.write(`{"counter":2}\n`);
  await until(() => buffer.usage().waitingRecords === 3);
  const frames = await readAll(buffer);
  const [gap] = texts(frames, GAPS_STREAM).map((text) => JSON.parse(text) as GapRecord);
  const [before, after] = frames.filter((frame) => frame.stream === "sensors");
  assert.deepEqual([gap!.device, gap!.sensor, gap!.stream], ["pi-1", "board", "sensors"]);
  assert.ok(gap!.fromUs <= before!.storedUs && gap!.toUs > before!.storedUs);
  assert.ok(gap!.toUs < after!.storedUs);
  await source.close();
  await unplug(second);
  await buffer.close();
});

test("what a new port brings does not hide the gap before it, also while the buffer is full", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "tty");
  const buffer = await openBuffer(join(folder, "buffer"), { maxBytes: 3_500 });
  const append = buffer.append.bind(buffer);
  let appends = 0;
  buffer.append = (records) => {
    appends++;
    return append(records);
  };
  const first = await plug(t, path);
  const source = serial(t, path, buffer);
  await source.start();
  await until(() => source.status().state === "running");
  first.stdin!.write(`{"counter":1}\n`);
  await until(() => buffer.usage().waitingRecords === 1);
  await buffer.append([record("x".repeat(2_000), "pi-1/other", "others")]);
  first.stdin!.write(`{"counter":2,"pad":"${"x".repeat(1_200)}"}\n`);
  // It was read, and waits for room: what a port still held would be gone with it.
  await until(() => appends === 3);
  await new Promise((resolve) => setTimeout(resolve, 100));
  await unplug(first);
  await until(() => source.status().state === "waiting");
  const second = await plug(t, path);
  await until(() => source.status().state === "running");
  second.stdin!.write(`{"counter":3}\n`);
  await new Promise((resolve) => setTimeout(resolve, 100));

  const counters: number[] = [];
  let gap: GapRecord | undefined;
  while (!counters.includes(3)) {
    await until(() => buffer.usage().waitingRecords > 0);
    for (const frame of await buffer.read(undefined, 100_000)) {
      for (const text of texts([frame], GAPS_STREAM)) gap = JSON.parse(text) as GapRecord;
      for (const text of texts([frame], "sensors"))
        counters.push((JSON.parse(text) as { counter: number }).counter);
      await buffer.ack(frame.epoch, frame.sequence);
    }
  }
  assert.deepEqual(counters, [1, 2, 3]);
  assert.ok(gap!.toUs - gap!.fromUs > 90_000, "from the last reading before to the opening");
  await source.close();
  await unplug(second);
  await buffer.close();
});

test("a full buffer stops the reading of the port, and nothing is lost", async (t) => {
  const folder = await temporaryFolder(t);
  const buffer = await openBuffer(join(folder, "buffer"), { maxBytes: 60_000 });
  const child = await plug(t, join(folder, "tty"));
  const source = serial(t, join(folder, "tty"), buffer);
  await source.start();
  // Opening a terminal throws away what is waiting in it.
  await until(() => source.status().state === "running");
  const count = 4_000;
  for (let i = 0; i < count; i++) child.stdin!.write(`{"counter":${i},"pad":"${"x".repeat(60)}"}\n`);
  const records = await drained(buffer, count);
  assert.deepEqual(
    records.map(({ counter }) => counter),
    Array.from({ length: count }, (_, i) => i),
  );
  await source.close();
  await unplug(child);
  await buffer.close();
});

test("CSV, NMEA and COBS frames come over a line, and what is damaged is kept where that is asked for", async (t) => {
  const json = Buffer.from('{"t":1}');
  const frame = Buffer.alloc(json.length + 2);
  json.copy(frame);
  frame.writeUInt16BE(crc16("ccitt-false", json), json.length);
  const stuffed = Buffer.concat([Buffer.of(1, 2, 0), cobsEncode(frame), Buffer.of(0)]);
  const cases: [SerialSourceConfig["format"], Uint8Array, unknown[]][] = [
    ["csv", Buffer.from("5,6\na,b\n1,2\n"), [{ raw: "NSw2" }, { a: 1, b: 2 }]],
    [
      "nmea",
      Buffer.from(`PGPX\n${nmeaSentence("GPHDT,10.5,T")}\r\n`),
      [{ raw: "UEdQWA==" }, { talker: "GP", heading_deg: 10.5 }],
    ],
    ["cobs", stuffed, [{ raw: "AQI=" }, { t: 1 }]],
  ];
  for (const [format, bytes, expected] of cases) {
    const folder = await temporaryFolder(t);
    const buffer = await openBuffer(join(folder, "buffer"));
    const child = await plug(t, join(folder, "tty"));
    const source = serial(t, join(folder, "tty"), buffer, { format, undecodable: "raw" });
    await source.start();
    await until(() => source.status().state === "running");
    child.stdin!.write(bytes);
    await until(() => buffer.usage().waitingRecords === 2);
    const records = (await stored(buffer)).map(
      ({ device: _, sensor: _s, time: _t, reason: _r, ...rest }) => rest,
    );
    assert.deepEqual(records, expected, format);
    assert.equal(source.status().rejected, 1);
    await source.close();
    await unplug(child);
    await buffer.close();
  }
});
