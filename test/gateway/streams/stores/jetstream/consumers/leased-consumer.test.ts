/** Which shards a consumer may read while its gateway lags behind another one that splits them. */
import assert from "node:assert/strict";
import { once } from "node:events";
import test, { mock } from "node:test";
import {
  LeasedConsumer,
  type LeasedConsumerOptions,
} from "../../../../../../gateway/streams/stores/jetstream/consumers/leased-consumer.ts";
import {
  encodeEntry,
  offsetOf,
  runsOf,
} from "../../../../../../gateway/streams/stores/jetstream/log/entry.ts";
import { ShardEnds } from "../../../../../../gateway/streams/stores/jetstream/log/shard-ends.ts";
import {
  type MapContent,
  ShardHistory,
  shardRecord,
} from "../../../../../../gateway/streams/stores/jetstream/log/shard-history.ts";
import { openMessage } from "../../../../../../gateway/streams/stores/jetstream/log/tail-entry.ts";
import { MAX_HASH } from "../../../../../../gateway/streams/streams.ts";
import { systemClock } from "../../../../../../runtime/clock.ts";
import { silentLog } from "../../../../../../runtime/log.ts";

const [PARENT, LOW, HIGH] = [0, 1, 2].map(
  (index) => shardRecord(index, { hashFrom: 0n, hashTo: MAX_HASH }, 0).shardId,
);

function open(documents: object = {}) {
  const map: MapContent = { version: 1, shards: [shardRecord(0, { hashFrom: 0n, hashTo: MAX_HASH }, 0)] };
  const history = new ShardHistory("s", map);
  const ends = new ShardEnds(systemClock);
  let moved = (): void => undefined;
  const next = (): Promise<void> =>
    new Promise((resolve) => {
      moved = resolve;
    });
  const tail = { history, ends, tip: 100, firstSequence: 1, closed: false, next };
  ends.begin(100);
  /** A message that the gateway takes at its tip. */
  const take = (sequence: number): void => {
    const payload = encodeEntry(1, runsOf([{ key: "k", timeUs: 1, payload: Buffer.from("x") }]));
    ends.take(openMessage(history, { sequence, subject: "", payload, header: () => "" }), tail.firstSequence);
    tail.tip = sequence;
    moved();
  };
  let revision = 1;
  const options = {
    documents: { put: async () => ++revision, ...documents },
    tail,
    clock: systemClock,
    log: silentLog,
    stream: "s",
    name: "c",
    key: "c.c",
    owner: "me",
    signal: new AbortController().signal,
    takeOver: false,
    released: () => undefined,
  } as unknown as LeasedConsumerOptions;
  const record = { name: "c", owner: "me", beat: 0, positions: {} };
  return { history, tail, ends, take, consumer: new LeasedConsumer(options, record, 1) };
}

test("a split that the list of streams tells before the parent's last records are here leaves the parent to be read", async () => {
  const { history, tail, take, consumer } = open();
  take(120);
  await consumer.checkpoint(new Map([[PARENT!, offsetOf(120, 1)]]));
  const split = history.split(PARENT!, 2n ** 127n, 5_000);
  const placed = split.shards.map((shard) => ({
    ...shard,
    openedAt: shard.openedAt === -1 ? 150 : shard.openedAt,
    ...(shard.closedAt !== undefined && { closedAt: 150 }),
  }));
  history.adopt({ ...split, shards: placed }, 0);
  assert.deepEqual(consumer.shards, [PARENT]);
  take(149);
  assert.deepEqual(consumer.shards, [PARENT]);
  tail.tip = 150;
  assert.deepEqual(consumer.shards, [PARENT]);
  // Behind the newest record nothing is left to read, though the shard ends later.
  await consumer.checkpoint(new Map([[PARENT!, offsetOf(149, 1)]]));
  assert.deepEqual(consumer.shards, [LOW, HIGH]);
  // What was read while the end was not known yet goes as far as the place where it was closed.
  await consumer.checkpoint(new Map([[PARENT!, offsetOf(150)]]));
  await assert.rejects(consumer.checkpoint(new Map([[PARENT!, offsetOf(150, 1)]])), {
    code: "BAD_CHECKPOINT",
  });
  await consumer.close();
});

test("what a consumer still had on its way at its end is not written over its next holder's", async () => {
  const refused = new AbortController();
  const written: unknown[] = [];
  let isLooked: () => void;
  const looked = new Promise<void>((resolve) => {
    isLooked = resolve;
  });
  const { consumer } = open({
    put: async (_: string, value: unknown) => {
      written.push(value);
      await once(refused.signal, "abort");
    },
    // Another consumer of this gateway, which has written as often.
    get: async () => {
      setImmediate(isLooked);
      return { revision: 7, value: { name: "c", owner: "me", beat: 0, positions: {} } };
    },
  });
  // No answer for so long that it ends by itself.
  await consumer.close();
  assert.ok(consumer.lost.aborted);
  refused.abort();
  await looked;
  assert.equal(written.length, 1);
});

test("who waits for a consumer's shards to change looks at them again when they may have, not at each message", async () => {
  const { history, ends, take, consumer } = open();
  take(120);
  await consumer.checkpoint(new Map([[PARENT!, offsetOf(120, 1)]]));
  const place = (map: MapContent, at: number): MapContent => ({
    ...map,
    shards: map.shards.map((shard) => ({
      ...shard,
      openedAt: shard.openedAt === -1 ? at : shard.openedAt,
      ...(shard.closedAt === -1 && { closedAt: at }),
    })),
  });
  history.adopt(place(history.split(PARENT!, 2n ** 127n, 5_000), 150), 0);
  const isChanged = consumer.changed(new AbortController().signal);
  take(149);
  await new Promise(setImmediate);
  take(151);
  await new Promise(setImmediate);
  await consumer.checkpoint(new Map([[PARENT!, offsetOf(149, 1)]]));
  take(152);
  await isChanged;
  assert.deepEqual(consumer.shards, [LOW, HIGH]);
  const looked = mock.method(ends, "latest");
  const again = new AbortController();
  const waiting = consumer.changed(again.signal);
  for (let sequence = 153; sequence < 200; sequence++) {
    take(sequence);
    await new Promise(setImmediate);
  }
  // Each message that is taken is one of them itself.
  assert.ok(looked.mock.callCount() <= 47 + 2, `${looked.mock.callCount()} looks`);
  history.adopt(place(history.split(LOW!, 2n ** 126n, 6_000), 200), 0);
  take(201);
  await consumer.checkpoint(new Map([[LOW!, offsetOf(200)]]));
  take(202);
  await waiting;
  again.abort();
  assert.equal(consumer.shards.length, 3);
  await consumer.close();
});
