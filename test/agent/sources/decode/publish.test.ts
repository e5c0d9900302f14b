import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { decodeJsonLine } from "../../../../agent/sources/decode/json-line.ts";
import { decodePublish } from "../../../../agent/sources/decode/publish.ts";
import { believableTimeUs, timeText } from "../../../../agent/sources/decode/sensor-time.ts";
import { LineSplitter, MAX_LINE_BYTES } from "../../../../agent/sources/line-splitter.ts";
import { topicMatches } from "../../../../agent/sources/mqtt/topic-filter.ts";
import { readingRecord, sensorName } from "../../../../agent/sources/reading-record.ts";
import type { SensorReading } from "../../../../agent/sources/source.ts";
import { MAX_KEY_BYTES } from "../../../../protocol/record-batch.ts";

const NOW_US = Date.parse("2026-06-01T12:00:00Z") * 1_000;
const topics = fc.oneof(
  fc.constantFrom(
    "tele/shed/SENSOR",
    "tele/shed/LWT",
    "zigbee2mqtt/hall",
    "zigbee2mqtt/bridge/state",
    "farm/barn/water",
    "a",
    "node/sensor/temp/state",
    "node/status",
    "homeassistant/sensor/node/temp/config",
    "spBv1.0/g/DDATA/n/d",
    "spBv1.0/g/NBIRTH/n",
  ),
  fc.string({ minLength: 1, maxLength: 400, unit: "binary" }),
);
const payloads = fc.oneof(
  fc.uint8Array({ maxLength: 300 }),
  fc.json({ maxDepth: 6 }).map((text) => Buffer.from(text)),
  fc.object().map((value) => Buffer.from(JSON.stringify(value))),
  fc.double().map((value) => Buffer.from(String(value))),
);

function assertStorable(reading: SensorReading): void {
  const record = readingRecord("pi-1", "sensors", reading, NOW_US);
  const value = JSON.parse(Buffer.from(record.payload).toString()) as Record<string, unknown>;
  assert.equal(value.device, "pi-1");
  assert.equal(`pi-1/${value.sensor}`, record.partitionKey);
  assert.equal(value.time, timeText(record.timeUs));
  assert.ok(record.partitionKey.length <= 256 && Buffer.byteLength(record.partitionKey) <= MAX_KEY_BYTES);
  assert.ok(Number.isSafeInteger(record.timeUs) && record.timeUs > 0);
}

test("no payload on any topic throws; a reading always makes a record that can be stored", () => {
  fc.assert(
    fc.property(topics, payloads, (topic, payload) => {
      const decoded = decodePublish(topic, payload, NOW_US);
      if (decoded.reason !== undefined) return assert.ok(decoded.reason.length > 0);
      for (const reading of decoded.readings) assertStorable(reading);
    }),
    { numRuns: 2_000 },
  );
});

test("deep nesting is refused, not followed", () => {
  for (const text of [
    "[".repeat(100_000),
    `${'{"a":'.repeat(50_000)}1${"}".repeat(50_000)}`,
    '{"a":'.repeat(40),
  ]) {
    assert.ok(decodePublish("a/b", Buffer.from(text), NOW_US).reason !== undefined);
    assert.throws(() => decodeJsonLine(text, "board", NOW_US));
  }
  const deep = `${'{"a":'.repeat(5_000)}1${"}".repeat(5_000)}`;
  assert.ok(decodePublish("tele/x/SENSOR", Buffer.from(deep), NOW_US).reason !== undefined);
});

test("__proto__ is a field like any other", () => {
  const { readings } = decodePublish("a/b", Buffer.from('{"__proto__":{"x":1},"y":2}'), NOW_US);
  const text = Buffer.from(readingRecord("pi-1", "sensors", readings![0]!, NOW_US).payload).toString();
  assert.ok(text.includes('"__proto__":{"x":1}'));
  assert.equal(({} as Record<string, unknown>).x, undefined);
});

test("formats are told apart by topic and first look", () => {
  const fields = (topic: string, text: string) =>
    decodePublish(topic, Buffer.from(text), NOW_US).readings?.[0]?.fields;
  assert.deepEqual(fields("a", " 21.50\n"), { value: 21.5 });
  assert.deepEqual(fields("a", "-1e3"), { value: -1000 });
  for (const text of ["1e999", "0x10", "NaN", "", "on", '"5"', "[5]", "true", "null", "1,5", "1_0"]) {
    assert.equal(fields("a", text), undefined, text);
  }
  assert.deepEqual(fields("tele/x/SENSOR", '{"ENERGY":{"Power":[1,2],"Total":3},"TempUnit":"C"}'), {
    power: [1, 2],
    total: 3,
    TempUnit: "C",
  });
  assert.deepEqual(fields("tele/x/SENSOR", '{"DS18B20-1":{"Temperature":1},"DS18B20-2":{"Temperature":2}}'), {
    "DS18B20-1_Temperature": 1,
    "DS18B20-2_Temperature": 2,
  });
  assert.deepEqual(fields("zigbee2mqtt/a/b", '{"battery":90,"last_seen":1780315199000}'), { battery: 90 });
});

