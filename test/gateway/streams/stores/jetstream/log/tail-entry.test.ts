/** What is kept of the messages that were needed last, by all streams together. */
import assert from "node:assert/strict";
import test from "node:test";
import { encodeEntry, runsOf } from "../../../../../../gateway/streams/stores/jetstream/log/entry.ts";
import {
  ShardHistory,
  shardRecord,
} from "../../../../../../gateway/streams/stores/jetstream/log/shard-history.ts";
import {
  CacheRoom,
  EntryCache,
  openMessage,
  type TailEntry,
} from "../../../../../../gateway/streams/stores/jetstream/log/tail-entry.ts";
import { MAX_HASH } from "../../../../../../gateway/streams/streams.ts";

const history = new ShardHistory("s", {
  version: 1,
  shards: [shardRecord(0, { hashFrom: 0n, hashTo: MAX_HASH }, 0)],
});

function entryOf(sequence: number): TailEntry {
  const payload = encodeEntry(1, runsOf([{ key: "k", timeUs: 1, payload: Buffer.alloc(100) }]));
  return openMessage(history, { sequence, subject: "", payload, header: () => "" });
}

test("streams keep so much together, not each; what was put in first leaves first", () => {
  const each = entryOf(1).bytes;
  // A small message is mostly what JavaScript needs for it.
  assert.ok(each > 1_000, `${each} bytes`);
  const room = new CacheRoom(4 * each);
  const caches = Array.from({ length: 3 }, () => new EntryCache(room));
  const kept = (cache: EntryCache): number[] =>
    [1, 2, 3, 4].filter((sequence) => cache.get(sequence) !== undefined);
  for (let sequence = 1; sequence <= 2; sequence++) for (const cache of caches) cache.keep(entryOf(sequence));
  assert.equal(room.bytes, 4 * each);
  assert.deepEqual(caches.map(kept), [[2], [2], [1, 2]]);
  caches[0]!.keep(entryOf(2));
  assert.equal(room.bytes, 4 * each);
  caches[2]!.clear();
  assert.equal(room.bytes, 2 * each);
  for (let sequence = 3; sequence <= 4; sequence++) caches[1]!.keep(entryOf(sequence));
  assert.deepEqual(caches.map(kept), [[2], [2, 3, 4], []]);
});
