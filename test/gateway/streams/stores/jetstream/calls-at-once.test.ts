/** Calls that look at a stream before they change it, to two gateways in front of one cluster at the same moment, or one behind the other. */
import assert from "node:assert/strict";
import { deleteStream } from "../../../../../gateway/api/kinesis/manage/manage-streams.ts";
import { registerStreamConsumer } from "../../../../../gateway/api/kinesis/manage/stream-consumers.ts";
import {
  decreaseStreamRetentionPeriod,
  increaseStreamRetentionPeriod,
} from "../../../../../gateway/api/kinesis/manage/stream-settings.ts";
import type { KinesisContext } from "../../../../../gateway/api/kinesis/operation.ts";
import { clusterFact as fact, until } from "./cluster-fact.ts";
import { contextOf } from "./kinesis-context.ts";

const ROUNDS = 5;
const MAX_CONSUMERS = 20;

/** How many succeed, and what the others are refused with. */
async function outcomes(calls: readonly unknown[]): Promise<{ done: number; refused: string[] }> {
  const all = await Promise.allSettled(calls);
  const failed = all.flatMap((one) => (one.status === "rejected" ? [one.reason.type ?? one.reason] : []));
  return { done: all.length - failed.length, refused: failed };
}

fact("a stream gets no more registered consumers than it may have", async ({ open }) => {
  const both = [await open(), await open()];
  const contexts = both.map(contextOf);
  const StreamARN = contexts[0]!.account.arnOf("s");
  await both[0]!.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await until(() => both[1]!.listStreams().includes("s"));
  for (let i = 1; i < MAX_CONSUMERS; i++) await both[0]!.registerReader("s", `reader${i}`, {});
  await until(() => both[1]!.registeredReaders("s").length === MAX_CONSUMERS - 1);
  const register = (context: KinesisContext, i: number) =>
    registerStreamConsumer(context, { StreamARN, ConsumerName: `last${i}` });
  assert.deepEqual(await outcomes(contexts.map(register)), { done: 1, refused: ["LimitExceededException"] });
  assert.equal((await open()).registeredReaders("s").length, MAX_CONSUMERS);
});

fact("no stream is deleted with a consumer that was just registered, unless that is said", async (ground) => {
  const both = [await ground.open(), await ground.open()];
  const [a, b] = both.map(contextOf) as [KinesisContext, KinesisContext];
  for (let i = 0; i < ROUNDS; i++) {
    const name = `s${i}`;
    await both[0]!.createStream({ name, shards: 1, retentionHours: 24 });
    await until(() => both[1]!.listStreams().includes(name));
    const { done, refused } = await outcomes([
      registerStreamConsumer(a, { StreamARN: a.account.arnOf(name), ConsumerName: "reader" }),
      deleteStream(b, { StreamName: name }),
    ]);
    assert.equal(done, 1);
    assert.match(refused[0]!, /^(ResourceInUseException|ResourceNotFoundException)$/);
    await until(() => both[0]!.listStreams().includes(name) === both[1]!.listStreams().includes(name));
    assert.equal(both[0]!.listStreams().includes(name), refused[0] === "ResourceInUseException");
  }
});

fact(
  "a retention that another gateway has just raised is not cut by a call that raises it",
  async (ground) => {
    const both = [await ground.open(), await ground.open()];
    const [a, b] = both.map(contextOf) as [KinesisContext, KinesisContext];
    const raise = (context: KinesisContext, StreamName: string, RetentionPeriodHours: number) =>
      increaseStreamRetentionPeriod(context, { StreamName, RetentionPeriodHours });
    for (let i = 0; i < ROUNDS; i++) {
      const name = `s${i}`;
      await both[0]!.createStream({ name, shards: 1, retentionHours: 24 });
      await until(() => both[1]!.listStreams().includes(name));
      await raise(a, name, 500);
      assert.deepEqual(await outcomes([raise(b, name, 48)]), {
        done: 0,
        refused: ["InvalidArgumentException"],
      });
      assert.equal((await ground.open()).settings(name).retentionHours, 500);
      // By the gateway that heard of it last, too.
      await raise(a, name, 600);
      await decreaseStreamRetentionPeriod(b, { StreamName: name, RetentionPeriodHours: 550 });
      await outcomes([raise(a, name, 700), raise(b, name, 650)]);
      assert.equal((await ground.open()).settings(name).retentionHours, 700);
    }
  },
);
