/** Names of sensors and fields: parts of a name become fields, fields are renamed, scaled, kept, dropped, added. */
import type { FieldMapping, ShapeConfig } from "../../../config/source-config.ts";
import type { SensorReading } from "../source.ts";

const PART = /^\{([A-Za-z_][A-Za-z0-9_]*)\}$/;

type Fields = Readonly<Record<string, unknown>>;
export type Mapping = (reading: SensorReading) => SensorReading;

/** @returns undefined when the config asks for nothing of this */
export function mapping(config: ShapeConfig): Mapping | undefined {
  const { sensor, fields, keep, drop, add } = config;
  const steps: Mapping[] = [];
  if (sensor !== undefined) steps.push(naming(sensor));
  if (fields !== undefined) steps.push(onFields((given) => renamed(given, fields)));
  if (keep !== undefined) {
    const kept = new Set(keep);
    steps.push(onFields((given) => selected(given, (name) => kept.has(name))));
  }
  if (drop !== undefined) {
    const dropped = new Set(drop);
    steps.push(onFields((given) => selected(given, (name) => !dropped.has(name))));
  }
  if (add !== undefined) steps.push(onFields((given) => ({ ...given, ...add })));
  if (steps.length === 0) return undefined;
  return (reading) => steps.reduce((so_far, step) => step(so_far), reading);
}

function onFields(change: (fields: Fields) => Fields): Mapping {
  return (reading) => ({ ...reading, fields: change(reading.fields) });
}

function selected(fields: Fields, wanted: (name: string) => boolean): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([name]) => wanted(name)));
}

/**
 * `farm/{site}/{sensor}/#` on `farm/north/barn/temperature` names the sensor `barn` and adds the
 * field `site`. Without `{sensor}` the name stays. A name that does not fit is left as it is.
 */
function naming(pattern: string): Mapping {
  const wanted = pattern.split("/");
  return (reading) => {
    const levels = reading.sensor.split("/");
    const found: [string, string][] = [];
    let sensor = reading.sensor;
    for (let i = 0; i < wanted.length; i++) {
      const part = wanted[i]!;
      if (part === "#")
        return { ...reading, sensor, fields: { ...Object.fromEntries(found), ...reading.fields } };
      const level = levels[i];
      if (level === undefined) return reading;
      const name = PART.exec(part)?.[1];
      if (name === "sensor" && level !== "") sensor = level;
      else if (name !== undefined) found.push([name, level]);
      else if (part !== "+" && part !== level) return reading;
    }
    if (levels.length !== wanted.length) return reading;
    return { ...reading, sensor, fields: { ...Object.fromEntries(found), ...reading.fields } };
  };
}

function renamed(fields: Fields, config: Readonly<Record<string, FieldMapping>>): Fields {
  const taken = new Set<string>();
  const made: [string, unknown][] = [];
  for (const [name, how] of Object.entries(config)) {
    const from = typeof how === "string" ? how : (how.from ?? name);
    const value = fieldAt(fields, from);
    if (value === undefined) continue;
    if (Object.hasOwn(fields, from)) taken.add(from);
    made.push([name, typeof how === "string" ? value : scaled(value, how.scale, how.offset)]);
  }
  if (made.length === 0) return fields;
  const others = Object.entries(fields).filter(([name]) => !taken.has(name));
  return Object.fromEntries([...others, ...made]);
}

/** The member of that name; else `a.b` is `b` inside `a`. */
export function fieldAt(fields: Fields, path: string): unknown {
  if (Object.hasOwn(fields, path)) return fields[path];
  let at: unknown = fields;
  for (const name of path.split(".")) {
    if (at === null || typeof at !== "object" || !Object.hasOwn(at, name)) return undefined;
    at = (at as Record<string, unknown>)[name];
  }
  return at;
}

function scaled(value: unknown, scale: number, offset: number): unknown {
  if (typeof value !== "number") return value;
  // 0.1 has no exact binary form; 12 digits hide that and lose nothing that a sensor knows.
  return scale === 1 && offset === 0 ? value : Number((value * scale + offset).toPrecision(12));
}
