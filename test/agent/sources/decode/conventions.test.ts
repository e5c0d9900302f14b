import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import protobuf from "protobufjs";
import { PublishDecoder } from "../../../../agent/sources/decode/publish.ts";
import type { SensorReading } from "../../../../agent/sources/source.ts";

const NOW_US = Date.parse("2026-06-01T12:00:00Z") * 1_000;
const NOW_MS = NOW_US / 1_000;

function decode(
  decoder: PublishDecoder,
  topic: string,
  payload: string | Uint8Array,
): readonly SensorReading[] {
  const decoded = decoder.decode(topic, Buffer.from(payload), NOW_US);
  assert.equal(decoded.reason, undefined);
  return decoded.readings!;
}

test("ESPHome's states and everybody's availability", () => {
  const decoder = new PublishDecoder();
  const fields = (topic: string, text: string): unknown[] =>
    decode(decoder, topic, text).map((one) => [one.sensor, one.fields]);
  assert.deepEqual(fields("kitchen/sensor/air_temperature/state", "21.5"), [
    ["kitchen", { air_temperature: 21.5 }],
  ]);
  assert.deepEqual(fields("house/k/binary_sensor/door/state", "ON"), [["house/k", { door: true }]]);
  assert.deepEqual(fields("kitchen/text_sensor/version/state", "12"), [["kitchen", { version: "12" }]]);
  assert.deepEqual(fields("kitchen/sensor/t/state", "nan"), [["kitchen", { t: null }]]);
  assert.deepEqual(fields("kitchen/status", "offline"), [["kitchen", { online: false }]]);
  assert.deepEqual(fields("tele/shed/LWT", "Online"), [["shed", { online: true }]]);
  assert.deepEqual(fields("zigbee2mqtt/hall/availability", '{"state":"online"}'), [
    ["hall", { online: true }],
  ]);
});

test("SenML: bases, units, times, sums", () => {
  const decoder = new PublishDecoder();
  // RFC 8428 §5.1.3, with a time of today.
  const bt = NOW_MS / 1_000 - 60;
  const pack = [
    { bn: "urn:dev:ow:10e2073a0108006:", bt, bu: "A", bver: 5, n: "voltage", u: "V", v: 120.1 },
    { n: "current", t: -5, v: 1.2 },
    { n: "current", t: -4, v: 1.3 },
    { n: "label", vs: "x" },
    { bv: 10, n: "base", v: 1 },
    { n: "sum", s: 5 },
  ];
  const readings = decode(decoder, "any/topic", JSON.stringify(pack));
  assert.deepEqual(readings[0], {
    sensor: "urn:dev:ow:10e2073a0108006:voltage",
    timeUs: bt * 1e6,
    fields: { value: 120.1, unit: "V" },
  });
  assert.deepEqual(readings[1], {
    sensor: "urn:dev:ow:10e2073a0108006:current",
    timeUs: (bt - 5) * 1e6,
    fields: { value: 1.2, unit: "A" },
  });
  assert.deepEqual(
    readings.slice(3).map(({ fields }) => fields),
    [
      { value: "x", unit: "A" },
      { value: 11, unit: "A" },
      { sum: 5, unit: "A" },
    ],
  );
  const [relative] = decode(decoder, "t", '[{"n":"a","v":1,"t":-10}]');
  assert.equal(relative!.timeUs, NOW_US - 10_000_000);
  assert.match(
    decoder.decode("t", Buffer.from('[{"n":"a","v":1,"x_":2}]'), NOW_US).reason ?? "",
    /understood/,
  );
  assert.ok(decoder.decode("t", Buffer.from('[{"n":"a","v":"1"}]'), NOW_US).reason !== undefined);
});

