/** What the metadata says once a full disk has room again, also after a crash: all that was acknowledged, and nothing that was refused. */
import assert from "node:assert/strict";
import { cp, open, rm } from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { SmallDisk } from "../../../../support/small-disk.ts";
import { type LocalPlace, makeLocalPlace } from "./local-place.ts";

const SHARD_0 = "shardId-000000000000";
const SHARDS = 500;
const DISK_BYTES = 48 * 1_048_576;

interface FullDisk {
  readonly place: LocalPlace;
  fill(): Promise<void>;
  makeRoom(): Promise<void>;
  /** The store's folder as a crash would leave it, elsewhere. */
  crashed(): Promise<LocalPlace>;
}

async function makeFullDisk(t: TestContext): Promise<FullDisk | undefined> {
  const disk = await SmallDisk.make(DISK_BYTES);
  if (typeof disk === "string") {
    t.skip(disk);
    return undefined;
  }
  t.after(() => disk.remove());
  const filler = join(disk.path, "filler");
  const place = await makeLocalPlace(join(disk.path, "streams"));
  return {
    place,
    async fill() {
      const file = await open(filler, "w");
      try {
        // What a large write leaves, smaller ones take.
        for (const bytes of [1_048_576, 4_096]) {
          const zeros = Buffer.alloc(bytes);
          await assert.rejects(
            async () => {
              for (;;) await file.appendFile(zeros);
            },
            { code: "ENOSPC" },
          );
          await file.datasync().catch(() => undefined);
        }
      } finally {
        await file.close();
      }
    },
    makeRoom: () => rm(filler),
    async crashed() {
      const copy = await makeLocalPlace();
      t.after(() => copy.remove());
      for (const name of ["format.json", "streams.json", "meta", "logs"]) {
        await cp(join(place.dir, name), join(copy.dir, name), { recursive: true });
      }
      return copy;
    },
  };
}

test("what is acknowledged after a full disk is there after a crash", async (t) => {
  const disk = await makeFullDisk(t);
  if (disk === undefined) return;
  const streams = await disk.place.open();
  t.after(() => streams.close());
  // So many that a checkpoint is larger than what the last block of a file has room for.
  await streams.createStream({ name: "s", shards: SHARDS, retentionHours: 24 });
  const consumer = await streams.openConsumer("s", "c");
  const record = { partitionKey: "k", explicitHash: 0n, data: Buffer.from("x") };
  await streams.append("s", Array<typeof record>(10).fill(record));
  await consumer.checkpoint(new Map([[SHARD_0, 1]]));

  await disk.fill();
  for (const position of [2, 3, 4]) {
    await assert.rejects(consumer.checkpoint(new Map([[SHARD_0, position]])));
  }
  assert.equal(
    (await streams.consumers("s"))[0]!.positions.get(SHARD_0),
    1,
    "what was refused does not count",
  );

  await disk.makeRoom();
  for (let position = 5; position <= 10; position++) {
    await consumer.checkpoint(new Map([[SHARD_0, position]]));
  }
  await streams.splitShard("s", SHARD_0, 1n);
  await streams.createStream({ name: "t", shards: 3, retentionHours: 24 });

  const copy = await disk.crashed();
  const found = await copy.open();
  t.after(() => found.close());
  assert.deepEqual(found.listStreams(), ["s", "t"]);
  assert.equal((await found.consumers("s"))[0]!.positions.get(SHARD_0), 10);
  const shards = found.describe("s").shardList;
  assert.equal(shards.length, SHARDS + 2);
  assert.deepEqual(
    shards.filter(({ closedMs }) => closedMs !== undefined).map(({ index }) => index),
    [0],
  );
});

test("a start on a full disk says that it is full, and not that anything is damaged", async (t) => {
  const disk = await makeFullDisk(t);
  if (disk === undefined) return;
  let streams = await disk.place.open();
  await streams.createStream({ name: "s", shards: SHARDS, retentionHours: 24 });
  await streams.close();
  await disk.fill();
  await assert.rejects(disk.place.open(), { code: "DATABASE_WRITE_FAILED", message: /No space left/ });
  await disk.makeRoom();
  streams = await disk.place.open();
  assert.equal(streams.describe("s").shardList.length, SHARDS);
  await streams.close();
});

test("on a full disk no stream is made, with an error that says so; one can be deleted, and gives its room back", async (t) => {
  const disk = await makeFullDisk(t);
  if (disk === undefined) return;
  const streams = await disk.place.open();
  t.after(() => streams.close());
  for (const name of ["s", "t"]) await streams.createStream({ name, shards: 1, retentionHours: 24 });
  const large = { partitionKey: "k", data: Buffer.alloc(1_000_000) };
  for (let i = 0; i < 12; i++) await streams.append("s", [large]);

  await disk.fill();
  for (let i = 0; i < 3; i++) {
    await assert.rejects(streams.createStream({ name: "u", shards: 1, retentionHours: 24 }), {
      code: /^(DATABASE_WRITE_FAILED|LOG_FULL)$/,
      retryable: true,
    });
    await assert.rejects(streams.append("t", [large]), { code: "LOG_FULL" });
  }
  await streams.deleteStream("s");
  assert.deepEqual(streams.listStreams(), ["t"]);
  // The log is repaired at the next append.
  const stored = (): Promise<boolean> =>
    streams.append("t", [large]).then(
      () => true,
      () => false,
    );
  for (const until = performance.now() + 60_000; !(await stored()); ) {
    assert.ok(performance.now() < until, "there is no room");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await streams.createStream({ name: "u", shards: 1, retentionHours: 24 });

  const copy = await disk.crashed();
  const found = await copy.open();
  t.after(() => found.close());
  assert.deepEqual(found.listStreams(), ["t", "u"]);
});
