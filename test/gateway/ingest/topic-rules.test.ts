import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { TopicRules } from "../../../gateway/ingest/topic-rules.ts";

const matches = (filter: string, topic: string): boolean =>
  new TopicRules([{ topic: filter, stream: "s" }]).streamFor(topic) === "s";

test("filters match as MQTT 3.1.1 §4.7 says", () => {
  for (const [filter, topic, expected] of [
    ["sport/tennis/#", "sport/tennis", true],
    ["sport/tennis/#", "sport/tennis/player1/ranking", true],
    ["sport/tennis/+", "sport/tennis/player1", true],
    ["sport/tennis/+", "sport/tennis/player1/ranking", false],
    ["sport/+", "sport", false],
    ["sport/+", "sport/", true],
    ["+/+", "/finance", true],
    ["/+", "/finance", true],
    ["+", "/finance", false],
    ["#", "a/b", true],
    ["#", "$SYS/uptime", false],
    ["+/uptime", "$SYS/uptime", false],
    ["$SYS/#", "$SYS/uptime", true],
  ] as const) {
    assert.equal(matches(filter, topic), expected, `${filter} on ${topic}`);
  }
});

test("the first rule that matches decides", () => {
  const rules = new TopicRules([
    { topic: "a/b", stream: "one" },
    { topic: "a/#", stream: "two" },
  ]);
  assert.deepEqual(
    [rules.streamFor("a/b"), rules.streamFor("a/c"), rules.streamFor("b")],
    ["one", "two", undefined],
  );
});

test("a topic matches itself, and itself with any one level as a wildcard", () => {
  const level = fc.string({ minLength: 1, maxLength: 5 }).filter((text) => !/[+#/$]/.test(text));
  fc.assert(
    fc.property(fc.array(level, { minLength: 1, maxLength: 6 }), fc.nat(), (levels, nth) => {
      const topic = levels.join("/");
      assert.equal(matches(topic, topic), true);
      assert.equal(matches(levels.with(nth % levels.length, "+").join("/"), topic), true);
      assert.equal(matches([...levels.slice(0, nth % levels.length), "#"].join("/"), topic), true);
    }),
  );
});
