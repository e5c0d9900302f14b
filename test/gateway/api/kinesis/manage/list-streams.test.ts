/** What tells of all streams, while some of them come and go. */
import assert from "node:assert/strict";
import test from "node:test";
import { openFixture } from "../../api-fixture.ts";
import { call } from "../../sign.ts";

test("a stream that goes away at this moment keeps nobody from hearing of the others", async (t) => {
  const { origin, streams, close } = await openFixture();
  t.after(close);
  for (const name of ["a", "b", "c"]) {
    await streams.createStream({
      name,
      shards: 2,
      retentionHours: 24,
      ...(name === "b" && { mode: "on-demand" }),
    });
  }
  // As where another gateway has deleted it and this one is about to let go of it.
  t.mock.method(streams, "listStreams", () => ["a", "b", "bygone", "c"]);
  const list = async (input: object): Promise<{ StreamNames: string[]; NextToken?: string }> => {
    const answer = await call(origin, "ListStreams", JSON.stringify(input));
    assert.equal(answer.status, 200, answer.message);
    return answer.json as { StreamNames: string[] };
  };
  const first = await list({ Limit: 2 });
  assert.deepEqual(first.StreamNames, ["a", "b"]);
  const { StreamNames, NextToken } = await list({ Limit: 2, NextToken: first.NextToken });
  assert.deepEqual(StreamNames, ["c"]);
  assert.equal(NextToken, undefined);
  const limits = await call(origin, "DescribeLimits", "{}");
  assert.equal(limits.status, 200, limits.message);
  const { OpenShardCount, OnDemandStreamCount } = limits.json as Record<string, number>;
  assert.deepEqual([OpenShardCount, OnDemandStreamCount], [6, 1]);
});
