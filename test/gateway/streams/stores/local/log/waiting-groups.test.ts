/** Places that are given before anything is written: against a plain model, whatever is stored, refused or rolled. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { type Group, MAX_GROUP_BYTES } from "../../../../../../gateway/streams/stores/local/log/group.ts";
import {
  type AllWaiting,
  WaitingGroups,
} from "../../../../../../gateway/streams/stores/local/log/waiting-groups.ts";
import { ENTRY_KIND, entrySize } from "../../../../../../gateway/streams/stores/log-entry.ts";

const SEGMENT_BYTES = 5_000;
const SHARDS = 3;
const QUIET = { done() {}, failed() {} };

/** A disk and a log's end in a few lines: what `GroupWriter` and `LogEnd` do, without a file. */
class PlainLog {
  readonly active = { generation: 1, end: 64 };
  number = 1;
  records = 0;
  readonly next = [0, 0, 0];
  readonly waiting: WaitingGroups;

  constructor(maxWaitingBytes = 1e9, allWaiting?: AllWaiting) {
    const options = { name: "s", maxWaitingBytes, allWaiting, nowMs: () => 1_000 };
    this.waiting = new WaitingGroups(options, this, this, 0);
  }

  nextOffsets(): number[] {
    return [...this.next];
  }

  isFull(plannedBytes: number): boolean {
    return plannedBytes >= SEGMENT_BYTES;
  }

  add(shard: number, count: number, bytes: number): { first: number } {
    const routed = [{ shard, count, batch: Buffer.alloc(bytes) }];
    const size = entrySize(undefined, routed);
    this.waiting.admit(size, { silent: undefined });
    const { parts } = this.waiting.add(ENTRY_KIND.records, undefined, routed, size, QUIET);
    return parts[0]!;
  }

  /** Writes the oldest group; the places in it must follow what was written before. */
  storeOne(): Group | undefined {
    const group = this.waiting.oldest();
    if (group === undefined) return undefined;
    if (group.generation !== this.active.generation) this.#begin(group.generation);
    for (const entry of group.entries) {
      assert.equal(numberIn(group, entry.at), this.number++);
      for (const { shard, first, count } of entry.parts) {
        assert.equal(first, this.next[shard]);
        this.next[shard] = first + count;
        this.records += count;
      }
    }
    this.active.end += group.bytes;
    this.waiting.stored(group);
    return group;
  }

  fail(): void {
    this.waiting.dropAll();
    this.#begin(this.active.generation + 1);
    this.waiting.planAnew();
  }

  #begin(generation: number): void {
    this.active.generation = generation;
    this.active.end = 64;
    this.number++;
  }
}

/** As it is encoded: a u64 behind magic, checksum, version, sizes and generation. */
function numberIn(group: Group, at: number): number {
  return Number(group.contents.readBigUInt64BE(at + 24));
}

const step = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      what: fc.constant("add" as const),
      shard: fc.nat(SHARDS - 1),
      count: fc.integer({ min: 1, max: 9 }),
      bytes: fc.nat(2_000),
    }),
  },
  { weight: 2, arbitrary: fc.record({ what: fc.constant("store" as const) }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constantFrom("fail" as const, "roll" as const) }) },
);

test("what is stored follows what was stored before, through refusals and new segments", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const log = new PlainLog();
      let expected = log.nextOffsets();
      for (const each of steps) {
        if (each.what === "add") {
          assert.equal(log.add(each.shard, each.count, each.bytes).first, expected[each.shard]);
          expected[each.shard]! += each.count;
        } else if (each.what === "store") log.storeOne();
        else if (each.what === "roll") log.waiting.roll(QUIET);
        else {
          log.fail();
          expected = log.nextOffsets();
        }
        for (let shard = 0; shard < SHARDS; shard++) assert.equal(log.waiting.next(shard), expected[shard]);
      }
      while (log.storeOne() !== undefined);
      assert.deepEqual(log.next, expected);
      assert.equal(
        log.records,
        expected.reduce((sum, next) => sum + next, 0),
      );
    }),
  );
});