test("Home Assistant's discovery is a record, and its units go with the readings", () => {
  const decoder = new PublishDecoder();
  const topic = "homeassistant/sensor/node/temp/config";
  const config = {
    "~": "farm/barn",
    stat_t: "~/state",
    unit_of_meas: "°C",
    dev_cla: "temperature",
    val_tpl: "{{ value_json.t }}",
  };
  const [announced] = decode(decoder, topic, JSON.stringify(config));
  assert.equal(announced!.sensor, "homeassistant/sensor/node/temp");
  assert.equal(announced!.fields.discovery, "sensor");
  decode(
    decoder,
    "homeassistant/sensor/node/hum/config",
    JSON.stringify({ ...config, unit_of_meas: "%", dev_cla: "humidity", val_tpl: "{{ value_json['h'] }}" }),
  );
  const [state] = decode(decoder, "farm/barn/state", '{"t":21.5,"h":50}');
  assert.deepEqual(state!.fields, {
    t: 21.5,
    h: 50,
    units: { t: "°C", h: "%" },
    device_classes: { t: "temperature", h: "humidity" },
  });
  decode(
    decoder,
    "homeassistant/sensor/water/config",
    '{"state_topic":"farm/water","unit_of_measurement":"L"}',
  );
  assert.deepEqual(decode(decoder, "farm/water", "12")[0]!.fields, { value: 12, unit: "L" });
  const [removed] = decode(decoder, topic, "");
  assert.equal(removed!.fields.removed, true);
  assert.deepEqual(decode(decoder, "farm/barn/state", '{"t":1}')[0]!.fields, { t: 1 });
});

/** The part of tahu.proto that devices send, in words of another implementation. */
const tahu = protobuf
  .parse(
    `
  syntax = "proto2";
  message Payload {
    message Metric {
      optional string name = 1; optional uint64 alias = 2; optional uint64 timestamp = 3;
      optional uint32 datatype = 4; optional bool is_historical = 5; optional bool is_transient = 6; optional bool is_null = 7;
      oneof value {
        uint32 int_value = 10; uint64 long_value = 11; float float_value = 12; double double_value = 13;
        bool boolean_value = 14; string string_value = 15; bytes bytes_value = 16;
      }
    }
    optional uint64 timestamp = 1; repeated Metric metrics = 2; optional uint64 seq = 3;
  }
`,
    { keepCase: false },
  )
  .root.lookupType("Payload");

function payload(metrics: object[], seq: number, timestamp = NOW_MS): Uint8Array {
  return tahu.encode(tahu.fromObject({ timestamp, seq, metrics })).finish();
}

test("Sparkplug B: births give names to the aliases of data; deaths say offline", () => {
  const missing: number[] = [];
  const decoder = new PublishDecoder({ onMissing: (_topic, count) => missing.push(count) });
  const birth = payload(
    [
      { name: "Temperature", alias: 1, datatype: 9, floatValue: 21.5 },
      { name: "Count", alias: 2, datatype: 3, intValue: 4_294_967_295 },
      { name: "Total", alias: 3, datatype: 4, longValue: "18446744073709551615" },
      { name: "Big", alias: 4, datatype: 8, longValue: "18446744073709551615" },
      { name: "On", alias: 5, datatype: 11, booleanValue: true },
      { name: "None", alias: 6, datatype: 12, isNull: true },
      { name: "At", alias: 7, datatype: 13, longValue: NOW_MS },
    ],
    1,
  );
  const [born] = decode(decoder, "spBv1.0/plant/DBIRTH/edge/press", birth);
  assert.deepEqual(born, {
    sensor: "plant/edge/press",
    timeUs: NOW_US,
    fields: {
      Temperature: 21.5,
      Count: -1,
      Total: -1,
      Big: "18446744073709551615",
      On: true,
      None: null,
      At: "2026-06-01T12:00:00.000Z",
      online: true,
    },
  });
  const data = payload(
    [
      { alias: 1, floatValue: 0.1 },
      { alias: 2, intValue: 7, timestamp: NOW_MS - 5_000, isHistorical: true },
      { alias: 99, intValue: 1 },
    ],
    2,
  );
  assert.deepEqual(decode(decoder, "spBv1.0/plant/DDATA/edge/press", data), [
    { sensor: "plant/edge/press", timeUs: NOW_US, fields: { Temperature: 0.1, alias_99: 1 } },
    { sensor: "plant/edge/press", timeUs: NOW_US - 5_000_000, fields: { historical: true, Count: 7 } },
  ]);
  decode(decoder, "spBv1.0/plant/DDATA/edge/press", payload([], 5));
  assert.deepEqual(missing, [2]);
  const [dead] = decode(decoder, "spBv1.0/plant/NDEATH/edge", payload([{ name: "bdSeq", longValue: 1 }], 0));
  assert.deepEqual([dead!.sensor, dead!.fields], ["plant/edge", { online: false }]);
  assert.deepEqual(
    decode(decoder, "spBv1.0/plant/DDATA/edge/press", payload([{ alias: 1, floatValue: 1 }], 1))[0]!.fields,
    {
      alias_1: 1,
    },
  );
  assert.deepEqual(decode(decoder, "spBv1.0/STATE/host", "ONLINE"), []);
});

