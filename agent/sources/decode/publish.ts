/** Which format a publish has, told by its topic and its first look. */
import { TextDecoder } from "node:util";
import type { SensorReading } from "../source.ts";
import { decodeBareNumber } from "./bare-number.ts";
import { decodeJsonObject } from "./json-object.ts";
import { decodeTasmota, isTasmota } from "./tasmota.ts";
import { decodeZigbee2Mqtt, isZigbee2Mqtt } from "./zigbee2mqtt.ts";

const utf8 = new TextDecoder("utf-8", { fatal: true });

export type DecodedPublish =
  | { readonly reading: SensorReading; readonly reason?: never }
  | { readonly reading?: never; readonly reason: string };

/** The sensor is the whole topic, or the name in it where a convention has one. Never throws: what no format fits gets a reason. */
export function decodePublish(topic: string, payload: Uint8Array, arrivalUs: number): DecodedPublish {
  try {
    const text = utf8.decode(payload);
    if (isTasmota(topic)) return { reading: decodeTasmota(topic, text, arrivalUs) };
    if (isZigbee2Mqtt(topic)) return { reading: decodeZigbee2Mqtt(topic, text, arrivalUs) };
    const number = decodeBareNumber(topic, text);
    return { reading: number ?? decodeJsonObject(topic, text, arrivalUs) };
  } catch (error) {
    if (error instanceof SyntaxError) return { reason: `no reading: ${error.message.slice(0, 120)}` };
    if (error instanceof TypeError) return { reason: "not UTF-8" };
    if (error instanceof RangeError) return { reason: "nested too deep" };
    throw error;
  }
}
