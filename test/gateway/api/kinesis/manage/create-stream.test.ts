/** What keeps a stream from being made, in AWS's words. */
import assert from "node:assert/strict";
import test from "node:test";
import { StreamLimitError } from "../../../../../gateway/streams/streams.ts";
import { openFixture } from "../../api-fixture.ts";
import { call } from "../../sign.ts";

test("a store that takes no more streams is told as a limit", async (t) => {
  const { origin, streams, close } = await openFixture();
  t.after(close);
  // As a NATS account answers; test/gateway/streams/stores/jetstream/cluster/connection.test.ts has a real one.
  t.mock.method(streams, "createStream", async () => {
    throw new StreamLimitError("the store takes no more streams", "delete some", undefined);
  });
  const answer = await call(origin, "CreateStream", JSON.stringify({ StreamName: "s", ShardCount: 1 }));
  assert.equal(answer.status, 400);
  assert.equal(answer.type, "LimitExceededException");
  assert.match(answer.message, /no more streams/);
});