test("Sparkplug metrics read as another implementation wrote them", () => {
  const metric = fc.oneof(
    fc
      .record({ datatype: fc.constant(3), intValue: fc.integer() })
      .map((m) => ({ ...m, intValue: m.intValue >>> 0, want: m.intValue })),
    fc
      .double({ noNaN: true, noDefaultInfinity: true })
      .map((v) => ({ datatype: 10, doubleValue: v, want: Object.is(v, -0) ? 0 : v })),
    fc.string().map((v) => ({ datatype: 12, stringValue: v, want: v })),
    fc.boolean().map((v) => ({ datatype: 11, booleanValue: v, want: v })),
    fc
      .bigInt({ min: 0n, max: 2n ** 53n - 1n })
      .map((v) => ({ datatype: 8, longValue: v.toString(), want: Number(v) })),
  );
  fc.assert(
    fc.property(fc.array(metric, { maxLength: 20 }), (metrics) => {
      const named = metrics.map(({ want: _, ...one }, i) => ({ name: `m${i}`, ...one }));
      const readings = decode(new PublishDecoder(), "spBv1.0/g/NDATA/n", payload(named, 0));
      const all = Object.assign({}, ...readings.map(({ fields }) => fields)) as Record<string, unknown>;
      metrics.forEach(({ want }, i) => {
        const got = all[`m${i}`];
        assert.deepEqual(Object.is(got, -0) ? 0 : got, want);
      });
    }),
  );
});

test("no bytes make Sparkplug or SenML throw", () => {
  const decoder = new PublishDecoder();
  const whole = payload([{ name: "a", alias: 1, doubleValue: 1 }], 1);
  const damaged = fc
    .tuple(fc.nat(whole.length - 1), fc.nat(255), fc.nat(whole.length))
    .map(([at, byte, cut]) =>
      Buffer.from(whole)
        .fill(byte, at, at + 1)
        .subarray(0, cut),
    );
  const types = fc.constantFrom("NBIRTH", "DDATA", "NDEATH");
  fc.assert(
    fc.property(fc.oneof(damaged, fc.uint8Array({ maxLength: 100 })), types, (bytes, type) => {
      const { readings, reason } = decoder.decode(`spBv1.0/g/${type}/n`, bytes, NOW_US);
      assert.ok(reason !== undefined || Array.isArray(readings));
    }),
    { numRuns: 3_000 },
  );
  const records = fc.array(
    fc.record(
      { bn: fc.jsonValue(), n: fc.jsonValue(), v: fc.jsonValue(), t: fc.jsonValue(), bt: fc.double() },
      { requiredKeys: [] },
    ),
  );
  fc.assert(
    fc.property(records, (pack) => {
      decoder.decode("a", Buffer.from(JSON.stringify(pack)), NOW_US);
    }),
  );
});
