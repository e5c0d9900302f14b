/** What changing many shards costs. */
import assert from "node:assert/strict";
import test from "node:test";
import { openFixture } from "../../api-fixture.ts";
import { call } from "../../sign.ts";

test("to double or halve the shards, UpdateShardCount looks at all of them a few times, however many there are", async (t) => {
  const { origin, streams, close } = await openFixture();
  t.after(close);
  await streams.createStream({ name: "s", shards: 64, retentionHours: 24 });
  const looks = t.mock.method(streams, "describe");
  for (const target of [128, 64, 128]) {
    looks.mock.resetCalls();
    const body = { StreamName: "s", TargetShardCount: target, ScalingType: "UNIFORM_SCALING" };
    const answer = await call(origin, "UpdateShardCount", JSON.stringify(body));
    assert.equal(answer.status, 200, answer.message);
    const lookedTimes = looks.mock.callCount();
    assert.ok(lookedTimes <= 3, `${lookedTimes} times for ${target}`);
    assert.equal(streams.settings("s").shards, target);
  }
});
