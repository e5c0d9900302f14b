/**
 * Sparkplug B (Eclipse Sparkplug 3.0), `spBv1.0/<group>/<type>/<edge node>[/<device>]`: births name the
 * metrics and give them aliases and types, data carries the aliases alone. The sensor is
 * `<group>/<edge node>[/<device>]`, its metrics are the fields; metrics of another time make another
 * reading.
 *
 * What is known of a birth is kept for as long as the agent runs: after a restart edge nodes connect
 * and give birth anew, as the specification demands of them.
 */
import type { Decoded, SensorReading } from "../source.ts";
import { exact } from "./exact-number.ts";
import { ProtobufError, protobufFields } from "./protobuf-reader.ts";
import { believableTimeUs } from "./sensor-time.ts";

const TOPIC =
  /^spBv1\.0\/([^/]+)\/(NBIRTH|NDATA|NDEATH|DBIRTH|DDATA|DDEATH|NCMD|DCMD)\/([^/]+)(?:\/([^/]+))?$/;
const MAX_METRICS = 5_000;
/** Of all edge nodes together. */
const MAX_ALIASES = 50_000;
const MAX_NAME_CHARACTERS = 400;
/** Sequence numbers of an edge node go from 0 to 255 and around. */
const SEQUENCES = 256n;

/** Numbers of tahu.proto. */
const PAYLOAD = { timestamp: 1, metric: 2, seq: 3 } as const;
const METRIC = {
  name: 1,
  alias: 2,
  timestamp: 3,
  datatype: 4,
  isHistorical: 5,
  isNull: 7,
  int: 10,
  long: 11,
  float: 12,
  double: 13,
  boolean: 14,
  string: 15,
  bytes: 16,
} as const;

/** Bits of the signed types; they travel as unsigned numbers. */
const SIGNED: Readonly<Record<number, number>> = { 1: 8, 2: 16, 3: 32, 4: 64 };
const DATE_TIME = 13;

interface Metric {
  name: string | undefined;
  alias: bigint | undefined;
  timeMs: bigint | undefined;
  datatype: number | undefined;
  historical: boolean;
  value: unknown;
}

interface Alias {
  readonly name: string;
  readonly datatype: number | undefined;
}

export function isSparkplug(topic: string): boolean {
  return topic.startsWith("spBv1.0/");
}

export class SparkplugDecoder {
  /** `group/node` → device ("" is the node itself) → alias → metric. */
  readonly #births = new Map<string, Map<string, Map<bigint, Alias>>>();
  readonly #sequences = new Map<string, bigint>();
  #aliases = 0;

  /** Never throws. @param onMissing told when messages of an edge node are missing before this one */
  decode(topic: string, payload: Uint8Array, arrivalUs: number, onMissing: (count: number) => void): Decoded {
    const match = TOPIC.exec(topic);
    // STATE is what a host application says of itself.
    if (match === null)
      return /^spBv1\.0\/STATE\//.test(topic) ? { readings: [] } : { reason: "Sparkplug: no such topic" };
    const [, group, type, node, device = ""] = match as unknown as [string, string, string, string, string?];
    if (type === "NCMD" || type === "DCMD") return { readings: [] };
    const edge = `${group}/${node}`;
    const sensor = device === "" ? edge : `${edge}/${device}`;
    try {
      const { timeMs, metrics, seq } = readPayload(
        Buffer.from(payload.buffer, payload.byteOffset, payload.length),
      );
      if (type === "NDEATH" || type === "DDEATH") {
        this.#forget(edge, type === "NDEATH" ? undefined : device);
        return { readings: [{ sensor, timeUs: undefined, fields: { online: false } }] };
      }
      this.#follow(edge, type, seq, onMissing);
      const born = type === "NBIRTH" || type === "DBIRTH";
      if (type === "NBIRTH") this.#forget(edge, undefined);
      if (born) this.#remember(edge, device, metrics);
      return { readings: this.#readings(edge, device, sensor, metrics, timeMs, arrivalUs, born) };
    } catch (error) {
      if (error instanceof ProtobufError) return { reason: `Sparkplug: ${error.message}` };
      throw error;
    }
  }

  #follow(edge: string, type: string, seq: bigint | undefined, onMissing: (count: number) => void): void {
    if (seq === undefined) return;
    const last = this.#sequences.get(edge);
    if (type !== "NBIRTH" && last !== undefined && seq !== (last + 1n) % SEQUENCES)
      onMissing(Number((seq - last - 1n + 2n * SEQUENCES) % SEQUENCES));
    if (last !== undefined || this.#sequences.size < MAX_METRICS) this.#sequences.set(edge, seq % SEQUENCES);
  }

  #forget(edge: string, device: string | undefined): void {
    const devices = this.#births.get(edge);
    for (const [name, aliases] of devices ?? []) {
      if (device !== undefined && name !== device) continue;
      this.#aliases -= aliases.size;
      devices!.delete(name);
    }
    if (devices?.size === 0) this.#births.delete(edge);
    if (device === undefined) this.#sequences.delete(edge);
  }

