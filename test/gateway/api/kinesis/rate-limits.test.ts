/** What a shard may take and give in a second, by a clock that is turned by hand. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { admitPuts, type KnownShards } from "../../../../gateway/api/kinesis/puts/put-limits.ts";
import { ShardRates } from "../../../../gateway/api/kinesis/rate-limits.ts";
import type { PutColumns, StreamSettings } from "../../../../gateway/streams/streams.ts";
import type { Clock } from "../../../../runtime/clock.ts";
import { collectGarbage } from "../../../support/held-memory.ts";
import { eventually } from "../../../support/program.ts";

class StillClock implements Clock {
  ms = 5_000;
  nowUs(): number {
    return this.ms * 1000;
  }
  monotonicMs(): number {
    return this.ms;
  }
}

const open = () => {
  const clock = new StillClock();
  return { clock, rates: new ShardRates(clock) };
};

test("a shard takes 1,000 records a second, another shard as many again", () => {
  const { clock, rates } = open();
  const taken = (shard: number, tries: number): number => {
    let count = 0;
    for (let i = 0; i < tries; i++) if (rates.admitRecord("s", shard, 1)) count++;
    return count;
  };
  assert.equal(taken(0, 1_500), 1_000);
  assert.equal(taken(1, 1_500), 1_000);
  clock.ms += 500;
  assert.equal(taken(0, 1_500), 500);
  clock.ms += 60_000;
  assert.equal(taken(0, 1_500), 1_000, "an idle minute saves up no more than a second");
});

test("a shard takes 1 MiB a second, and a record of more when it was idle", () => {
  const { clock, rates } = open();
  assert.ok(rates.admitRecord("s", 0, 1_048_576));
  assert.ok(!rates.admitRecord("s", 0, 1));
  clock.ms += 1_000;
  assert.ok(rates.admitRecord("s", 0, 5 * 1_048_576));
  clock.ms += 4_000;
  assert.ok(!rates.admitRecord("s", 0, 1));
  clock.ms += 1_000;
  assert.ok(rates.admitRecord("s", 0, 1_048_576));
});

test("a shard is read 5 times a second, and not at all for 5 seconds after 10 MiB", () => {
  const { clock, rates } = open();
  const reads = (): number => Array.from({ length: 9 }, () => rates.admitRead("s", 0)).filter(Boolean).length;
  assert.equal(reads(), 5);
  clock.ms += 1_000;
  assert.ok(rates.admitRead("s", 0));
  rates.countRead("s", 0, 10 * 1_048_576);
  clock.ms += 4_900;
  assert.equal(reads(), 0);
  clock.ms += 100;
  assert.equal(reads(), 5);
});

test("over any time no more comes through than a second's worth beyond the rate", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ waitMs: fc.nat(700), bytes: fc.integer({ min: 1, max: 400_000 }) }), {
        maxLength: 80,
      }),
      (steps) => {
        const { clock, rates } = open();
        const from = clock.ms;
        let bytes = 0;
        for (const step of steps) {
          clock.ms += step.waitMs;
          if (rates.admitRecord("s", 0, step.bytes)) bytes += step.bytes;
        }
        const seconds = (clock.ms - from) / 1000;
        assert.ok(bytes <= (1 + seconds) * 1_048_576 + 1);
      },
    ),
  );
});

test("shards that are idle are forgotten", () => {
  const { clock, rates } = open();
  for (let i = 0; i < 5_000; i++) rates.admitRecord("s", i, 1);
  assert.equal(rates.size, 5_000);
  clock.ms += 16_000;
  rates.admitRecord("s", 1, 1);
  clock.ms += 16_000;
  rates.admitRecord("s", 1, 1);
  assert.ok(rates.size <= 2, `${rates.size}`);
});

test("refused records are left out of a put, the others keep their order, hashes and bytes", () => {
  const { rates } = open();
  const half = 1n << 127n;
  const shard = (index: number, hashFrom: bigint, hashTo: bigint, closedMs?: number) => ({
    index,
    hashFrom,
    hashTo,
    closedMs,
  });
  const shardList = [
    shard(0, 0n, 2n * half - 1n, 1),
    shard(1, 0n, half - 1n),
    shard(2, half, 2n * half - 1n),
  ];
  const stream = { name: "s", streamId: "s" } as StreamSettings;
  const streams = {
    describe: () => ({ ...stream, shardList }),
    shard: (_name: string, index: number) => shardList[index],
  } as unknown as KnownShards;
  // The first shard has room for 600,000 bytes only.
  rates.admitRecord("s", 1, 1_048_576 - 600_000);
  const sizes = [300_000, 290_000, 400_000, 1_000];
  const hashes = [0n, 1n, half, 2n];
  const ends = new Uint32Array(sizes.length);
  let at = 0;
  const pieces = sizes.map((size, i) => {
    at += size;
    ends[i] = at;
    return Buffer.alloc(size, i);
  });
  const columns: PutColumns = {
    count: 4,
    keys: ["a", "b", "c", "d"],
    hashes,
    data: Buffer.concat(pieces),
    ends,
  };
  const all = admitPuts(rates, streams, stream, columns);
  assert.equal(all.refused, 0);
  assert.equal(all.columns, columns);
  const again = admitPuts(rates, streams, stream, columns);
  assert.deepEqual([...again.refusedBy], [1, 1, -1, -1], "the small one still has room");
  assert.deepEqual(again.columns.keys, ["c", "d"]);
  assert.deepEqual(again.columns.hashes, [half, 2n]);
  assert.ok(again.columns.data.equals(Buffer.concat([pieces[2]!, pieces[3]!])));
  assert.deepEqual([...again.columns.ends], [400_000, 401_000]);
});

test("what a read gave is not kept for the next one in turn", async () => {
  const { rates } = open();
  // By a function of its own, which leaves nothing on the stack.
  const read = async (shard: number): Promise<WeakRef<object>> =>
    new WeakRef((await rates.readInTurn("s", shard, async () => Buffer.alloc(1_048_576))).buffer);
  const given = [await read(0), await read(1), await read(2)];
  await eventually("it is collected", 10_000, async () => {
    collectGarbage();
    return given.every((one) => one.deref() === undefined) || undefined;
  });
  assert.equal(rates.size, 3, "their shards are remembered");
});
