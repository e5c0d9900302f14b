/**
 * Where a publish goes, by its topic. A sensor says the same few topics for ever, so what was found
 * out of one is remembered, under its bytes as they stand in the packet.
 */
import { isReservedTopic, parseTopic, type TopicKind } from "../../protocol/topics.ts";
import type { TopicRules } from "./topic-rules.ts";

/** Kinesis: of a partition key. */
const MAX_KEY_CHARACTERS = 256;
/** The broker library refuses a topic of more levels; deeper ones are left to it. */
const MAX_LEVELS = 100;
/** Two halves of so many are kept: what nobody used for a whole half falls out. */
const REMEMBERED = 8_192;
/** Longer topics are no partition keys, and a hostile client's shall not fill the memory. */
const MAX_REMEMBERED_BYTES = 3 * MAX_KEY_CHARACTERS;

export type Destination =
  | {
      readonly kind: "agent";
      readonly topic: string;
      readonly device: string;
      readonly message: TopicKind;
    }
  | { readonly kind: "stream"; readonly topic: string; readonly stream: string }
  | { readonly kind: "quarantine"; readonly topic: string; readonly reason: string };

export class Destinations {
  readonly #rules: TopicRules;
  #young = new Map<string, Destination>();
  #old = new Map<string, Destination>();

  constructor(rules: TopicRules) {
    this.#rules = rules;
  }

  of(topic: string): Destination {
    const parsed = parseTopic(topic);
    if (parsed !== undefined) return { kind: "agent", topic, device: parsed.device, message: parsed.kind };
    if (isReservedTopic(topic))
      return { kind: "quarantine", topic, reason: "unknown topic below headwater/" };
    const stream = this.#rules.streamFor(topic);
    if (stream === undefined) return { kind: "quarantine", topic, reason: "no rule matches its topic" };
    // A UTF-16 unit is at most three bytes of UTF-8, so the log's limit of 1,024 bytes holds as well.
    if (topic.length > MAX_KEY_CHARACTERS)
      return { kind: "quarantine", topic, reason: "its topic is longer than a partition key may be" };
    return { kind: "stream", topic, stream };
  }

  /** Of a topic as it stands in a packet; undefined when a publish may not name it. */
  at(bytes: Buffer, from: number, end: number): Destination | undefined {
    const remembered = end - from <= MAX_REMEMBERED_BYTES;
    const name = remembered ? bytes.toString("latin1", from, end) : "";
    if (remembered) {
      const known = this.#young.get(name);
      if (known !== undefined) return known;
    }
    const topic = bytes.toString("utf8", from, end);
    if (!isPublishTopic(topic)) return undefined;
    const destination = this.#old.get(name) ?? this.of(topic);
    if (!remembered) return destination;
    if (this.#young.size >= REMEMBERED) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(name, destination);
    return destination;
  }
}

/** [MQTT-3.3.2-2], [MQTT-4.7.3-1]: a publish names a topic, without wildcards. */
export function isPublishTopic(topic: string): boolean {
  if (topic.length === 0) return false;
  let levels = 1;
  for (let i = 0; i < topic.length; i++) {
    const code = topic.charCodeAt(i);
    if (code === 0x23 || code === 0x2b) return false;
    if (code === 0x2f) levels++;
  }
  return levels <= MAX_LEVELS;
}