  #remember(edge: string, device: string, metrics: readonly Metric[]): void {
    this.#forget(edge, device === "" ? "" : device);
    const aliases = new Map<bigint, Alias>();
    for (const { name, alias, datatype } of metrics) {
      if (name === undefined || alias === undefined) continue;
      if (this.#aliases + aliases.size >= MAX_ALIASES) break;
      aliases.set(alias, { name, datatype });
    }
    if (aliases.size === 0) return;
    this.#aliases += aliases.size;
    const devices = this.#births.get(edge) ?? new Map<string, Map<bigint, Alias>>();
    devices.set(device, aliases);
    this.#births.set(edge, devices);
  }

  #readings(
    edge: string,
    device: string,
    sensor: string,
    metrics: readonly Metric[],
    payloadMs: bigint | undefined,
    arrivalUs: number,
    born: boolean,
  ): SensorReading[] {
    const devices = this.#births.get(edge);
    const aliases = devices?.get(device);
    const byTime = new Map<string, { timeMs: bigint | undefined; fields: Map<string, unknown> }>();
    for (const metric of metrics) {
      const known = metric.alias === undefined ? undefined : aliases?.get(metric.alias);
      const name = metric.name ?? known?.name ?? `alias_${metric.alias ?? "none"}`;
      const timeMs = metric.timeMs ?? payloadMs;
      const key = `${timeMs}/${metric.historical}`;
      let reading = byTime.get(key);
      if (reading === undefined) {
        reading = { timeMs, fields: new Map(metric.historical ? [["historical", true]] : []) };
        byTime.set(key, reading);
      }
      reading.fields.set(name, plainValue(metric, metric.datatype ?? known?.datatype));
    }
    if (born && byTime.size === 0) byTime.set("", { timeMs: payloadMs, fields: new Map() });
    return [...byTime.values()].map(({ timeMs, fields }) => ({
      sensor,
      timeUs: timeMs === undefined ? undefined : believableTimeUs(Number(timeMs), arrivalUs),
      fields: { ...Object.fromEntries(fields), ...(born && { online: true }) },
    }));
  }
}

/** Integers are signed by their type, dates become text, numbers beyond 2^53 stay exact as text. */
function plainValue({ value }: Metric, datatype: number | undefined): unknown {
  if (typeof value !== "bigint") return value;
  const bits = SIGNED[datatype ?? 0];
  if (bits !== undefined) return exact(BigInt.asIntN(bits, value));
  if (datatype === DATE_TIME && value < 8_640_000_000_000_000n) return new Date(Number(value)).toISOString();
  return exact(value);
}

function readPayload(bytes: Buffer): {
  timeMs: bigint | undefined;
  metrics: Metric[];
  seq: bigint | undefined;
} {
  let timeMs: bigint | undefined;
  let seq: bigint | undefined;
  const metrics: Metric[] = [];
  for (const { field, value } of protobufFields(bytes)) {
    if (field === PAYLOAD.timestamp && typeof value === "bigint") timeMs = value;
    else if (field === PAYLOAD.seq && typeof value === "bigint") seq = value % SEQUENCES;
    else if (field === PAYLOAD.metric && value instanceof Buffer) {
      if (metrics.length >= MAX_METRICS) throw new ProtobufError(`more than ${MAX_METRICS} metrics`);
      metrics.push(readMetric(value));
    }
  }
  return { timeMs, metrics, seq };
}

function readMetric(bytes: Buffer): Metric {
  const metric: Metric = {
    name: undefined,
    alias: undefined,
    timeMs: undefined,
    datatype: undefined,
    historical: false,
    value: undefined,
  };
  let isNull = false;
  for (const { field, value } of protobufFields(bytes)) {
    if (typeof value === "number") {
      if (field === METRIC.float) metric.value = floatOf(value);
    } else if (typeof value === "bigint") {
      if (field === METRIC.alias) metric.alias = value;
      else if (field === METRIC.timestamp) metric.timeMs = value;
      else if (field === METRIC.datatype) metric.datatype = Number(value);
      else if (field === METRIC.isHistorical) metric.historical = value !== 0n;
      else if (field === METRIC.isNull) isNull = value !== 0n;
      else if (field === METRIC.int || field === METRIC.long) metric.value = value;
      else if (field === METRIC.boolean) metric.value = value !== 0n;
      else if (field === METRIC.double) metric.value = doubleOf(value);
    } else if (field === METRIC.name) metric.name = textOf(value, MAX_NAME_CHARACTERS);
    else if (field === METRIC.string) metric.value = value.toString();
    else if (field === METRIC.bytes) metric.value = value.toString("base64");
    // Data sets and templates are kept as they came.
    else if (field > METRIC.bytes && field <= 19) metric.value = { raw: value.toString("base64") };
  }
  if (isNull || metric.value === undefined) metric.value = null;
  return metric;
}

function textOf(bytes: Buffer, maxCharacters: number): string {
  return bytes.toString().slice(0, maxCharacters);
}

const scratch = Buffer.alloc(8);

/** With the digits that a 32-bit number has, not those that 64 bits invent. */
function floatOf(bits: number): number {
  scratch.writeUInt32LE(bits);
  const value = scratch.readFloatLE();
  return Number.isFinite(value) ? Number(value.toPrecision(8)) : value;
}

function doubleOf(bits: bigint): number {
  scratch.writeBigUInt64LE(bits);
  return scratch.readDoubleLE();
}
