/** zigbee2mqtt's device state, `zigbee2mqtt/<name>`: the sensor is `<name>`, `last_seen` the time, as text or as milliseconds. */
import type { SensorReading } from "../source.ts";
import { parseObject, readingOf } from "./json-object.ts";

const PREFIX = "zigbee2mqtt/";
/** Names may hold slashes; `bridge/…` is zigbee2mqtt's own, and `…/set` and `…/get` are commands. */
const TOPIC = /^zigbee2mqtt\/(?!bridge\/).+(?<!\/(?:set|get|availability))$/;

export function isZigbee2Mqtt(topic: string): boolean {
  return TOPIC.test(topic);
}

/** @throws SyntaxError with the reason */
export function decodeZigbee2Mqtt(topic: string, text: string, arrivalUs: number): SensorReading {
  return readingOf(topic.slice(PREFIX.length), parseObject(text), "last_seen", arrivalUs);
}