test("a group takes no more than its bytes; a larger entry is a group by itself", () => {
  const log = new PlainLog();
  log.add(0, 1, MAX_GROUP_BYTES - 1_000);
  log.add(0, 1, 2_000);
  log.add(0, 1, MAX_GROUP_BYTES + 1);
  log.add(0, 1, 1);
  const entries: number[] = [];
  for (let group = log.storeOne(); group !== undefined; group = log.storeOne())
    entries.push(group.entries.length);
  assert.deepEqual(entries, [1, 1, 1, 1]);
});

test("whoever comes after a refused one is refused too, until half of what waits is on disk", () => {
  const log = new PlainLog(10_000);
  log.add(0, 1, 3_000);
  const first = log.waiting.oldest()!;
  log.add(0, 1, 6_000);
  assert.throws(() => log.add(0, 1, 3_000), { code: "LOG_BUSY", retryable: true });
  assert.throws(() => log.add(0, 1, 1), { code: "LOG_BUSY" });
  assert.equal(log.storeOne(), first);
  assert.throws(() => log.add(0, 1, 1), { code: "LOG_BUSY" });
  log.storeOne();
  assert.equal(log.add(0, 1, 1).first, 2);
});

test("logs that share a bound refuse together, and take again when half of it is on disk or dropped", () => {
  const all = { maxBytes: 10_000, bytes: 0 };
  const [one, other, third] = [new PlainLog(1e9, all), new PlainLog(1e9, all), new PlainLog(1e9, all)];
  one.add(0, 1, 5_000);
  other.add(0, 1, 4_000);
  assert.throws(() => third.add(0, 1, 2_000), { code: "LOG_BUSY", retryable: true });
  // Nothing of its own waits, and yet a smaller one may not overtake.
  assert.throws(() => third.add(0, 1, 1), { code: "LOG_BUSY" });
  one.storeOne();
  assert.equal(third.add(0, 1, 2_000).first, 0);
  assert.throws(() => one.add(0, 1, 5_000), { code: "LOG_BUSY" });
  other.fail();
  assert.equal(one.add(0, 1, 5_000).first, 1);
  while (one.storeOne() !== undefined || third.storeOne() !== undefined);
  assert.equal(all.bytes, 0);
});

test("a single entry may be larger than what may wait", () => {
  const log = new PlainLog(1_000);
  assert.equal(log.add(0, 4, 5_000).first, 0);
  assert.throws(() => log.add(0, 1, 1), { code: "LOG_BUSY" });
});

test("arrival times never fall, and a log that is opened again goes on from its own", () => {
  const times = [50, 70, 60];
  const options = { name: "s", maxWaitingBytes: 1e9, nowMs: () => times.shift()! };
  const end = { number: 1, records: 0, nextOffsets: () => [] };
  const waiting = new WaitingGroups(
    options,
    end,
    { active: { generation: 1, end: 64 }, isFull: () => false },
    55,
  );
  const given = [1, 2, 3].map(() => waiting.add(ENTRY_KIND.records, undefined, [], 56, QUIET).arrivalMs);
  assert.deepEqual(given, [55, 70, 70]);
  assert.equal(waiting.arrivalMs, 70);
});

test("a log whose last segment is full goes on in a new one", () => {
  const options = { name: "s", maxWaitingBytes: 1e9, nowMs: () => 0 };
  const end = { number: 9, records: 0, nextOffsets: () => [] };
  const chain = { active: { generation: 1, end: 500 }, isFull: (bytes: number) => bytes >= 500 };
  const waiting = new WaitingGroups(options, end, chain, 0);
  waiting.add(ENTRY_KIND.records, undefined, [], 56, QUIET);
  const group = waiting.oldest()!;
  assert.notEqual(group.generation, 1);
  // The state entry of that segment has the number 9.
  assert.equal(numberIn(group, 0), 10);
});
