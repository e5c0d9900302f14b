/**
 * Home Assistant's discovery, `homeassistant/<component>/[<node>/]<object>/config`: what a device says
 * of itself when it connects. It is stored as a record, and what it says of a value (unit, device
 * class, name) goes with the readings of its state topic from then on.
 *
 * Keys may be written short (`stat_t`), and topics with `~` for a base topic.
 */
import type { Decoded, SensorReading } from "../source.ts";
import { type Fields, parseObject } from "./json-object.ts";

const MAX_ENTRIES = 5_000;
const MAX_TEXT_CHARACTERS = 400;
/** Of topics, unit, class and name together: what says more is stored as a record, and not remembered. */
const MAX_ENTRY_CHARACTERS = 600;
/** The short forms of those keys that are read; the rest is stored as it came. */
const LONG: Readonly<Record<string, string>> = {
  stat_t: "state_topic",
  unit_of_meas: "unit_of_measurement",
  dev_cla: "device_class",
  stat_cla: "state_class",
  val_tpl: "value_template",
  uniq_id: "unique_id",
  dev: "device",
};
/** `{{ value_json.temperature }}` and `{{ value_json['temperature'] | round(1) }}`. */
const JSON_FIELD = /value_json(?:\.([A-Za-z0-9_]+)|\[['"]([^'"\]]{1,100})['"]\])/;

/** What is known of a value: the field of a JSON state, or `value` of a bare one. */
export interface ValueMetadata {
  readonly field: string;
  readonly unit?: string;
  readonly deviceClass?: string;
  readonly name?: string;
}

export interface DiscoveryEntry {
  /** The config's topic. */
  readonly topic: string;
  readonly stateTopic: string;
  readonly metadata: ValueMetadata;
}

export class DiscoveryCatalog {
  readonly #topic: RegExp;
  readonly #entries = new Map<string, DiscoveryEntry>();
  /** State topic → config topic → entry. */
  readonly #byState = new Map<string, Map<string, DiscoveryEntry>>();

  constructor(prefix = "homeassistant") {
    const quoted = prefix.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    this.#topic = new RegExp(`^${quoted}/([a-z_]+)/(?:[^/]+/)?([^/]+)/config$`);
  }

  isDiscovery(topic: string): boolean {
    return this.#topic.test(topic);
  }

  /** An empty payload takes a device away. @throws SyntaxError with the reason */
  decode(topic: string, text: string): Decoded {
    const [, component, object] = this.#topic.exec(topic) as unknown as [string, string, string];
    this.#forget(topic);
    const reading = (fields: Fields): Decoded => ({
      readings: [{ sensor: topic.slice(0, -"/config".length), timeUs: undefined, fields }],
    });
    if (text.trim() === "") return reading({ discovery: component, removed: true });
    const config = longKeys(parseObject(text));
    const stateTopic = expanded(config.state_topic, config["~"]);
    if (stateTopic !== undefined) {
      const entry = { topic, stateTopic, metadata: metadataOf(config, object) };
      if (charactersOf(entry) <= MAX_ENTRY_CHARACTERS) this.remember(entry);
    }
    // `device` and the others are named so that they do not collide with a record's own.
    return reading({ discovery: component, config });
  }

  /** As found in a mark, or as just decoded. */
  remember(entry: DiscoveryEntry): void {
    if (this.#entries.size >= MAX_ENTRIES) {
      const [oldest] = this.#entries.keys();
      this.#forget(oldest!);
    }
    this.#entries.set(entry.topic, entry);
    const entries = this.#byState.get(entry.stateTopic) ?? new Map<string, DiscoveryEntry>();
    entries.set(entry.topic, entry);
    this.#byState.set(entry.stateTopic, entries);
  }

  entry(topic: string): DiscoveryEntry | undefined {
    return this.#entries.get(topic);
  }

  #forget(topic: string): void {
    const entry = this.#entries.get(topic);
    if (entry === undefined) return;
    this.#entries.delete(topic);
    const entries = this.#byState.get(entry.stateTopic);
    entries?.delete(topic);
    if (entries?.size === 0) this.#byState.delete(entry.stateTopic);
  }

  /** The reading of a state topic with what is known of its values. */
  annotate(topic: string, reading: SensorReading): SensorReading {
    const entries = this.#byState.get(topic);
    if (entries === undefined) return reading;
    const names = Object.keys(reading.fields);
    const only = names.length === 1 ? names[0] : undefined;
    const units: [string, string][] = [];
    const classes: [string, string][] = [];
    for (const { metadata } of entries.values()) {
      const field = Object.hasOwn(reading.fields, metadata.field)
        ? metadata.field
        : metadata.field === "value"
          ? only
          : undefined;
      if (field === undefined) continue;
      if (metadata.unit !== undefined) units.push([field, metadata.unit]);
      if (metadata.deviceClass !== undefined) classes.push([field, metadata.deviceClass]);
    }
    if (units.length === 0 && classes.length === 0) return reading;
    // One value gets plain columns, several get objects by their fields.
    const alone = only !== undefined;
    const fields = {
      ...reading.fields,
      ...(units.length > 0 && (alone ? { unit: units[0]![1] } : { units: Object.fromEntries(units) })),
      ...(classes.length > 0 &&
        (alone ? { device_class: classes[0]![1] } : { device_classes: Object.fromEntries(classes) })),
    };
    return { ...reading, fields };
  }
}

function charactersOf({ topic, stateTopic, metadata }: DiscoveryEntry): number {
  const texts = [topic, stateTopic, ...Object.values(metadata)];
  return texts.reduce((sum, text) => sum + text.length, 0);
}

function longKeys(config: Fields): Fields {
  return Object.fromEntries(
    Object.entries(config).map(([key, value]) => [Object.hasOwn(LONG, key) ? LONG[key]! : key, value]),
  );
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" && value.length <= MAX_TEXT_CHARACTERS ? value : undefined;
}

/** `~` at the start or the end of a topic stands for the base topic. */
function expanded(topic: unknown, base: unknown): string | undefined {
  const given = text(topic);
  const root = text(base);
  if (given === undefined || root === undefined) return given;
  if (given.startsWith("~")) return root + given.slice(1);
  return given.endsWith("~") ? given.slice(0, -1) + root : given;
}

function metadataOf(config: Fields, object: string): ValueMetadata {
  const [, dotted, quoted] = JSON_FIELD.exec(text(config.value_template) ?? "") ?? [];
  const unit = text(config.unit_of_measurement);
  const deviceClass = text(config.device_class);
  const name = text(config.name) ?? object.slice(0, MAX_TEXT_CHARACTERS);
  return {
    field: dotted ?? quoted ?? "value",
    ...(unit !== undefined && { unit }),
    ...(deviceClass !== undefined && { deviceClass }),
    name,
  };
}
