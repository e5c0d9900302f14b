/** Which stream a plain sensor's topic belongs to. MQTT 3.1.1 §4.7 decides what matches. */

export interface TopicRule {
  readonly topic: string;
  readonly stream: string;
}

export class TopicRules {
  readonly #rules: ReadonlyArray<{ levels: readonly string[]; stream: string }>;

  constructor(rules: readonly TopicRule[]) {
    this.#rules = rules.map((rule) => ({ levels: rule.topic.split("/"), stream: rule.stream }));
  }

  /** The stream of the first rule that matches. */
  streamFor(topic: string): string | undefined {
    const levels = topic.split("/");
    return this.#rules.find((rule) => matches(rule.levels, levels))?.stream;
  }
}

function matches(filter: readonly string[], topic: readonly string[]): boolean {
  // §4.7.2: a wildcard at the start does not match topics that begin with $.
  if (topic[0]?.startsWith("$") && filter[0] !== topic[0]) return false;
  for (let i = 0; i < filter.length; i++) {
    if (filter[i] === "#") return true;
    if (i >= topic.length) return false;
    if (filter[i] !== "+" && filter[i] !== topic[i]) return false;
  }
  return filter.length === topic.length;
}