test("a time is believed when it may be true", () => {
  const us = (value: unknown) => believableTimeUs(value, NOW_US);
  assert.equal(us("2026-06-01T11:59:59.123456Z"), NOW_US - 1_000_000 + 123_456);
  assert.equal(us("2026-06-01T14:00:00+02:00"), NOW_US);
  assert.equal(us("2026-05-01T12:00:00Z"), Date.parse("2026-05-01T12:00:00Z") * 1_000);
  assert.equal(us("2026-06-01T12:00:05"), NOW_US + 5_000_000);
  assert.equal(us("2026-06-01T14:00:00"), undefined, "local time without a zone");
  assert.equal(us("1970-01-01T00:00:09Z"), undefined);
  assert.equal(us("2026-06-01T13:00:00Z"), undefined, "in the future");
  for (const [value, factor] of [
    [NOW_US / 1e6, 1],
    [NOW_US / 1e3, 1],
    [NOW_US, 1],
  ] as const) {
    assert.equal(us(value), NOW_US * factor);
  }
  for (const value of [null, true, {}, [], "now", "2026-13-01T00:00:00Z", -1, 0, Number.NaN, 1e300]) {
    assert.equal(us(value), undefined);
  }
  // While nobody knows what time it is, a time with a zone is better than none.
  const early = (value: unknown) => believableTimeUs(value, 60_000_000);
  assert.equal(early("2026-06-01T13:00:00Z"), NOW_US + 3_600_000_000);
  for (const value of ["2026-06-01T12:00:05", "1970-01-01T00:00:09Z", 1e300]) {
    assert.equal(early(value), undefined);
  }
  const times = fc.oneof(fc.anything(), fc.double(), fc.date().map(String));
  for (const read of [us, early]) {
    fc.assert(fc.property(times, (value) => read(value) === undefined || Number.isSafeInteger(read(value))));
  }
});

test("lines come out whole however the bytes are cut", () => {
  const line = fc
    .uint8Array({ minLength: 1, maxLength: 50 })
    .map((bytes) => Buffer.from(bytes.map((byte) => (byte % 9) + 32)));
  fc.assert(
    fc.property(fc.array(line), fc.array(fc.nat(20)), (lines, cuts) => {
      const splitter = new LineSplitter(() => assert.fail("not too long"));
      const bytes = Buffer.concat(lines.flatMap((part) => [part, Buffer.from("\r\n")]));
      const found: Buffer[] = [];
      let at = 0;
      for (const cut of [...cuts, bytes.length]) {
        found.push(...splitter.push(bytes.subarray(at, at + cut)));
        at = Math.min(bytes.length, at + cut);
      }
      found.push(...splitter.push(bytes.subarray(at)));
      assert.deepEqual(found.map(String), lines.map(String));
    }),
  );
});

test("a line that is too long is dropped whole, and counted once", () => {
  let dropped = 0;
  const splitter = new LineSplitter(() => dropped++);
  const found: Buffer[] = [];
  for (let i = 0; i < 40; i++) found.push(...splitter.push(Buffer.alloc(MAX_LINE_BYTES / 8, 0x61)));
  found.push(...splitter.push(Buffer.from("tail\nnext\n")));
  assert.deepEqual(found.map(String), ["next"]);
  assert.equal(dropped, 1);
});

test("sensor names stay apart when they are cut", () => {
  const long = "x".repeat(500);
  assert.notEqual(sensorName(`${long}1`), sensorName(`${long}2`));
  assert.equal(sensorName("farm/barn"), "farm/barn");
  assert.equal(Buffer.from(sensorName(`a\ud800`)).toString(), sensorName(`a\ud800`));
});

test("topic filters match as MQTT 3.1.1 §4.7 says", () => {
  for (const [filter, topic, matches] of [
    ["#", "a/b", true],
    ["#", "$SYS/a", false],
    ["$SYS/#", "$SYS/a", true],
    ["a/#", "a", true],
    ["a/+", "a/b", true],
    ["a/+", "a", false],
    ["+/+", "/a", true],
    ["a/b", "a/b/c", false],
    ["a/+/c", "a/b/c", true],
  ] as const) {
    assert.equal(topicMatches(filter, topic), matches, `${filter} ${topic}`);
  }
});
