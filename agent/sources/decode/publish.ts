/**
 * Which format a publish has, told by its topic and its first look: Sparkplug B, Home Assistant's
 * discovery, Tasmota, zigbee2mqtt, ESPHome, availability, SenML, a bare number, a JSON object.
 */
import { TextDecoder } from "node:util";
import type { Decoded, SensorReading } from "../source.ts";
import { decodeBareNumber } from "./bare-number.ts";
import { decodeAvailability, decodeEspHome } from "./esphome.ts";
import { DiscoveryCatalog } from "./home-assistant.ts";
import { decodeJsonObject, parseJson } from "./json-object.ts";
import { decodeSenml, isSenml } from "./senml.ts";
import { isSparkplug, SparkplugDecoder } from "./sparkplug.ts";
import { decodeTasmota, isTasmota } from "./tasmota.ts";
import { decodeZigbee2Mqtt, isZigbee2Mqtt } from "./zigbee2mqtt.ts";

const utf8 = new TextDecoder("utf-8", { fatal: true });

export interface PublishDecoderOptions {
  readonly discoveryPrefix?: string | undefined;
  /** Sequence numbers of an edge node say that messages before this one are missing. */
  readonly onMissing?: (sensor: string, count: number) => void;
}

/** Remembers what devices say of themselves; one for each broker. */
export class PublishDecoder {
  readonly catalog: DiscoveryCatalog;
  readonly #sparkplug = new SparkplugDecoder();
  readonly #onMissing: (sensor: string, count: number) => void;

  constructor({ discoveryPrefix, onMissing }: PublishDecoderOptions = {}) {
    this.catalog = new DiscoveryCatalog(discoveryPrefix);
    this.#onMissing = onMissing ?? (() => {});
  }

  /**
   * The sensor is the whole topic, or the name in it where a convention has one. Never throws: what
   * no format fits gets a reason.
   */
  decode(topic: string, payload: Uint8Array, arrivalUs: number): Decoded {
    if (isSparkplug(topic))
      return this.#sparkplug.decode(topic, payload, arrivalUs, (count) => this.#onMissing(topic, count));
    try {
      const text = utf8.decode(payload);
      if (this.catalog.isDiscovery(topic)) return this.catalog.decode(topic, text);
      const decoded = decodeText(topic, text, arrivalUs);
      if (decoded.reason !== undefined) return decoded;
      return { readings: decoded.readings.map((reading) => this.catalog.annotate(topic, reading)) };
    } catch (error) {
      return { reason: reasonOf(error) };
    }
  }
}

/** Without a memory of what was said before. */
export function decodePublish(topic: string, payload: Uint8Array, arrivalUs: number): Decoded {
  return new PublishDecoder().decode(topic, payload, arrivalUs);
}

function decodeText(topic: string, text: string, arrivalUs: number): Decoded {
  const named = decodeAvailability(topic, text) ?? decodeEspHome(topic, text);
  if (named !== undefined) return one(named);
  if (isTasmota(topic)) return one(decodeTasmota(topic, text, arrivalUs));
  if (isZigbee2Mqtt(topic)) return one(decodeZigbee2Mqtt(topic, text, arrivalUs));
  const number = decodeBareNumber(topic, text);
  if (number !== undefined) return one(number);
  if (text.trimStart().startsWith("[")) {
    const pack = parseJson(text);
    if (isSenml(pack)) return decodeSenml(pack, topic, arrivalUs);
  }
  return one(decodeJsonObject(topic, text, arrivalUs));
}

function one(reading: SensorReading): Decoded {
  return { readings: [reading] };
}

function reasonOf(error: unknown): string {
  if (error instanceof SyntaxError) return `no reading: ${error.message.slice(0, 120)}`;
  if (error instanceof TypeError) return "not UTF-8";
  if (error instanceof RangeError) return "nested too deep";
  throw error;
}
