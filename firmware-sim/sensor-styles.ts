/**
 * The three dialects that the simulated sensors speak, a third of them each:
 * Tasmota's telemetry, zigbee2mqtt's device messages, and a bare number on a topic of its own.
 */
import type { AnomalyPlan } from "./anomalies.ts";
import { below } from "./random.ts";
import { batteryAt, HUMIDITY, Meter, Signal, TEMPERATURE } from "./signals.ts";

export interface SensorMessage {
  readonly payload: string;
  /** What names the message among all of its sensor: its `Seq`, its `seq`, or the value itself. */
  readonly identity: { readonly seq: number } | { readonly value: number };
}

export interface SimulatedSensor {
  /** Unique; also the MQTT client id. */
  readonly name: string;
  readonly topic: string;
  /** Message n, made at `atUs`; undefined while an anomaly keeps it silent. */
  message(n: number, atUs: number): SensorMessage | undefined;
}

const PLACES = ["barn", "dairy", "greenhouse", "orchard", "stable", "silo", "well"] as const;

/** Names of sensor 0, 1, 2 … : air-barn, soil-barn, water-barn, air-dairy … and at last air-barn-2. */
export function sensorName(index: number): string {
  const measures = ["air", "soil", "water"][index % 3]!;
  const nth = Math.floor(index / 3);
  const round = Math.floor(nth / PLACES.length);
  return `${measures}-${PLACES[nth % PLACES.length]!}${round === 0 ? "" : `-${round + 1}`}`;
}

/** @param plan the anomalies of all sensors together, which knows them by `sensorName` */
export function makeSensor(index: number, seed: number, hz: number, plan: AnomalyPlan): SimulatedSensor {
  const name = sensorName(index);
  if (index % 3 === 0) return tasmota(name, seed, hz, plan);
  if (index % 3 === 1) return zigbee(name, seed, hz, plan);
  return waterMeter(name, seed, plan);
}

function tasmota(name: string, seed: number, hz: number, plan: AnomalyPlan): SimulatedSensor {
  const temperature = new Signal(seed, name, "temperature", TEMPERATURE, hz);
  const humidity = new Signal(seed, name, "humidity", HUMIDITY, hz);
  return {
    name,
    topic: `tele/${name}/SENSOR`,
    message(n, atUs) {
      const Temperature = temperature.at(n, plan.at(name, n));
      if (Temperature === undefined) return undefined;
      // As with Tasmota's SetOption52: whole seconds with the zone's offset.
      const Time = `${new Date(atUs / 1_000).toISOString().slice(0, 19)}+00:00`;
      const payload = { Time, AM2301: { Temperature, Humidity: humidity.at(n) }, TempUnit: "C", Seq: n };
      return { payload: JSON.stringify(payload), identity: { seq: n } };
    },
  };
}

function zigbee(name: string, seed: number, hz: number, plan: AnomalyPlan): SimulatedSensor {
  const signal = new Signal(seed, name, "temperature", TEMPERATURE, hz);
  return {
    name,
    topic: `zigbee2mqtt/${name}`,
    message(n, atUs) {
      const temperature = signal.at(n, plan.at(name, n));
      if (temperature === undefined) return undefined;
      const payload = {
        temperature,
        battery: batteryAt(seed, name, n, hz),
        linkquality: 90 + below(120, seed, `${name}/link`, n),
        last_seen: new Date(atUs / 1_000).toISOString(),
        seq: n,
      };
      return { payload: JSON.stringify(payload), identity: { seq: n } };
    },
  };
}

function waterMeter(name: string, seed: number, plan: AnomalyPlan): SimulatedSensor {
  const place = name.slice(name.indexOf("-") + 1);
  const meter = new Meter(seed, name, plan);
  return {
    name,
    topic: `farm/${place}/water_litres`,
    message(n) {
      // A total that stands still could not tell its messages apart, so a stuck meter says nothing.
      const kind = plan.at(name, n)?.kind;
      if (kind === "dropout" || kind === "stuck") return undefined;
      const payload = meter.at(n);
      return { payload, identity: { value: Number(payload) } };
    },
  };
}
