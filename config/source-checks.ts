/** What of the sources the schema alone cannot say: keys that need, exclude or contradict one another. */
import type { z } from "zod";
import { isLoopback } from "./fields.ts";
import type { ModbusSourceConfig, ShapeConfig, SourceConfig } from "./source-config.ts";

type Path = readonly (string | number)[];
type Refuse = (path: Path, message: string) => void;

const REGISTERS = { u16: 1, i16: 1, u32: 2, i32: 2, f32: 2, u64: 4, i64: 4, f64: 4 } as const;

export function checkSources(all: readonly SourceConfig[], context: z.core.$RefinementCtx): void {
  const names = new Set<string>();
  const taken = new Map<string, string>();
  all.forEach((one, i) => {
    const refuse: Refuse = (path, message) => {
      context.addIssue({ code: "custom", path: [i, ...path], message });
    };
    if (names.has(one.name)) refuse(["name"], `${one.name} is taken; every source needs a name of its own`);
    names.add(one.name);
    const [key, what] = ownOf(one) ?? [];
    const owner = what === undefined ? undefined : taken.get(what);
    if (owner !== undefined) refuse([key!], `is what ${owner} has already; each needs its own`);
    else if (what !== undefined) taken.set(what, one.name);
    checkOne(one, refuse);
    if (one.type !== "camera" && one.shape !== undefined) checkShape(one.shape, refuse);
  });
}

/** What only one source can have: a port of this machine, a serial line. */
function ownOf(source: SourceConfig): [key: string, what: string] | undefined {
  if ((source.type === "mqtt" || source.type === "http") && source.port !== 0)
    return ["port", `${source.host}:${source.port}`];
  if (source.type === "serial" || source.type === "modbus") return ["path", source.path];
  return undefined;
}

function checkOne(one: SourceConfig, refuse: Refuse): void {
  if (one.type === "camera" && one.name.startsWith("."))
    refuse(["name"], "a camera's name becomes a folder at the gateway and must not begin with a dot");
  if (one.type === "mqtt") {
    if (!isLoopback(one.host) && one.users.length === 0)
      refuse(["users"], `needed, as ${one.host} can be reached from other machines`);
    one.topics.forEach((topic, i) => {
      if (!isTopicFilter(topic))
        refuse(["topics", i], "# may only be the last level, and # and + only a whole level: farm/+/env/#");
    });
    if (/[#+]/.test(one.discoveryPrefix ?? ""))
      refuse(["discoveryPrefix"], "is a topic without # and +, such as homeassistant");
  }
  if (one.type === "http" && !isLoopback(one.host) && one.tokens.length === 0)
    refuse(["tokens"], `needed, as ${one.host} can be reached from other machines`);
  if (one.type === "file" && one.path.includes("**"))
    refuse(["path"], "** is not known; write a * for each folder, as in /var/log/*/*.log");
  if (one.type === "serial" || one.type === "file" || one.type === "command") checkFormat(one, refuse);
  if (one.type === "command") {
    one.command.forEach((word, i) => {
      if (word.includes("\0")) refuse(["command", i], "must not hold a zero byte");
    });
    for (const name of Object.keys(one.env ?? {})) {
      if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) refuse(["env", name], "is no name of a variable");
    }
  }
  if (one.type === "modbus") checkRegisters(one, refuse);
}

function checkFormat(one: Extract<SourceConfig, { format: string }>, refuse: Refuse): void {
  if (one.csv !== undefined && one.format !== "csv")
    refuse(["csv"], `is for format: csv, and the format is ${one.format}`);
  const columns = one.csv?.columns ?? [];
  if (new Set(columns).size < columns.length) refuse(["csv", "columns"], "two have the same name");
  if (/["\r\n]/.test(one.csv?.delimiter ?? ""))
    refuse(["csv", "delimiter"], "is one character that is neither a quote nor a line end");
  if (one.type !== "serial" || one.cobs === undefined) return;
  if (one.format !== "cobs") refuse(["cobs"], `is for format: cobs, and the format is ${one.format}`);
  if (one.cobs.payload === "layout" && one.cobs.layout === undefined)
    refuse(["cobs"], "a payload by layout needs the layout");
  if (one.cobs.payload !== "layout" && one.cobs.layout !== undefined)
    refuse(["cobs", "layout"], "is for payload: layout");
}

function checkRegisters({ registers }: ModbusSourceConfig, refuse: Refuse): void {
  const fields = new Set<string>();
  registers.forEach(({ field, unit, sensor, table, address, as }, i) => {
    const name = JSON.stringify([sensor ?? unit, field]);
    if (fields.has(name)) refuse(["registers", i, "field"], `${field} is there twice for that sensor`);
    fields.add(name);
    const words = table === "coil" || table === "discrete" ? 1 : REGISTERS[as];
    if (address + words > 65_536)
      refuse(["registers", i, "address"], `a ${as} takes ${words} registers, and the last one is 65535`);
  });
}

function checkShape({ sensor, sample, deadband, keep, drop }: ShapeConfig, refuse: Refuse): void {
  const problem = sensor === undefined ? undefined : patternProblem(sensor);
  if (problem !== undefined) refuse(["shape", "sensor"], problem);
  if (sample !== undefined && sample.everySeconds === undefined && sample.oneIn === undefined)
    refuse(["shape", "sample"], "needs everySeconds or oneIn");
  if (deadband !== undefined && Object.keys(deadband.fields).length === 0)
    refuse(["shape", "deadband", "fields"], "names no field; * stands for every number");
  if (keep !== undefined && drop !== undefined)
    refuse(["shape", "drop"], "keep says already what is stored; give one of them");
}

/** Of `farm/{site}/{sensor}/#`; undefined when it is well. */
function patternProblem(pattern: string): string | undefined {
  const levels = pattern.split("/");
  const names = new Set<string>();
  for (const [i, level] of levels.entries()) {
    if (level === "#" && i < levels.length - 1) return "# may only be the last part";
    if (level === "#" || level === "+") continue;
    const name = /^\{([A-Za-z_][A-Za-z0-9_]*)\}$/.exec(level)?.[1];
    if (name === undefined && /[{}#+]/.test(level))
      return `${JSON.stringify(level)} is neither {name}, + or # as a whole, nor plain text`;
    if (name !== undefined && names.has(name)) return `{${name}} is there twice`;
    if (name !== undefined) names.add(name);
  }
  return undefined;
}

/** [MQTT-4.7.1-2], [MQTT-4.7.1-3] */
function isTopicFilter(filter: string): boolean {
  const levels = filter.split("/");
  return levels.every(
    (level, i) => level === "+" || (level === "#" && i === levels.length - 1) || !/[#+\0]/.test(level),
  );
}
