/** Who comes to the same place of a shard at the same moment shares the read; others have their own. */
import assert from "node:assert/strict";
import test from "node:test";
import { SharedReads } from "../../../../../gateway/api/kinesis/push/shared-reads.ts";
import type { ReadResult } from "../../../../../gateway/streams/streams.ts";
import { oldGarbageOf, PROMISES_BYTES } from "../../../../support/old-garbage.ts";

const result = (next: number): ReadResult => ({ parts: [], next, behindMs: 0, trimmed: 0, ended: false });

test("a read that is under way is shared by those of the shard who ask for the same place", async () => {
  const shared = new SharedReads();
  const asked: { readonly from: number; readonly answer: (result: ReadResult) => void }[] = [];
  const read = (from: number) => new Promise<ReadResult>((resolve) => asked.push({ from, answer: resolve }));
  const [a, b] = [shared.join("stream", 1, read), shared.join("stream", 1, read)];
  const others = [shared.join("stream", 2, read), shared.join("another", 1, read)];
  const results = [a.read(5), b.read(6), b.read(5), ...others.map((other) => other.read(5))];
  assert.deepEqual(
    asked.map(({ from }) => from),
    [5, 6, 5, 5],
  );
  for (const { from, answer } of asked) answer(result(from + 10));
  assert.deepEqual(
    (await Promise.all(results)).map(({ next }) => next),
    [15, 16, 15, 15, 15],
  );
  assert.equal(await results[0], await results[2], "the same result, so that its event is encoded once");
  void b.read(5);
  assert.equal(asked.length, 5, "it is read again once the first is done");
});

test("a read is released when the last of those who share it has done so", async () => {
  const shared = new SharedReads();
  let released = 0;
  const { read } = shared.join("stream", 0, async (from) => {
    await new Promise((resolve) => setImmediate(resolve));
    return { ...result(from), release: () => void released++ };
  });
  const [one, two, three] = await Promise.all([read(3), read(3), read(3)]);
  one.release!();
  three.release!();
  assert.equal(released, 0, "one of them still looks at it");
  two.release!();
  assert.equal(released, 1);
  (await read(3)).release!();
  assert.equal(released, 2, "a later read is another one");
});

test("a read that fails fails for all who share it, and for nobody who comes later", async () => {
  const shared = new SharedReads();
  let fails = true;
  const { read } = shared.join("stream", 0, async (from) => {
    await new Promise((resolve) => setImmediate(resolve));
    if (fails) throw new Error("the disk");
    return result(from);
  });
  const both = [read(3), read(3)];
  for (const each of both) await assert.rejects(each, /the disk/);
  fails = false;
  assert.equal((await read(3)).next, 3);
});

test("nothing is kept of shards that nobody subscribes to", async () => {
  const shared = new SharedReads();
  const members = [0, 0, 1].map((shard) => shared.join("stream", shard, async (from) => result(from)));
  assert.equal(shared.shards, 2);
  await members[0]!.read(1);
  for (const member of members) member.leave();
  assert.equal(shared.shards, 0);
});

test("sharing leaves nothing for collections of the whole heap", async () => {
  const { read } = new SharedReads().join("stream", 0, async (from) => result(from));
  const bytes = await oldGarbageOf((i) => read(i));
  assert.ok(bytes < PROMISES_BYTES, `${bytes} bytes each`);
});
