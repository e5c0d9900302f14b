/**
 * SenML, RFC 8428, in its JSON form: `[{"bn":"urn:dev:mac:0024befffe804ff1:","bt":1320067464,"bu":"Cel"},
 * {"n":"temp","v":23.1},…]`. Base values hold until they are given again (§4.1), and times are
 * relative when they are small (§4.5.3).
 */
import type { Decoded, SensorReading } from "../source.ts";
import { believableTimeUs } from "./sensor-time.ts";

const MAX_RECORDS = 10_000;
const MAX_NAME_CHARACTERS = 400;
/** §4.5.3: values below 2**28 are relative to now. */
const RELATIVE_BELOW = 2 ** 28;
/** §4.4: the version that is meant when none is said. */
const VERSION = 10;
const KEYS: ReadonlySet<string> = new Set([
  "bn",
  "bt",
  "bu",
  "bv",
  "bs",
  "bver",
  "n",
  "u",
  "v",
  "vs",
  "vb",
  "vd",
  "s",
  "t",
  "ut",
]);

type SenmlRecord = Readonly<Record<string, unknown>>;

/** An array whose members use SenML's names and hold a value or a base: nothing else looks like that. */
export function isSenml(value: unknown): value is readonly SenmlRecord[] {
  if (!Array.isArray(value) || value.length === 0 || value.length > MAX_RECORDS) return false;
  return value.every((one: unknown) => {
    if (one === null || typeof one !== "object" || Array.isArray(one)) return false;
    const keys = Object.keys(one);
    return (
      keys.every((key) => KEYS.has(key) || key.endsWith("_")) &&
      keys.some((key) => key !== "t" && KEYS.has(key))
    );
  });
}

interface Base {
  name: string;
  time: number;
  unit: string | undefined;
  value: number;
  sum: number;
}

/** @param sensor used where a record has no name at all. Never throws. */
export function decodeSenml(pack: readonly SenmlRecord[], sensor: string, arrivalUs: number): Decoded {
  const base: Base = { name: "", time: 0, unit: undefined, value: 0, sum: 0 };
  const readings: SensorReading[] = [];
  for (const record of pack) {
    const wrong = wrongIn(record);
    if (wrong !== undefined) return { reason: `SenML: ${wrong}` };
    const { bn, bt, bu, bv, bs } = record as {
      bn?: string;
      bt?: number;
      bu?: string;
      bv?: number;
      bs?: number;
    };
    if (bn !== undefined) base.name = bn;
    if (bt !== undefined) base.time = bt;
    if (bu !== undefined) base.unit = bu;
    if (bv !== undefined) base.value = bv;
    if (bs !== undefined) base.sum = bs;
    const fields = valuesOf(record, base);
    if (fields === undefined) continue;
    const name = base.name + ((record.n as string | undefined) ?? "");
    if (name.length > MAX_NAME_CHARACTERS) return { reason: "SenML: a name that is too long" };
    const time = base.time + ((record.t as number | undefined) ?? 0);
    readings.push({ sensor: name === "" ? sensor : name, timeUs: timeOf(time, arrivalUs), fields });
  }
  return { readings };
}

function wrongIn(record: SenmlRecord): string | undefined {
  for (const [key, value] of Object.entries(record)) {
    // §4.4: labels that end in _ must be understood by whoever reads them.
    if (key.endsWith("_")) return `needs ${JSON.stringify(key.slice(0, 40))} to be understood`;
    const wanted = ["bn", "bu", "n", "u", "vs", "vd"].includes(key)
      ? "string"
      : key === "vb"
        ? "boolean"
        : "number";
    if (KEYS.has(key) && typeof value !== wanted) return `${key} is no ${wanted}`;
  }
  if (typeof record.bver === "number" && record.bver > VERSION) return `version ${record.bver}`;
  return undefined;
}

/** Undefined for a record that only sets bases. */
function valuesOf(record: SenmlRecord, base: Base): Record<string, unknown> | undefined {
  const { v, vs, vb, vd, s, u } = record as {
    v?: number;
    vs?: string;
    vb?: boolean;
    vd?: string;
    s?: number;
    u?: string;
  };
  const unit = u ?? base.unit;
  const value = v !== undefined ? v + base.value : (vb ?? vs ?? vd);
  if (value === undefined && s === undefined) return undefined;
  return {
    ...(value !== undefined && { value }),
    ...(s !== undefined && { sum: s + base.sum }),
    ...(unit !== undefined && { unit }),
  };
}

function timeOf(seconds: number, arrivalUs: number): number | undefined {
  if (seconds === 0) return undefined;
  const us = seconds < RELATIVE_BELOW ? arrivalUs + seconds * 1e6 : seconds * 1e6;
  return believableTimeUs(Math.round(us), arrivalUs);
}
