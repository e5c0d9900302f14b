import assert from "node:assert/strict";
import test from "node:test";
import { lookForUnread } from "../../../gateway/streams/streams.ts";

const shard = (shardId: string, trimHorizon: number, latest: number, parents: string[] = []) => ({
  shardId,
  parents,
  trimHorizon,
  latest,
});

const consumerAt = (positions: Record<string, number>) => ({
  positions: () => new Map(Object.entries(positions)),
});

const NONE = new Map<string, number>();

test("what was unread of shards that are no more is missed, once; what was read is not", () => {
  const parent = shard("a", 0, 100);
  const child = shard("b", 0, 40, ["a"]);
  const first = lookForUnread(
    undefined,
    { streamId: "s", shardList: [parent, child] },
    consumerAt({ a: 30 }),
    new Map([["a", 50]]),
  );
  assert.deepEqual(first, { missed: 0, unread: { streamId: "s", shards: { a: [50, 100], b: [0, 40] } } });
  // As it comes back from a file.
  const before = JSON.parse(JSON.stringify(first.unread));
  const second = lookForUnread(before, { streamId: "s", shardList: [child] }, consumerAt({ b: 0 }), NONE);
  assert.deepEqual(second, { missed: 50, unread: { streamId: "s", shards: { b: [0, 40] } } });
  const again = lookForUnread(before, { streamId: "s", shardList: [child] }, consumerAt({ b: 0 }), NONE);
  assert.deepEqual(again, second, "a look changes nothing: what was not kept is seen once more");
  const third = lookForUnread(second.unread, { streamId: "s", shardList: [] }, consumerAt({}), NONE);
  assert.deepEqual(third, { missed: 40, unread: undefined });
});

test("where places are no count, the store's count of what was unread is missed, or the part of it that was", () => {
  const places = 1_310_720;
  const look = (latest: number) =>
    lookForUnread(
      undefined,
      { streamId: "s", shardList: [shard("a", 0, latest)] },
      consumerAt({ a: 0 }),
      NONE,
      (_, from, to) => (to - from) / 131_072,
    );
  const { unread } = look(places);
  assert.deepEqual(unread, { streamId: "s", shards: { a: [0, places, 10] } });
  const gone = { streamId: "s", shardList: [] };
  const missed = (reached: number): number =>
    lookForUnread(unread, gone, consumerAt({}), new Map([["a", reached]])).missed;
  assert.deepEqual([0, places / 2, places].map(missed), [10, 5, 0]);
});

test("a child that waits is missed from where it began, also when retention took the beginning since", () => {
  const parent = shard("a", 0, 10);
  const first = lookForUnread(
    undefined,
    { streamId: "s", shardList: [parent, shard("b", 0, 0, ["a"])] },
    consumerAt({ a: 10 }),
    NONE,
  );
  const second = lookForUnread(
    first.unread,
    { streamId: "s", shardList: [parent, shard("b", 70, 90, ["a"])] },
    consumerAt({ a: 10 }),
    NONE,
  );
  assert.equal(
    lookForUnread(second.unread, { streamId: "s", shardList: [] }, consumerAt({}), NONE).missed,
    90,
  );
});

test("a stream that was made anew is another one", () => {
  const first = lookForUnread(
    undefined,
    { streamId: "s", shardList: [shard("a", 0, 10)] },
    consumerAt({ a: 0 }),
    NONE,
  );
  const anew = lookForUnread(first.unread, { streamId: "t", shardList: [] }, consumerAt({}), NONE);
  assert.deepEqual(anew, { missed: 0, unread: undefined });
});
