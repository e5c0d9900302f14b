/** StreamCreationTimestamp: which of several streams that had one name is meant. */
import assert from "node:assert/strict";
import test from "node:test";
import { HandClock, openFixture } from "../../api-fixture.ts";
import { call } from "../../sign.ts";

const ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/s";

test("lists are given for the stream that was created then, and not for its successor", async (t) => {
  const clock = new HandClock();
  const fixture = await openFixture({ clock });
  t.after(() => fixture.close());
  const ask = async (name: string, input: object) => {
    const { type, json } = await call(fixture.origin, name, JSON.stringify(input));
    return { type, json: json as Record<string, unknown> };
  };
  const created = async (): Promise<number> => {
    await ask("CreateStream", { StreamName: "s", ShardCount: 2 });
    const { json } = await ask("DescribeStreamSummary", { StreamName: "s" });
    return (json.StreamDescriptionSummary as { StreamCreationTimestamp: number }).StreamCreationTimestamp;
  };
  const before = await created();
  await ask("DeleteStream", { StreamName: "s" });
  clock.aheadMs += 5_000;
  const now = await created();
  for (const ConsumerName of ["a", "b"])
    await ask("RegisterStreamConsumer", { StreamARN: ARN, ConsumerName });
  for (const [name, input, list] of [
    ["ListShards", { StreamName: "s" }, "Shards"],
    ["ListStreamConsumers", { StreamARN: ARN }, "Consumers"],
  ] as const) {
    // SDKs for Python send whole seconds.
    for (const StreamCreationTimestamp of [now, Math.floor(now)]) {
      const { json } = await ask(name, { ...input, StreamCreationTimestamp });
      assert.equal((json[list] as unknown[]).length, 2);
    }
    for (const StreamCreationTimestamp of [before, now - 1.5, now + 1.5, 0]) {
      const { type } = await ask(name, { ...input, StreamCreationTimestamp });
      assert.equal(type, "ResourceNotFoundException", `${name} ${StreamCreationTimestamp}`);
    }
    const { json } = await ask(name, { ...input, MaxResults: 1, StreamCreationTimestamp: now });
    const { NextToken } = json;
    const rest = name === "ListShards" ? {} : input;
    assert.equal(
      (await ask(name, { ...rest, NextToken, StreamCreationTimestamp: now })).type,
      "InvalidArgumentException",
    );
    assert.equal(((await ask(name, { ...rest, NextToken })).json[list] as unknown[]).length, 1);
  }
});
