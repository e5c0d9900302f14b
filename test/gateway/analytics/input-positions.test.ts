/** Where a statement goes on: its checkpoint's file, the consumer's checkpoint and the log, in all ways they can differ. */
import assert from "node:assert/strict";
import test from "node:test";
import { compare, InputPositions, readBefore } from "../../../gateway/analytics/input-positions.ts";

const shard = (shardId: string, trimHorizon: number, latest: number, ...parents: string[]) => ({
  shardId,
  parents,
  trimHorizon,
  latest,
});
const at = (positions: Record<string, number>) => new Map(Object.entries(positions));

/** As `compare`, in what can be written down. */
function compared(file: Record<string, number>, consumer: Record<string, number>, shards: Shards) {
  const { positions, ranges, skipped, lost } = compare(at(file), at(consumer), shards);
  return {
    positions: Object.fromEntries(positions),
    ranges: ranges.map(({ shardId, from, to }) => [shardId, from, to]),
    skipped,
    lost,
  };
}
type Shards = ReturnType<typeof shard>[];

test("a crash between the file and the consumer's checkpoint: it goes on where the file is", () => {
  const shards = [shard("a", 0, 100), shard("b", 0, 100)];
  assert.deepEqual(compared({ a: 70, b: 20 }, { a: 50, b: 20 }, shards), {
    positions: { a: 70, b: 20 },
    ranges: [],
    skipped: 0,
    lost: 0,
  });
  // All that there was is read.
  assert.deepEqual(compared({ a: 100 }, { a: 50 }, [shard("a", 0, 100)]).positions, { a: 100 });
});

test("a file that was put back: it goes on where the consumer is, and counts what the log still holds between", () => {
  const shards = [shard("a", 10, 100), shard("b", 30, 100), shard("c", 80, 100)];
  assert.deepEqual(compared({ a: 20, b: 20, c: 20 }, { a: 50, b: 50, c: 50 }, shards), {
    positions: { a: 50, b: 50, c: 50 },
    ranges: [
      ["a", 20, 50],
      ["b", 30, 50],
    ],
    skipped: 50,
    lost: 0,
  });
});

test("a file that knows nothing of a shard: what the consumer has read of it counts as skipped", () => {
  const { ranges, positions } = compared({}, { a: 50 }, [shard("a", 10, 100)]);
  assert.deepEqual([ranges, positions], [[["a", 10, 50]], { a: 50 }]);
});

test("the log lost its end: it goes on at the end that there is, and what is missing is counted", () => {
  const shards = [shard("a", 0, 60), shard("b", 0, 60)];
  assert.deepEqual(compared({ a: 70, b: 60 }, { a: 50, b: 50 }, shards), {
    positions: { a: 60, b: 60 },
    ranges: [],
    skipped: 0,
    lost: 10,
  });
});

test("a consumer that is beyond the end of a quiet shard has skipped nothing there", () => {
  const { ranges, skipped } = compared({ a: 50 }, { a: 80 }, [shard("a", 0, 50)]);
  assert.deepEqual([ranges, skipped], [[], 0]);
  assert.equal(compared({ a: 40 }, { a: 80 }, [shard("a", 0, 50)]).skipped, 10);
});

test("a file and a consumer that are both beyond the end of a quiet shard stay there, and nothing is lost", () => {
  assert.deepEqual(compared({ a: 80 }, { a: 80 }, [shard("a", 0, 50)]), {
    positions: { a: 80 },
    ranges: [],
    skipped: 0,
    lost: 0,
  });
});

test("a shard that the consumer may not read yet is not begun, whatever the file says of it", () => {
  const shards = [shard("a", 0, 100), shard("b", 0, 100, "a")];
  assert.deepEqual(compared({ a: 100, b: 120 }, { a: 100 }, shards), {
    positions: { a: 100 },
    ranges: [],
    skipped: 0,
    lost: 0,
  });
});

test("a shard that the consumer is through with is not gone back to, and what the file lacks of it is counted", () => {
  // It was read to its end and split; a child is read, the other one is to come behind a merge.
  const shards = [
    shard("a", 0, 100),
    shard("b", 0, 100, "a"),
    shard("other", 0, 90),
    shard("merged", 0, 100, "b", "other"),
  ];
  assert.deepEqual(compared({ a: 70, other: 20 }, { b: 5, other: 20 }, shards), {
    positions: { b: 5, other: 20 },
    ranges: [
      ["a", 70, 100],
      ["b", 0, 5],
    ],
    skipped: 35,
    lost: 0,
  });
  assert.deepEqual(compared({ a: 120, b: 5, other: 20 }, { b: 5, other: 20 }, shards).lost, 0);
});

test("only who has read something has read before", () => {
  assert.equal(readBefore(at({ a: 10 }), [shard("a", 10, 100)]), false);
  assert.equal(readBefore(at({ a: 11 }), [shard("a", 10, 100)]), true);
  assert.equal(readBefore(at({ b: 0 }), [shard("a", 0, 10), shard("b", 0, 10, "a")]), true);
});

test("the shard that was read last is the last in turn, and one at its end is not read again", () => {
  const input = new InputPositions(at({ a: 0, b: 0, c: 0 }), []);
  input.moved("a", 10, false);
  assert.deepEqual(input.unended(), ["b", "c", "a"]);
  input.moved("b", 20, true);
  assert.deepEqual(input.unended(), ["c", "a"]);
  assert.deepEqual([...input.open], [...at({ c: 0, a: 10, b: 20 })]);
});

test("what is read in a session does not move the consumer's own positions", () => {
  const consumer = at({ a: 0 });
  new InputPositions(consumer, [shard("a", 0, 10)]).moved("a", 10, false);
  assert.deepEqual(consumer, at({ a: 0 }));
});

test("the file says where shards ended for as long as the stream knows them, but not of those to come", () => {
  const parent = shard("a", 0, 100);
  const children = [shard("b", 0, 50, "a"), shard("c", 0, 40, "a")];
  const merged = shard("d", 0, 30, "b", "c");
  const input = new InputPositions(at({ b: 7, c: 40 }), [parent, ...children, merged]);
  assert.deepEqual(input.all(), at({ a: 100, b: 7, c: 40 }));

  // The consumer is through with one of them, and the parent expires.
  input.moved("c", 40, true);
  assert.deepEqual(input.follow(at({ b: 7 }), [...children, merged]), { come: [], gone: ["c"] });
  assert.deepEqual(input.all(), at({ b: 7, c: 40 }));
  assert.deepEqual(input.unended(), ["b"]);
  // None waits for a checkpoint any more.
  assert.equal(input.ended.size, 0);

  input.moved("b", 50, true);
  assert.deepEqual(input.follow(at({ d: 3 }), [...children, merged]), { come: ["d"], gone: ["b"] });
  assert.deepEqual(input.all(), at({ b: 50, c: 40, d: 3 }));
  assert.deepEqual(input.unended(), ["d"]);

  // Where it stands is not forgotten when nothing comes or goes, and not taken back.
  input.moved("d", 9, false);
  assert.deepEqual(input.follow(at({ d: 3 }), [merged]), { come: [], gone: [] });
  assert.deepEqual(input.open, at({ d: 9 }));
  // Shards that expired go from the file with the next change.
  assert.deepEqual(input.follow(at({ e: 0 }), [shard("e", 0, 0, "d")]), { come: ["e"], gone: ["d"] });
  assert.deepEqual(input.all(), at({ e: 0 }));
});
