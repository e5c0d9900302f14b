import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { AnomalyPlan } from "../../firmware-sim/anomalies.ts";
import { fraction, wander } from "../../firmware-sim/random.ts";
import { makeSensor, sensorName } from "../../firmware-sim/sensor-styles.ts";
import { Meter, Signal, TEMPERATURE } from "../../firmware-sim/signals.ts";

const COUNT = 20;
const plan = (seed: number) =>
  new AnomalyPlan({
    seed,
    group: "sensors",
    members: Array.from({ length: COUNT }, (_, i) => sensorName(i)),
    everySeconds: 45,
    hz: 1,
  });

test("the same seed gives the same messages, in whatever order they are made", () => {
  const first = Array.from({ length: 200 }, (_, n) => makeSensor(0, 7, 1, plan(7)).message(n, 0));
  const sensor = makeSensor(0, 7, 1, plan(7));
  const backwards = Array.from({ length: 200 }, (_, i) => sensor.message(199 - i, 0)).reverse();
  assert.deepEqual(backwards, first);
  const other = makeSensor(0, 8, 1, plan(8));
  assert.notDeepEqual(
    Array.from({ length: 200 }, (_, n) => other.message(n, 0)),
    first,
  );
});

test("fractions and wanders stay in their bounds", () => {
  fc.assert(
    fc.property(fc.nat(), fc.string(), fc.maxSafeNat(), (seed, name, n) => {
      const value = fraction(seed, name, n);
      assert.ok(value >= 0 && value < 1);
      const place = wander(seed, name, n, 60);
      assert.ok(place >= -1 && place <= 1);
    }),
  );
});

test("a meter's total rises with every message, through every anomaly", () => {
  for (let seed = 0; seed < 5; seed++) {
    const shared = plan(seed);
    for (let index = 2; index < COUNT; index += 3) {
      const meter = new Meter(seed, sensorName(index), shared);
      let last = 0;
      for (let n = 0; n < 3_000; n++) {
        const text = meter.at(n);
        assert.match(text, /^\d+\.\d{3}$/);
        assert.ok(Number(text) > last, `message ${n}`);
        last = Number(text);
      }
    }
  }
});

test("a meter that starts at a later message says what it would have said then", () => {
  const straight = new Meter(3, "water-barn", plan(3));
  for (let n = 0; n < 2_000; n++) straight.at(n);
  assert.equal(new Meter(3, "water-barn", plan(3)).at(2_000), straight.at(2_000));
});

test("each slot has one anomaly, of one sensor, which ends within the slot", () => {
  const shared = plan(11);
  const kinds = new Set<string>();
  for (let slot = 0; slot < 100; slot++) {
    const found = Array.from({ length: COUNT }, (_, i) => shared.inSlot(sensorName(i), slot)).filter(
      (anomaly) => anomaly !== undefined,
    );
    assert.equal(found.length, 1);
    const [{ kind, first, last }] = found as [NonNullable<(typeof found)[0]>];
    kinds.add(kind);
    assert.ok(first >= slot * 45 && last < (slot + 1) * 45 && last >= first);
  }
  assert.deepEqual([...kinds].sort(), ["drift", "dropout", "spike", "stuck"]);
});

test("an anomaly leads the value astray and ends where it says", () => {
  const signal = new Signal(1, "s", "temperature", TEMPERATURE, 1);
  const healthy = (n: number) => signal.at(n)!;
  assert.ok(signal.at(10, { kind: "spike", first: 10, last: 10 })! > healthy(10) + 5);
  assert.equal(signal.at(20, { kind: "stuck", first: 12, last: 30 }), healthy(12));
  assert.equal(signal.at(20, { kind: "dropout", first: 12, last: 30 }), undefined);
  const drift = (n: number) => signal.at(n, { kind: "drift", first: 100, last: 139 })! - healthy(n);
  assert.ok(drift(100) < 1 && drift(120) > 5 && drift(139) > 13);
});

test("sensors have names and topics of their own", () => {
  const sensors = Array.from({ length: 100 }, (_, i) => makeSensor(i, 1, 1, plan(1)));
  assert.equal(new Set(sensors.map(({ name }) => name)).size, 100);
  assert.equal(new Set(sensors.map(({ topic }) => topic)).size, 100);
});

test("Tasmota and zigbee2mqtt messages look like the real ones", () => {
  const atUs = Date.UTC(2026, 0, 2, 3, 4, 5, 678) * 1_000;
  const said = (index: number, n: number) =>
    JSON.parse(makeSensor(index, 1, 1, plan(1)).message(n, atUs)!.payload);
  const tasmota = said(0, 3);
  assert.equal(tasmota.Time, "2026-01-02T03:04:05+00:00");
  assert.equal(typeof tasmota.AM2301.Temperature, "number");
  assert.equal(tasmota.Seq, 3);
  const zigbee = said(1, 4);
  assert.equal(zigbee.last_seen, "2026-01-02T03:04:05.678Z");
  assert.equal(zigbee.seq, 4);
  assert.ok(zigbee.linkquality > 0 && zigbee.linkquality < 256 && zigbee.battery <= 100);
});
