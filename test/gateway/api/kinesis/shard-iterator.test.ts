/** Sequence numbers that come back sooner than the record that they name: there may be several gateways. */
import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { formatSequenceNumber } from "../../../../gateway/streams/streams.ts";
import { openFixture, StillClock } from "../api-fixture.ts";
import { call } from "../sign.ts";

async function open(t: TestContext) {
  const clock = new StillClock();
  const { origin, streams, close } = await openFixture({ clock });
  t.after(close);
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  const put = () => streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
  await put();
  const { createdMs } = streams.shard("s", 0);
  /** As another gateway would have given it out. */
  const numberOf = (offset: number, arrivalMs: number): string =>
    formatSequenceNumber({ shardCreatedMs: createdMs, shardIndex: 0, offset, arrivalMs });
  const iterator = async (StartingSequenceNumber: string): Promise<string> => {
    const input = { StreamName: "s", ShardId: "0", ShardIteratorType: "AFTER_SEQUENCE_NUMBER" };
    const answer = await call(
      origin,
      "GetShardIterator",
      JSON.stringify({ ...input, StartingSequenceNumber }),
    );
    return answer.status === 200
      ? (answer.json as { ShardIterator: string }).ShardIterator
      : `${answer.type}: ${answer.message}`;
  };
  return { clock, origin, streams, put, numberOf, iterator };
}

test("a number whose record is still on its way here is taken as soon as it has come", async (t) => {
  const { origin, streams, put, numberOf, iterator, clock } = await open(t);
  const appended = streams.appended.bind(streams);
  // Without the deadline, as a slow disk may hold up the record for longer.
  const patient = new AbortController();
  t.after(() => patient.abort());
  const waits = t.mock.method(streams, "appended", (stream: string, shardId: string, offset: number) =>
    appended(stream, shardId, offset, patient.signal),
  );
  const asked = iterator(numberOf(1, clock.nowUs() / 1000));
  while (waits.mock.callCount() === 0) await new Promise((resolve) => setImmediate(resolve));
  await put();
  const ShardIterator = await asked;
  await put();
  const read = await call(origin, "GetRecords", JSON.stringify({ ShardIterator }));
  assert.equal((read.json as { Records: unknown[] }).Records.length, 1);
});

test("a number that no record comes for is refused: of a recent one after a moment, of an old one at once", async (t) => {
  const { clock, streams, numberOf, iterator } = await open(t);
  const waits = t.mock.method(streams, "appended");
  const nowMs = clock.nowUs() / 1000;
  assert.match(
    await iterator(numberOf(1, nowMs)),
    /^InvalidArgumentException: .*did not come from this stream/,
  );
  assert.equal(waits.mock.callCount(), 1);
  assert.match(
    await iterator(numberOf(1, nowMs - 60_000)),
    /^InvalidArgumentException: .*did not come from this/,
  );
  assert.equal(waits.mock.callCount(), 1);
});

test("the time of a record that was read is where to go on from, also after the clock was set back", async (t) => {
  const { clock, origin, put } = await open(t);
  const read = async (place: object) => {
    const from = await call(
      origin,
      "GetShardIterator",
      JSON.stringify({ StreamName: "s", ShardId: "0", ...place }),
    );
    assert.equal(from.status, 200, from.message);
    const { json } = await call(origin, "GetRecords", JSON.stringify(from.json));
    return (json as { Records: { SequenceNumber: string; ApproximateArrivalTimestamp: number }[] }).Records;
  };
  // Not by the port: a signature's date must be near to the gateway's clock.
  clock.aheadMs = 3_600_000;
  await put();
  clock.aheadMs = 0;
  const all = await read({ ShardIteratorType: "TRIM_HORIZON" });
  assert.equal(all.length, 2);
  const Timestamp = all[1]!.ApproximateArrivalTimestamp;
  assert.deepEqual(await read({ ShardIteratorType: "AT_TIMESTAMP", Timestamp }), all.slice(1));
  const later = {
    StreamName: "s",
    ShardId: "0",
    ShardIteratorType: "AT_TIMESTAMP",
    Timestamp: Timestamp + 1,
  };
  const refused = await call(origin, "GetShardIterator", JSON.stringify(later));
  assert.match(`${refused.type}: ${refused.message}`, /^InvalidArgumentException: .* cannot be greater than/);
});
