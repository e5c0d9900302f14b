/** What a crash in the middle of making or deleting a stream leaves, and what LevelDB may have lost. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { promisify } from "node:util";
import { Level } from "level";
import { Metadata } from "../../../../../gateway/streams/stores/local/metadata.ts";
import { verifyLocalStreams } from "../../../../../gateway/streams/stores/local/verify.ts";
import { nodeFlags, scriptPath } from "../../../../support/script.ts";
import { makeLocalPlace } from "./local-place.ts";

const SHARD_0 = "shardId-000000000000";

async function withMetadata(dir: string, body: (metadata: Metadata) => Promise<void>): Promise<void> {
  const metadata = await Metadata.open(dir);
  try {
    await body(metadata);
  } finally {
    await metadata.close();
  }
}

test("a stream whose making a crash cut off is removed, and its name is free", async () => {
  const place = await makeLocalPlace();
  try {
    await (await place.open()).close();
    const streamId = "0123456789abcdef0123456789abcdef";
    await withMetadata(place.dir, (metadata) => metadata.beginStream(streamId, "s"));
    await mkdir(join(place.dir, "logs", streamId));
    await writeFile(join(place.dir, "logs", streamId, "0000000000000000.log"), "half");
    const streams = await place.open();
    assert.deepEqual(streams.listStreams(), []);
    assert.deepEqual(await readdir(join(place.dir, "logs")), []);
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await streams.close();
  } finally {
    await place.remove();
  }
});

test("a deletion that is refused for want of a descriptor is none at the next start either", async () => {
  const place = await makeLocalPlace();
  try {
    const script = scriptPath("./no-descriptors.ts", import.meta.url);
    const command = ["-c", 'ulimit -n 256; exec "$@"', "sh", process.execPath, ...nodeFlags, script];
    const { stdout } = await promisify(execFile)("sh", [...command, place.dir]);
    assert.match(stdout, /all there/);
  } finally {
    await place.remove();
  }
});

test("a deletion that a crash cut off is finished", async () => {
  const place = await makeLocalPlace();
  try {
    let streams = await place.open();
    const { streamId } = await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await (await streams.openConsumer("s", "c")).checkpoint(new Map([[SHARD_0, 0]]));
    await streams.close();
    await withMetadata(place.dir, (metadata) => metadata.condemnStream(streamId));
    streams = await place.open();
    assert.deepEqual(streams.listStreams(), []);
    await streams.close();
    await withMetadata(place.dir, async (metadata) => {
      assert.deepEqual(metadata.unfinished(), []);
      assert.deepEqual(await metadata.consumers(streamId), []);
    });
    assert.deepEqual(await readdir(join(place.dir, "logs")), []);
  } finally {
    await place.remove();
  }
});

test("a deletion for which the full disk had room for a name alone is finished after a crash", async (t) => {
  const place = await makeLocalPlace();
  t.after(() => place.remove());
  let streams = await place.open();
  const { streamId } = await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await streams.close();
  await writeFile(join(place.dir, "logs", `${streamId}.deleted`), "");
  assert.deepEqual((await verifyLocalStreams(place.dir)).findings, []);
  streams = await place.open();
  assert.deepEqual(streams.listStreams(), []);
  assert.deepEqual(await readdir(join(place.dir, "logs")), []);
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await streams.close();
  streams = await place.open();
  assert.deepEqual(streams.listStreams(), ["s"]);
  await streams.close();
});

test("a stream that was deleted in a name alone stays so while streams.json cannot be written, and keeps no other from it", async (t) => {
  const place = await makeLocalPlace();
  t.after(() => place.remove());
  let streams = await place.open();
  const { streamId } = await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await streams.createStream({ name: "t", shards: 1, retentionHours: 24 });
  await streams.close();
  await writeFile(join(place.dir, "logs", `${streamId}.deleted`), "");
  const obstacle = join(place.dir, "streams.json.tmp");
  await mkdir(obstacle);
  for (let starts = 0; starts < 2; starts++) {
    streams = await place.open();
    assert.deepEqual(streams.listStreams(), ["t"]);
    await streams.close();
  }
  await rm(obstacle, { recursive: true });
  streams = await place.open();
  assert.deepEqual(streams.listStreams(), ["t"]);
  await streams.close();
  await withMetadata(place.dir, async (metadata) => assert.deepEqual(metadata.unfinished(), []));
  assert.equal((await readdir(join(place.dir, "logs"))).length, 1);
});

test("a deletion that the disk refused does not happen later", async (t) => {
  const place = await makeLocalPlace();
  t.after(() => place.remove());
  let streams = await place.open();
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await streams.append("s", [{ partitionKey: "k", data: Buffer.from("kept") }]);
  // What stands in the way of writing streams.json.
  const obstacle = join(place.dir, "streams.json.tmp");
  await mkdir(obstacle);
  await assert.rejects(streams.deleteStream("s"), { code: "DATABASE_WRITE_FAILED" });
  await assert.rejects(streams.createStream({ name: "u", shards: 1, retentionHours: 24 }), {
    code: "DATABASE_WRITE_FAILED",
  });
  await rm(obstacle, { recursive: true });
  await streams.createStream({ name: "t", shards: 1, retentionHours: 24 });
  await streams.close();
  streams = await place.open();
  assert.deepEqual(streams.listStreams(), ["s", "t"]);
  assert.equal(streams.describe("s").shardList[0]!.latest, 1);
  await streams.close();
  await withMetadata(place.dir, async (metadata) => assert.deepEqual(metadata.unfinished(), []));
});

test("a database that lost a stream, gained one or changed a value is refused", async () => {
  const changes: Array<[string, (db: Level<string, string>) => Promise<void>, RegExp]> = [
    ["lost", (db) => db.clear(), /stream s is missing from meta/],
    [
      "changed",
      async (db) => {
        for await (const [key, value] of db.iterator()) await db.put(key, value.replace("24", "25"));
      },
      /the checksum of stream\/[0-9a-f]{32} does not match/,
    ],
    [
      "moved",
      async (db) => {
        for await (const [key, value] of db.iterator()) await db.put(`${key}0`, value);
      },
      /the checksum of/,
    ],
  ];
  for (const [what, change, message] of changes) {
    const place = await makeLocalPlace();
    try {
      const streams = await place.open();
      await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
      await streams.close();
      const db = new Level<string, string>(join(place.dir, "meta"));
      await change(db);
      await db.close();
      await assert.rejects(place.open(), { code: "STREAM_METADATA_DAMAGED", message }, what);
      // Refused again, not healed by the first try.
      await assert.rejects(place.open(), { code: "STREAM_METADATA_DAMAGED" }, what);
    } finally {
      await place.remove();
    }
  }
});

test("a byte of the metadata that flips is told, by a start and by --verify, and what was there is not forgotten in silence", async (t) => {
  const place = await makeLocalPlace();
  t.after(() => place.remove());
  let streams = await place.open();
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  await streams.close();
  // A start puts what was there into a table. What comes from here on stands in LevelDB's log alone.
  streams = await place.open();
  await streams.updateStream("s", { retentionHours: 168 });
  await streams.registerReader("s", "fan", {});
  await streams.splitShard("s", SHARD_0, 1n << 100n);
  await streams.close();
  const name = (await readdir(join(place.dir, "meta"))).find((one) => one.endsWith(".log"))!;
  const path = join(place.dir, "meta", name);
  const sound = await readFile(path);
  for (let at = 0; at < sound.length; at += 1 + Math.floor(sound.length / 20)) {
    const bytes = Buffer.from(sound);
    bytes[at]! ^= 0x10;
    await writeFile(path, bytes);
    const [finding] = (await verifyLocalStreams(place.dir)).findings;
    assert.match(finding?.detail ?? "nothing", /meta\/\d+\.log is damaged at byte \d+/, `byte ${at}`);
    await assert.rejects(place.open(), { code: "STREAM_METADATA_DAMAGED" }, `byte ${at}`);
  }
  await writeFile(path, sound);
  streams = await place.open();
  assert.equal(streams.settings("s").retentionHours, 168);
  assert.equal(streams.describe("s").shardList.length, 3);
  await streams.close();
});
