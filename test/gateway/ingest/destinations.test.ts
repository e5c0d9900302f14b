import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { Destinations, isPublishTopic } from "../../../gateway/ingest/destinations.ts";
import { TopicRules } from "../../../gateway/ingest/topic-rules.ts";

const rules = new TopicRules([
  { topic: "plant/+/temperature", stream: "sensors" },
  { topic: "all/#", stream: "others" },
]);

test("a topic means the same each time, however it is asked for", () => {
  const destinations = new Destinations(rules);
  const topic = fc.oneof(
    fc.constantFrom(
      "plant/a/temperature",
      "headwater/v1/pi-1/frames",
      "headwater/v1/pi-1/what",
      "headwater",
      "all/ü",
      `all/${"x".repeat(253)}`,
      `all/${"x".repeat(900)}`,
      "a/+",
      "#",
      "",
    ),
    fc.string({ unit: "binary", maxLength: 20 }),
  );
  fc.assert(
    fc.property(topic, fc.uint8Array({ maxLength: 5 }), (text, before) => {
      const bytes = Buffer.concat([before, Buffer.from(text), before]);
      const found = destinations.at(bytes, before.length, bytes.length - before.length);
      const read = Buffer.from(text).toString();
      assert.deepEqual(found, isPublishTopic(read) ? new Destinations(rules).of(read) : undefined);
    }),
    { numRuns: 1_000 },
  );
});

test("topics that are not UTF-8 are not taken for one another's", () => {
  const destinations = new Destinations(rules);
  const at = (bytes: number[]) => destinations.at(Buffer.from(bytes), 0, bytes.length)?.topic;
  assert.equal(at([0xc3, 0xbc]), "ü");
  assert.equal(at([0xfc]), "\ufffd");
  assert.equal(at([0xc3, 0xbc]), "ü");
});

test("a topic that no partition key can be is told from one without a rule", () => {
  const destinations = new Destinations(rules);
  const long = destinations.of(`all/${"x".repeat(253)}`);
  assert.match(long.kind === "quarantine" ? long.reason : "", /longer/);
  const none = destinations.of("plant");
  assert.match(none.kind === "quarantine" ? none.reason : "", /no rule/);
});
