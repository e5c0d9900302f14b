/**
 * ESPHome's topics: `<node>/sensor/<id>/state` holds a bare value, `<node>/status` says `online` or
 * `offline`. The sensor is `<node>`, the field `<id>`. The prefix may have several levels.
 */
import type { SensorReading } from "../source.ts";
import { decodeBareNumber } from "./bare-number.ts";

const COMPONENTS =
  "sensor|binary_sensor|text_sensor|switch|light|fan|cover|climate|number|select|lock|button|valve|event";
const STATE = new RegExp(`^(.+)/(${COMPONENTS})/([A-Za-z0-9_-]{1,120})/state$`);
const STATUS = /^(.+)\/(?:status|availability|LWT)$/;
const ONLINE: Readonly<Record<string, boolean>> = {
  online: true,
  offline: false,
  Online: true,
  Offline: false,
};
const SWITCHED: Readonly<Record<string, boolean>> = { ON: true, OFF: false };
const MAX_TEXT_CHARACTERS = 4_000;

/** Undefined for what is not ESPHome's. JSON states, as lights have them, are for the JSON decoder. */
export function decodeEspHome(topic: string, text: string): SensorReading | undefined {
  const match = STATE.exec(topic);
  if (match === null) return undefined;
  const [, node, component, id] = match as unknown as [string, string, string, string];
  const trimmed = text.trim();
  if (trimmed.startsWith("{") || trimmed.length > MAX_TEXT_CHARACTERS) return undefined;
  const number = component === "text_sensor" ? undefined : decodeBareNumber(node, trimmed)?.fields.value;
  const switched =
    component !== "text_sensor" && Object.hasOwn(SWITCHED, trimmed) ? SWITCHED[trimmed] : undefined;
  // A sensor without a value writes "nan".
  const value = number ?? switched ?? (trimmed === "" || trimmed.toLowerCase() === "nan" ? null : trimmed);
  return { sensor: node, timeUs: undefined, fields: { [id]: value } };
}

/**
 * Whether a device is there: ESPHome's `status`, Tasmota's `tele/<name>/LWT`, zigbee2mqtt's
 * `<name>/availability` (also as `{"state":"online"}`), Home Assistant's convention.
 */
export function decodeAvailability(topic: string, text: string): SensorReading | undefined {
  const match = STATUS.exec(topic);
  if (match === null) return undefined;
  const said = /^\{\s*"state"\s*:\s*"(online|offline)"\s*\}$/.exec(text.trim())?.[1] ?? text.trim();
  if (!Object.hasOwn(ONLINE, said)) return undefined;
  const sensor = match[1]!.replace(/^(?:tele|zigbee2mqtt)\/(?=.)/, "");
  return { sensor, timeUs: undefined, fields: { online: ONLINE[said] } };
}
