/** What was said of a stream or a consumer is not taken for a later one of its name, however soon that was made. */
import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { openFixture, StillClock } from "../../api-fixture.ts";
import { call } from "../../sign.ts";

const StreamName = "s";
const StreamARN = `arn:aws:kinesis:us-east-1:000000000000:stream/${StreamName}`;

async function open(t: TestContext) {
  const { origin, close } = await openFixture({ clock: new StillClock() });
  t.after(close);
  const ask = async <T>(operation: string, input: object): Promise<T> => {
    const { status, type, message, json } = await call(origin, operation, JSON.stringify(input));
    if (status !== 200) throw new Error(`${type}: ${message}`);
    return json as T;
  };
  const makeStream = () => ask("CreateStream", { StreamName, ShardCount: 1 });
  await makeStream();
  const makeAnew = async () => {
    await ask("DeleteStream", { StreamName, EnforceConsumerDeletion: true });
    await makeStream();
  };
  const register = async (): Promise<string> => {
    const input = { StreamARN, ConsumerName: "c" };
    type Answer = { Consumer: { ConsumerARN: string } };
    return (await ask<Answer>("RegisterStreamConsumer", input)).Consumer.ConsumerARN;
  };
  const put = async (): Promise<string> => {
    const input = { StreamName, PartitionKey: "k", Data: "AAAA" };
    return (await ask<{ SequenceNumber: string }>("PutRecord", input)).SequenceNumber;
  };
  return { ask, makeAnew, register, put };
}

test("a consumer that is registered again within the second, also with its stream, is not met by an old ARN", async (t) => {
  const { ask, makeAnew, register } = await open(t);
  const arns = [await register()];
  await ask("DeregisterStreamConsumer", { ConsumerARN: arns[0] });
  arns.push(await register());
  await makeAnew();
  const last = await register();
  for (const ConsumerARN of arns) {
    await assert.rejects(ask("DescribeStreamConsumer", { ConsumerARN }), /ResourceNotFoundException/);
    await assert.rejects(ask("DeregisterStreamConsumer", { ConsumerARN }), /ResourceNotFoundException/);
  }
  await ask("DescribeStreamConsumer", { ConsumerARN: last });
});

test("a stream that is made again within the second refuses the old one's sequence numbers", async (t) => {
  const { ask, makeAnew, put } = await open(t);
  const old = await put();
  await makeAnew();
  const own = await put();
  const iterator = { StreamName, ShardId: "0", ShardIteratorType: "AFTER_SEQUENCE_NUMBER" };
  const after = (StartingSequenceNumber: string) =>
    ask("GetShardIterator", { ...iterator, StartingSequenceNumber });
  await assert.rejects(after(old), /InvalidArgumentException.*did not come from this stream/);
  await after(own);
});

test("nor is it the stream of the old one's StreamCreationTimestamp, which SDKs cut to whole seconds", async (t) => {
  const { ask, makeAnew } = await open(t);
  const created = async (): Promise<number> => {
    type Answer = { StreamDescriptionSummary: { StreamCreationTimestamp: number } };
    const { StreamDescriptionSummary } = await ask<Answer>("DescribeStreamSummary", { StreamName });
    return Math.floor(StreamDescriptionSummary.StreamCreationTimestamp);
  };
  const StreamCreationTimestamp = await created();
  await makeAnew();
  await assert.rejects(
    ask("ListShards", { StreamName, StreamCreationTimestamp }),
    /ResourceNotFoundException/,
  );
  await ask("ListShards", { StreamName, StreamCreationTimestamp: await created() });
});
