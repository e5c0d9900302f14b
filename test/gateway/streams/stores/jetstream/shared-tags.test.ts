/** Tags that clients add by several gateways in front of one cluster, one after the other or at once. */
import assert from "node:assert/strict";
import { registerStreamConsumer } from "../../../../../gateway/api/kinesis/manage/stream-consumers.ts";
import {
  addTagsToStream,
  removeTagsFromStream,
  tagResource,
} from "../../../../../gateway/api/kinesis/manage/tags.ts";
import { clusterFact as fact, until } from "./cluster-fact.ts";
import { contextOf } from "./kinesis-context.ts";

fact(
  "of tags that are added and removed by two gateways none is lost and none comes back",
  async ({ open }) => {
    const [a, b] = [await open(), await open()];
    await a.createStream({ name: "s", shards: 1, retentionHours: 24, tags: { old: "x" } });
    await until(() => b.listStreams().includes("s"));
    const contexts = [contextOf(a), contextOf(b)];
    const wanted: Record<string, string> = {};
    for (let i = 0; i < 20; i++) {
      wanted[`k${i}`] = "v";
      await addTagsToStream(contexts[i % 2]!, { StreamName: "s", Tags: { [`k${i}`]: "v" } });
      if (i === 10) await removeTagsFromStream(contexts[1]!, { StreamName: "s", TagKeys: ["old"] });
    }
    assert.deepEqual((await open()).settings("s").tags, wanted);
    const at = Array.from({ length: 10 }, (_, i) => `at-once-${i}`);
    for (const key of at) wanted[key] = "v";
    await Promise.all(
      at.map((key, i) => addTagsToStream(contexts[i % 2]!, { StreamName: "s", Tags: { [key]: "v" } })),
    );
    assert.deepEqual((await open()).settings("s").tags, wanted);
  },
);

fact("the same of tags of a registered consumer", async ({ open }) => {
  const [a, b] = [await open(), await open()];
  await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await until(() => b.listStreams().includes("s"));
  const contexts = [contextOf(a), contextOf(b)];
  const StreamARN = contexts[0]!.account.arnOf("s");
  const answer = await registerStreamConsumer(contexts[0]!, { StreamARN, ConsumerName: "reader" });
  const { ConsumerARN } = (answer as { Consumer: { ConsumerARN: string } }).Consumer;
  await until(() => b.registeredReaders("s").length === 1);
  const wanted: Record<string, string> = {};
  for (let i = 0; i < 20; i++) {
    wanted[`k${i}`] = "v";
    await tagResource(contexts[i % 2]!, { ResourceARN: ConsumerARN, Tags: { [`k${i}`]: "v" } });
  }
  assert.deepEqual((await open()).registeredReaders("s")[0]!.tags, wanted);
});
