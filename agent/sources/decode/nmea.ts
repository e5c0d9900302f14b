/**
 * NMEA 0183, as GPS receivers and ships' instruments write it: `$GPRMC,…*6A`. The sentences that are
 * known get named fields in SI units; of others the raw fields are stored. The checksum is needed:
 * a serial line without one cannot be trusted.
 *
 * The sensor is `<source>/<sentence>`, such as `gps/RMC`, so that one table has one shape.
 */
import type { Decoded, SensorReading } from "../source.ts";
import { believableTimeUs } from "./sensor-time.ts";

/** The standard has 82; many receivers write longer ones. */
const MAX_SENTENCE_CHARACTERS = 512;
const SENTENCE = /^[$!]([A-Z][A-Z0-9]{2,9}),([^*\r\n]*)\*([0-9A-Fa-f]{2})\s*$/;
const KNOT_M_S = 0.514444;

type Values = Record<string, unknown>;
type Parts = readonly string[];

const SENTENCES: Readonly<Record<string, (parts: Parts) => Values>> = {
  RMC: (p) => ({
    ...position(p, 2),
    valid: p[1] === "A",
    speed_m_s: scaled(p[6], KNOT_M_S),
    course_deg: number(p[7]),
  }),
  GGA: (p) => ({
    utc: utc(p[0]),
    ...position(p, 1),
    quality: number(p[5]),
    satellites: number(p[6]),
    hdop: number(p[7]),
    altitude_m: number(p[8]),
    geoid_separation_m: number(p[10]),
  }),
  GLL: (p) => ({ ...position(p, 0), utc: utc(p[4]), valid: p[5] === "A" }),
  VTG: (p) => ({ course_deg: number(p[0]), speed_m_s: scaled(p[4], KNOT_M_S) }),
  GSA: (p) => ({ fix: number(p[1]), pdop: number(p[14]), hdop: number(p[15]), vdop: number(p[16]) }),
  GSV: (p) => ({ messages: number(p[0]), message: number(p[1]), satellites_in_view: number(p[2]) }),
  HDT: (p) => ({ heading_deg: number(p[0]) }),
  HDG: (p) => ({ heading_magnetic_deg: number(p[0]) }),
  DPT: (p) => ({ depth_m: number(p[0]), transducer_offset_m: number(p[1]) }),
  DBT: (p) => ({ depth_m: number(p[2]) }),
  MTW: (p) => ({ water_temperature_c: number(p[0]) }),
  MWV: (p) => ({ wind_angle_deg: number(p[0]), wind_reference: p[1], wind_speed_m_s: speed(p[2], p[3]) }),
  VHW: (p) => ({ heading_deg: number(p[0]), water_speed_m_s: scaled(p[4], KNOT_M_S) }),
  ZDA: (p) => ({ utc: utc(p[0]) }),
  XDR: transducers,
};

/** Never throws. */
export function decodeNmea(line: string, source: string, arrivalUs: number): Decoded {
  if (line.length > MAX_SENTENCE_CHARACTERS) return { reason: `NMEA: ${line.length} characters` };
  const match = SENTENCE.exec(line);
  if (match === null) return { reason: "NMEA: no sentence with a checksum" };
  const [, address, body, sum] = match as unknown as [string, string, string, string];
  if (checksum(line.slice(1, line.lastIndexOf("*"))) !== Number.parseInt(sum, 16))
    return { reason: "NMEA: a wrong checksum" };
  const parts = body.split(",");
  // Sentences of one maker begin with P and have no talker.
  const proprietary = address.startsWith("P");
  const type = proprietary ? address : address.slice(2);
  const talker = proprietary ? undefined : address.slice(0, 2);
  const known = proprietary ? undefined : Object.hasOwn(SENTENCES, type) ? SENTENCES[type] : undefined;
  const values = known?.(parts) ?? { values: parts };
  const fields = Object.entries({ ...(talker !== undefined && { talker }), ...values }).filter(
    ([, value]) => value !== undefined,
  );
  const reading: SensorReading = {
    sensor: `${source}/${type}`,
    timeUs: timeOf(type, parts, arrivalUs),
    fields: Object.fromEntries(fields),
  };
  return { readings: [reading] };
}

function checksum(text: string): number {
  let sum = 0;
  for (let i = 0; i < text.length; i++) sum ^= text.charCodeAt(i);
  return sum;
}

function number(text: string | undefined): number | undefined {
  if (text === undefined || !/^[+-]?\d+(\.\d*)?$|^[+-]?\.\d+$/.test(text)) return undefined;
  const value = Number(text);
  return Number.isFinite(value) ? value : undefined;
}

function scaled(text: string | undefined, factor: number): number | undefined {
  const value = number(text);
  return value === undefined ? undefined : Number((value * factor).toFixed(4));
}

function speed(text: string | undefined, unit: string | undefined): number | undefined {
  return scaled(text, unit === "N" ? KNOT_M_S : unit === "K" ? 1 / 3.6 : 1);
}

/** `4807.038,N,01131.000,E`: degrees and minutes. */
function position(parts: Parts, at: number): Values {
  return {
    latitude: degrees(parts[at], parts[at + 1], "S", 90),
    longitude: degrees(parts[at + 2], parts[at + 3], "W", 180),
  };
}

function degrees(
  text: string | undefined,
  hemisphere: string | undefined,
  negative: string,
  max: number,
): number | undefined {
  const value = number(text);
  if (value === undefined) return undefined;
  const whole = Math.trunc(value / 100);
  const found = whole + (value - whole * 100) / 60;
  if (found > max) return undefined;
  return Number((hemisphere === negative ? -found : found).toFixed(7));
}

/** `123519.00` as `12:35:19.00`. */
function utc(text: string | undefined): string | undefined {
  const match = /^(\d\d)(\d\d)(\d\d)(\.\d{1,6})?$/.exec(text ?? "");
  return match === null ? undefined : `${match[1]}:${match[2]}:${match[3]}${match[4] ?? ""}`;
}

/** Groups of four: type, value, unit, name. */
function transducers(parts: Parts): Values {
  const found: Values = {};
  for (let i = 0; i + 3 < parts.length && i < 40; i += 4) {
    const name = parts[i + 3]!;
    const value = number(parts[i + 1]);
    if (name !== "" && value !== undefined) Object.defineProperty(found, name, { value, enumerable: true });
  }
  return found;
}

/** Only these two carry the date. */
function timeOf(type: string, parts: Parts, arrivalUs: number): number | undefined {
  const time = utc(parts[0]);
  if (time === undefined) return undefined;
  if (type === "RMC") {
    const date = /^(\d\d)(\d\d)(\d\d)$/.exec(parts[8] ?? "");
    return date === null
      ? undefined
      : believableTimeUs(`20${date[3]}-${date[2]}-${date[1]}T${time}Z`, arrivalUs);
  }
  if (type !== "ZDA") return undefined;
  const [, day = "", month = "", year = ""] = parts;
  return believableTimeUs(`${year}-${month}-${day}T${time}Z`, arrivalUs);
}
