/** The stream that the gateway itself needs. */
import assert from "node:assert/strict";
import test from "node:test";
import { prepareStreams } from "../../../../../gateway/configured-streams.ts";
import { silentLog } from "../../../../../runtime/log.ts";
import { openFixture } from "../../api-fixture.ts";
import { call } from "../../sign.ts";

test("the stream in which agents report what is missing is not deleted, whoever asks", async (t) => {
  const fixture = await openFixture();
  t.after(() => fixture.close());
  await prepareStreams(fixture.streams, [], silentLog);
  for (const input of [
    { StreamName: "headwater-gaps" },
    { StreamName: "headwater-gaps", EnforceConsumerDeletion: true },
    { StreamARN: "arn:aws:kinesis:us-east-1:000000000000:stream/headwater-gaps" },
  ]) {
    const { status, type, json } = await call(fixture.origin, "DeleteStream", JSON.stringify(input));
    assert.deepEqual([status, type], [400, "ResourceInUseException"]);
    assert.match(JSON.stringify(json), /headwater-gaps .*agents report in it what is missing/);
  }
  assert.deepEqual(fixture.streams.listStreams(), ["headwater-gaps"]);
});
