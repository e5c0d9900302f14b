/** What a power cut, a bad sector or a full disk leaves, and what the log makes of it. */
import assert from "node:assert/strict";
import { mkdir, open, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import test from "node:test";
import { realDisk } from "../../../../../gateway/streams/stores/local/log/segment-file.ts";
import { StreamLog } from "../../../../../gateway/streams/stores/local/log/stream-log.ts";
import type { LogFile } from "../../../../../gateway/streams/stores/local/segments/log-file.ts";
import { verifyLocalStreams } from "../../../../../gateway/streams/stores/local/verify.ts";
import { MAX_HASH, type Streams } from "../../../../../gateway/streams/streams.ts";
import { makeFrame, readAll } from "../../../../contract/streams.ts";
import { type LocalPlace, makeLocalPlace } from "./local-place.ts";
import { append, makeLogPlace, watchedDisk } from "./log/log-place.ts";

const SHARD_0 = "shardId-000000000000";

async function withPlace(body: (place: LocalPlace) => Promise<void>): Promise<void> {
  const place = await makeLocalPlace();
  try {
    await body(place);
  } finally {
    await place.remove();
  }
}

/** Ten frames, one group each: 1 to 10. */
async function fill(place: LocalPlace, segmentBytes?: number): Promise<void> {
  const streams = await place.open(segmentBytes === undefined ? {} : { segmentBytes });
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  for (let i = 1; i <= 10; i++) await streams.appendFrame(makeFrame("s", BigInt(i), [`text-${i}`]));
  await streams.close();
}

async function textsOf(streams: Streams): Promise<string[]> {
  return (await readAll(streams, "s", SHARD_0)).map(({ text }) => text);
}

function texts(...numbers: number[]): string[] {
  return numbers.map((number) => `text-${number}`);
}

/** Where `text` stands in a file. */
async function placeOf(path: string, text: string): Promise<number> {
  const at = (await readFile(path)).indexOf(text);
  assert.ok(at > 0);
  return at;
}

async function flip(path: string, at: number): Promise<void> {
  const file = await open(path, "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, at);
  byte[0]! ^= 0x40;
  await file.write(byte, 0, 1, at);
  await file.close();
}

test("a torn tail is cut at any byte, told, and appended to", async () => {
  await withPlace(async (place) => {
    await fill(place);
    const [path] = await place.segments();
    const whole = await readFile(path!);
    const last = whole.lastIndexOf("HWLE");
    for (const at of [last + 1, last + 30, last + 70, whole.length - 1]) {
      await writeFile(path!, whole.subarray(0, at));
      await rm(path!.replace(".log", ".idx"));
      place.logged.length = 0;
      const streams = await place.open();
      assert.deepEqual(place.logged, ["cut the rest of a write that never ended"]);
      assert.match(await place.metrics.render(), /headwater_log_torn_bytes_total\{stream="s"\} [1-9]/);
      assert.deepEqual(await textsOf(streams), texts(1, 2, 3, 4, 5, 6, 7, 8, 9));
      assert.equal(await streams.appendFrame(makeFrame("s", 10n, ["text-10"])), "stored");
      assert.deepEqual(await textsOf(streams), texts(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
      await streams.close();
    }
  });
});

test("a group of which the disk kept only the end was never stored", async () => {
  await withPlace(async (place) => {
    await fill(place);
    let streams = await place.open();
    await Promise.all([11n, 12n, 13n].map((n) => streams.appendFrame(makeFrame("s", n, [`text-${n}`]))));
    await streams.close();
    const [path] = await place.segments();
    await rm(path!.replace(".log", ".idx"));
    // A power cut may put the later pages of a write on the disk and not the first.
    await flip(path!, await placeOf(path!, "text-11"));
    streams = await place.open();
    assert.deepEqual(place.logged, ["cut the rest of a write that never ended"]);
    // None of the three was acknowledged; had the later ones stayed, the first would be taken for known.
    for (const n of [11n, 12n, 13n]) {
      assert.equal(await streams.appendFrame(makeFrame("s", n, [`text-${n}`])), "stored");
    }
    assert.deepEqual(await textsOf(streams), texts(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13));
    await streams.close();
  });
});

test("a flipped byte costs its entry alone, and is told", async () => {
  await withPlace(async (place) => {
    await fill(place);
    const [path] = await place.segments();
    await flip(path!, await placeOf(path!, "text-4"));
    const streams = await place.open();
    assert.deepEqual(place.logged, ["the log is damaged; what can be read is kept"]);
    assert.match(await place.metrics.render(), /headwater_log_damaged_bytes_total\{stream="s"\} [1-9]/);
    const records = await readAll(streams, "s", SHARD_0);
    assert.deepEqual(
      records.map(({ text }) => text),
      texts(1, 2, 3, 5, 6, 7, 8, 9, 10),
    );
    assert.deepEqual(
      records.map(({ offset }) => offset),
      [0, 1, 2, 4, 5, 6, 7, 8, 9],
    );
    assert.equal(await streams.appendFrame(makeFrame("s", 11n, ["text-11"])), "stored");
    assert.equal(streams.describe("s").shardList[0]!.latest, 11);
    await streams.close();
  });
});

test("damage is told once at each opening, in whichever segment it is, and reading over it tells nothing more", async () => {
  // One record a segment, and all in the last one.
  for (const segmentBytes of [1, undefined]) {
    await withPlace(async (place) => {
      await fill(place, segmentBytes);
      const paths = await place.segments();
      const files = await Promise.all(paths.map((path) => readFile(path)));
      const path = paths[files.findIndex((bytes) => bytes.includes("text-4"))]!;
      await flip(path, await placeOf(path, "text-4"));
      // What was found of an older segment is kept in its sidecar, which is made anew.
      if (path !== paths.at(-1)) await rm(path.replace(".log", ".idx"));
      for (let i = 0; i < 2; i++) {
        place.logged.length = 0;
        const streams = await place.open();
        assert.equal((await textsOf(streams)).length, 9);
        assert.deepEqual(place.logged, ["the log is damaged; what can be read is kept"]);
        await streams.close();
      }
    });
  }
});

test("a byte of the last group that flips while the log is closed is damage, not a torn tail", async () => {
  await withPlace(async (place) => {
    await fill(place);
    const [path] = await place.segments();
    await flip(path!, await placeOf(path!, "text-10"));
    const streams = await place.open();
    assert.deepEqual(place.logged, ["the log is damaged; what can be read is kept"]);
    assert.deepEqual(await textsOf(streams), texts(1, 2, 3, 4, 5, 6, 7, 8, 9));
    await streams.close();
  });
});

test("records beside a damaged one of the last group stay, also behind a crash in the middle of the next write", async () => {
  await withPlace(async (place) => {
    let streams = await place.open();
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    // One group.
    await Promise.all([1, 2, 3].map((n) => streams.appendFrame(makeFrame("s", BigInt(n), [`text-${n}`]))));
    await streams.close();
    const [path] = await place.segments();
    await flip(path!, await placeOf(path!, "text-1"));
    const { size } = await stat(path!);
    // What a write that was cut off left: nothing of its first sector, all of the second; or of an entry a piece.
    const next = (await readFile(path!)).subarray((await readFile(path!)).lastIndexOf("HWLE"));
    for (const torn of [Buffer.concat([Buffer.alloc(next.length), next]), next.subarray(0, 40)]) {
      await writeFile(path!, Buffer.concat([(await readFile(path!)).subarray(0, size), torn]));
      place.logged.length = 0;
      streams = await place.open();
      assert.deepEqual(await textsOf(streams), texts(2, 3));
      assert.deepEqual(place.logged, [
        "the log is damaged; what can be read is kept",
        "cut the rest of a write that never ended",
      ]);
      assert.equal(await streams.appendFrame(makeFrame("s", 3n, ["text-3"])), "duplicate");
      // Ended by a crash: nothing is written any more.
      const kept = await readFile(path!);
      assert.equal(kept.length, size);
      await streams.close();
    }
    streams = await place.open();
    const [placed] = await streams.append("s", [{ partitionKey: "k", data: Buffer.from("new") }]);
    assert.equal(placed!.offset, 3);
    await streams.close();
  });
});

test("the offsets of records that were lost at the log's end are not given out again, also behind a crash", async () => {
  await withPlace(async (place) => {
    await fill(place);
    const [path] = await place.segments();
    await flip(path!, await placeOf(path!, "text-10"));
    let streams = await place.open();
    const put = async (): Promise<number> =>
      (await streams.append("s", [{ partitionKey: "k", data: Buffer.from("new") }]))[0]!.offset;
    assert.equal(await put(), 10);
    await streams.close();
    // As a crash would leave it: without what tells that it was closed in peace.
    await rm(path!.replace(".log", ".idx"));
    streams = await place.open();
    assert.equal(await put(), 11);
    assert.equal((await textsOf(streams)).length, 11);
    await streams.close();
  });
});

test("nor are they behind further starts at which nothing was appended", async () => {
  await withPlace(async (place) => {
    let streams = await place.open();
    await streams.createStream({ name: "s", shards: 2, retentionHours: 24 });
    const put = async (text: string, explicitHash: bigint): Promise<number> =>
      (await streams.append("s", [{ partitionKey: "k", data: Buffer.from(text), explicitHash }]))[0]!.offset;
    await put("low", 0n);
    await put("high", MAX_HASH);
    await streams.close();
    const [path] = await place.segments();
    await flip(path!, await placeOf(path!, "high"));
    for (let i = 0; i < 3; i++) {
      streams = await place.open();
      assert.deepEqual(
        streams.describe("s").shardList.map(({ trimHorizon, latest }) => [trimHorizon, latest]),
        [
          [0, 1],
          [1, 1],
        ],
      );
      await streams.close();
    }
    streams = await place.open();
    assert.equal(await put("new", MAX_HASH), 1);
    assert.equal((await readAll(streams, "s", "shardId-000000000001", 0)).length, 1);
    await streams.close();
  });
});

test("a log that is shorter than when it was closed is told, and gives no offset out again", async () => {
  await withPlace(async (place) => {
    await fill(place);
    const [path] = await place.segments();
    await truncate(path!, (await readFile(path!)).lastIndexOf("HWLE"));
    const streams = await place.open();
    assert.deepEqual(place.logged, ["entries behind this file are missing from the log"]);
    const [placed] = await streams.append("s", [{ partitionKey: "k", data: Buffer.from("new") }]);
    assert.equal(placed!.offset, 10);
    await streams.close();
  });
});

test("a shard whose only record is lost does not give its offset out again", async () => {
  await withPlace(async (place) => {
    const low = { partitionKey: "k", explicitHash: 0n };
    const high = { partitionKey: "k", explicitHash: 1n << 127n };
    let streams = await place.open();
    await streams.createStream({ name: "s", shards: 2, retentionHours: 24 });
    await streams.append("s", [{ ...low, data: Buffer.from("first") }]);
    await streams.append("s", [{ ...high, data: Buffer.from("lost") }]);
    await streams.append("s", [{ ...low, data: Buffer.from("second") }]);
    await streams.close();
    const [path] = await place.segments();
    await flip(path!, await placeOf(path!, "lost"));
    streams = await place.open();
    const [above] = await streams.append("s", [{ ...high, data: Buffer.from("new") }]);
    assert.equal(above!.offset, 1);
    const [below] = await streams.append("s", [{ ...low, data: Buffer.from("third") }]);
    assert.equal(below!.offset, 2);
    assert.equal((await readAll(streams, "s", "shardId-000000000001", 0)).length, 1);
    await streams.close();
  });
});

test("offsets of which the last segment's state alone told are not given out again when that is lost", async () => {
  await withPlace(async (place) => {
    place.nowMs = 1_700_000_000_000;
    await fill(place);
    let streams = await place.open();
    place.nowMs += 25 * 3_600_000;
    await streams.enforceRetention();
    assert.deepEqual(await textsOf(streams), []);
    await streams.close();
    const [path, ...others] = await place.segments();
    assert.deepEqual(others, []);
    await flip(path!, await placeOf(path!, "nextOffsets"));
    for (let starts = 0; starts < 2; starts++) {
      streams = await place.open();
      const { trimHorizon, latest } = streams.describe("s").shardList[0]!;
      assert.deepEqual([trimHorizon, latest], [10, 10]);
      await streams.close();
    }
    streams = await place.open();
    const [placed] = await streams.append("s", [{ partitionKey: "k", data: Buffer.from("new") }]);
    assert.equal(placed!.offset, 10);
    await streams.close();
  });
});

test("a segment that is shorter than it was, or gone, is told", async () => {
  await withPlace(async (place) => {
    await fill(place, 400);
    const paths = await place.segments();
    const bytes = await readFile(paths[1]!);
    await truncate(paths[1]!, bytes.lastIndexOf("HWLE"));
    let streams = await place.open();
    assert.deepEqual(place.logged, ["entries behind this file are missing from the log"]);
    assert.equal((await textsOf(streams)).length, 9);
    await streams.close();
    await rm(paths[1]!);
    place.logged.length = 0;
    streams = await place.open();
    assert.deepEqual(place.logged, ["entries behind this file are missing from the log"]);
    assert.equal(await streams.appendFrame(makeFrame("s", 10n, ["text-10"])), "duplicate");
    await streams.close();
  });
});

test("a start that a crash cut off before the database stood is simply begun again", async () => {
  await withPlace(async (place) => {
    await (await place.open()).close();
    await rm(join(place.dir, "meta"), { recursive: true });
    await (await place.open()).close();
    await rm(join(place.dir, "meta"), { recursive: true });
    await rm(join(place.dir, "streams.json"));
    await (await place.open()).close();
  });
});

test("a byte that flips while the log is open is found by the reader", async () => {
  await withPlace(async (place) => {
    await fill(place);
    const streams = await place.open();
    const [path] = await place.segments();
    await flip(path!, await placeOf(path!, "text-4"));
    assert.deepEqual(await textsOf(streams), texts(1, 2, 3, 5, 6, 7, 8, 9, 10));
    assert.deepEqual(await textsOf(streams), texts(1, 2, 3, 5, 6, 7, 8, 9, 10));
    assert.deepEqual(place.logged, ["the log is damaged; what can be read is kept"]);
    await streams.close();
  });
});

test("entries that stand there a second time are damage, and are neither read nor gone on from", async () => {
  await withPlace(async (place) => {
    await fill(place);
    const [path] = await place.segments();
    const bytes = await readFile(path!);
    const third = bytes.lastIndexOf("HWLE", await placeOf(path!, "text-3"));
    const sixth = bytes.lastIndexOf("HWLE", await placeOf(path!, "text-6"));
    const again = bytes.subarray(third, sixth);
    await writeFile(path!, Buffer.concat([bytes.subarray(0, sixth), again, bytes.subarray(sixth), again]));
    const { findings } = await verifyLocalStreams(place.dir);
    const entryBytes = again.length / 3;
    assert.deepEqual(
      findings.map(({ kind, from }) => [kind, from]),
      [
        ["damage", sixth],
        ["damage", sixth + entryBytes],
        ["damage", sixth + 2 * entryBytes],
        ["torn", bytes.length + again.length],
      ],
    );
    const streams = await place.open();
    assert.deepEqual(await textsOf(streams), texts(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
    const [placed] = await streams.append("s", [{ partitionKey: "k", data: Buffer.from("new") }]);
    assert.equal(placed!.offset, 10);
    await streams.close();
  });
});

test("a damaged length leads nobody astray", async () => {
  await withPlace(async (place) => {
    await fill(place);
    const [path] = await place.segments();
    const bytes = await readFile(path!);
    const entry = bytes.lastIndexOf("HWLE", await placeOf(path!, "text-4"));
    for (const length of [0, 1, 0x7fff_ffff, 60 * 1_048_576]) {
      bytes.writeUInt32BE(length, entry + 12);
      await writeFile(path!, bytes);
      const streams = await place.open();
      assert.deepEqual(await textsOf(streams), texts(1, 2, 3, 5, 6, 7, 8, 9, 10));
      await streams.close();
    }
  });
});

test("sidecars are made again when they are missing, damaged or stale", async () => {
  await withPlace(async (place) => {
    await fill(place, 400);
    const paths = await place.segments();
    assert.ok(paths.length >= 3, `${paths.length} segments`);
    const sidecars = paths.slice(0, -1).map((path) => path.replace(".log", ".idx"));
    const before = await readFile(sidecars[0]!, "utf8");
    await rm(sidecars[0]!);
    await flip(sidecars[1]!, 20);
    const streams = await place.open();
    assert.deepEqual(await textsOf(streams), texts(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
    await streams.close();
    assert.equal(await readFile(sidecars[0]!, "utf8"), before);
    await flip(paths[0]!, await placeOf(paths[0]!, "text-1"));
    const again = await place.open();
    assert.deepEqual(await textsOf(again), texts(2, 3, 4, 5, 6, 7, 8, 9, 10));
    await again.close();
  });
});

test("a sidecar that cannot be written keeps no log from being opened and read", async () => {
  await withPlace(async (place) => {
    await fill(place, 400);
    const [first] = await place.segments();
    const sidecar = first!.replace(".log", ".idx");
    await rm(sidecar);
    // What stands in the way of writing it.
    await mkdir(`${sidecar}.tmp`);
    let streams = await place.open();
    assert.deepEqual(place.logged, ["housekeeping failed"]);
    assert.deepEqual(await textsOf(streams), texts(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
    await streams.close();
    await rm(`${sidecar}.tmp`, { recursive: true });
    streams = await place.open();
    assert.ok((await stat(sidecar)).size > 0);
    assert.deepEqual(await textsOf(streams), texts(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
    await streams.close();
  });
});

test("a segment that a crash left without its state is removed", async () => {
  await withPlace(async (place) => {
    await fill(place, 700);
    const paths = await place.segments();
    const next = paths.at(-1)!.replace(/\d{16}\.log$/, "0000000000009999.log");
    for (const size of [0, 30, 64, 100]) {
      await writeFile(next, (await readFile(paths.at(-1)!)).subarray(0, size));
      const streams = await place.open();
      assert.deepEqual(await textsOf(streams), texts(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
      await assert.rejects(stat(next));
      await streams.close();
    }
  });
});

test("a last segment of which nothing is left is told, where it was closed, and its offsets are not given out again", async () => {
  await withPlace(async (place) => {
    await fill(place, 1_100);
    const last = (await place.segments()).at(-1)!;
    const { size } = await stat(last);
    assert.ok((await readFile(last)).includes("text-10"));
    for (const from of [0, 64]) {
      const file = await open(last, "r+");
      await file.write(Buffer.alloc(size - from, 1), 0, size - from, from);
      await file.close();
      place.logged.length = 0;
      const streams = await place.open();
      assert.ok(place.logged.includes("the log is damaged; what can be read is kept"), place.logged.join());
      const [placed] = await streams.append("s", [{ partitionKey: "k", data: Buffer.from(`new-${from}`) }]);
      assert.ok(placed!.offset >= 10, `${placed!.offset}`);
      assert.equal((await textsOf(streams)).at(-1), `new-${from}`);
      await streams.close();
    }
  });
});

test("a log of which not even its state is left does not begin its next segment over the one that it has", async () => {
  const place = await makeLogPlace();
  try {
    await (await StreamLog.create(place.options())).close();
    const path = join(place.folder, "0000000000000000.log");
    await flip(path, 100);
    await rm(path.replace(".log", ".idx"));
    let failing = true;
    const disk = watchedDisk(() => {
      if (!failing) return;
      failing = false;
      throw Object.assign(new Error("i/o error"), { code: "EIO" });
    });
    const log = await StreamLog.open(place.options({ disk }));
    await assert.rejects(append(log, 1), { code: "LOG_WRITE_FAILED" });
    while (!place.logged.includes("the log is repaired and accepts again")) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    await append(log, 1);
    assert.deepEqual(
      log.segments.map(({ base }) => base),
      [0, 1],
    );
    await log.close();
  } finally {
    await place.remove();
  }
});

test("damaged heads and states of segments do not lose what stands behind them", async () => {
  await withPlace(async (place) => {
    await fill(place, 1_100);
    const last = (await place.segments()).at(-1)!;
    assert.ok((await readFile(last)).includes("text-10"));
    const head = Buffer.alloc(100);
    const file = await open(last, "r+");
    await file.write(head, 0, head.length, 0);
    await file.close();
    let streams = await place.open();
    assert.deepEqual(await textsOf(streams), texts(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
    assert.equal(await streams.appendFrame(makeFrame("s", 9n, ["again"])), "duplicate");
    assert.equal(await streams.appendFrame(makeFrame("s", 11n, ["text-11"])), "stored");
    await streams.close();
    streams = await place.open();
    assert.deepEqual(await textsOf(streams), texts(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11));
    await streams.close();
  });
});

test("who repeats is known from the segments before, where the last one's state is damaged behind a crash", async () => {
  await withPlace(async (place) => {
    await fill(place, 1);
    let streams = await place.open({ segmentBytes: 1 });
    await streams.appendFrame(makeFrame("s", 1n, ["text-11"], 8n));
    await streams.close();
    const last = (await place.segments()).at(-1)!;
    await rm(last.replace(".log", ".idx"));
    await flip(last, await placeOf(last, "nextOffsets"));
    streams = await place.open();
    assert.deepEqual(place.logged, ["the log is damaged; what can be read is kept"]);
    for (const again of [makeFrame("s", 10n, ["again"]), makeFrame("s", 1n, ["again"], 8n)]) {
      assert.equal(await streams.appendFrame(again), "duplicate");
    }
    assert.deepEqual(await textsOf(streams), texts(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11));
    await streams.close();
  });
});

test("nothing new hides behind a checkpoint when the log's end is lost", async () => {
  await withPlace(async (place) => {
    await fill(place);
    let streams = await place.open();
    const consumer = await streams.openConsumer("s", "c");
    await consumer.checkpoint(new Map([[SHARD_0, 10]]));
    await streams.close();
    const [path] = await place.segments();
    await truncate(path!, await placeOf(path!, "text-8"));
    await rm(path!.replace(".log", ".idx"));
    streams = await place.open();
    assert.ok(place.logged.includes("the log ends before a checkpoint; the offsets between are left out"));
    const [placed] = await streams.append("s", [{ partitionKey: "k", data: Buffer.from("new") }]);
    assert.equal(placed!.offset, 10);
    const again = await streams.openConsumer("s", "c");
    assert.deepEqual(
      (await readAll(streams, "s", SHARD_0, again.positions().get(SHARD_0)!)).map(({ text }) => text),
      ["new"],
    );
    await streams.close();
  });
});

/** Fails the calls whose number is given, counted from 1 over both kinds; a failed write leaves half of its bytes. */
function failingDisk(fails: (call: number) => Error | undefined) {
  let calls = 0;
  return {
    async write(file: LogFile, bytes: Buffer, position: number): Promise<void> {
      const error = fails(++calls);
      if (error === undefined) return realDisk.write(file, bytes, position);
      await realDisk.write(file, bytes.subarray(0, bytes.length >> 1), position);
      throw error;
    },
    async datasync(file: LogFile): Promise<void> {
      const error = fails(++calls);
      if (error !== undefined) throw error;
      await realDisk.datasync(file);
    },
  };
}

for (const [kind, parity] of [
  ["write", 1],
  ["fdatasync", 0],
] as const) {
  test(`a failed ${kind} refuses all that waits, and the log goes on behind its last good end`, async () => {
    await withPlace(async (place) => {
      let failing = false;
      let full = Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
      const disk = failingDisk((call) => (failing && call % 2 === parity ? full : undefined));
      let streams = await place.open({ disk });
      await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
      await streams.appendFrame(makeFrame("s", 1n, ["text-1"]));
      failing = true;
      const refused = [2n, 3n].map((n) => streams.appendFrame(makeFrame("s", n, [`text-${n}`])));
      const repeated = streams.appendFrame(makeFrame("s", 2n, ["text-2"]));
      for (const outcome of [...refused, repeated])
        await assert.rejects(outcome, { code: "LOG_FULL", retryable: true });
      assert.deepEqual(await textsOf(streams), texts(1));
      full = Object.assign(new Error("i/o error"), { code: "EIO" });
      await assert.rejects(streams.appendFrame(makeFrame("s", 2n, ["text-2"])), { retryable: true });
      failing = false;
      await eventually(() => streams.appendFrame(makeFrame("s", 2n, ["text-2"])));
      assert.equal(await streams.appendFrame(makeFrame("s", 3n, ["text-3"])), "stored");
      assert.deepEqual(await textsOf(streams), texts(1, 2, 3));
      await streams.close();
      streams = await place.open();
      assert.deepEqual(await textsOf(streams), texts(1, 2, 3));
      assert.equal(await streams.appendFrame(makeFrame("s", 3n, ["text-3"])), "duplicate");
      await streams.close();
    });
  });
}

test("when too much waits for the disk all is refused, and no later frame slips past a refused one", async () => {
  await withPlace(async (place) => {
    const streams = await place.open({ maxWaitingBytes: 4_000 });
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const sizes = [1_000, 1_000, 1_900, 10, 10];
    const frames = sizes.map((size, i) => makeFrame("s", BigInt(i + 1), ["x".repeat(size)]));
    const outcomes = await Promise.allSettled(frames.map((frame) => streams.appendFrame(frame)));
    const stored = outcomes.map((outcome) =>
      outcome.status === "fulfilled" ? outcome.value : outcome.reason.code,
    );
    assert.deepEqual(stored, ["stored", "stored", "LOG_BUSY", "LOG_BUSY", "LOG_BUSY"]);
    for (const frame of frames.slice(2)) assert.equal(await streams.appendFrame(frame), "stored");
    assert.deepEqual(
      (await textsOf(streams)).map(({ length }) => length),
      sizes,
    );
    await streams.close();
  });
});

/** Tries again as a client would, until the log has repaired itself. */
async function eventually(attempt: () => Promise<unknown>): Promise<void> {
  const until = performance.now() + 60_000;
  for (;;) {
    try {
      await attempt();
      return;
    } catch (error) {
      if (performance.now() > until || (error as { retryable?: boolean }).retryable !== true) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

test("a folder whose metadata is lost is refused, not guessed at", async () => {
  const losses: Array<[string, (dir: string) => Promise<void>, string]> = [
    ["meta", (dir) => rm(join(dir, "meta"), { recursive: true }), "STREAM_METADATA_DAMAGED"],
    ["CURRENT", (dir) => rm(join(dir, "meta", "CURRENT")), "STREAM_METADATA_DAMAGED"],
    ["streams.json", (dir) => rm(join(dir, "streams.json")), "STREAM_METADATA_DAMAGED"],
    ["a byte of streams.json", (dir) => flip(join(dir, "streams.json"), 30), "STREAM_METADATA_DAMAGED"],
    ["format.json", (dir) => rm(join(dir, "format.json")), "STREAM_FORMAT"],
    ["the format", (dir) => writeFile(join(dir, "format.json"), '{"format":999}'), "STREAM_FORMAT"],
    ["the log", (dir) => rm(join(dir, "logs"), { recursive: true }), "STREAM_LOG_MISSING"],
  ];
  for (const [what, lose, code] of losses) {
    await withPlace(async (place) => {
      await fill(place);
      await lose(place.dir);
      await assert.rejects(place.open(), (error: { code: string; hint?: string }) => {
        assert.equal(error.code, code, what);
        assert.ok(error.hint !== undefined, what);
        return true;
      });
    });
  }
});

test("who follows the hint at a log that is gone can delete its stream, and keeps the others", async () => {
  await withPlace(async (place) => {
    await fill(place);
    const lost = (await place.segments())[0]!;
    const before = await place.open();
    await before.createStream({ name: "kept", shards: 1, retentionHours: 24 });
    await before.appendFrame(makeFrame("kept", 1n, ["text"]));
    await before.close();
    await rm(dirname(lost), { recursive: true });
    let hint: string | undefined;
    await assert.rejects(place.open(), (error: { code: string; hint?: string }) => {
      hint = error.hint;
      return error.code === "STREAM_LOG_MISSING";
    });
    const [, name] = /an empty file (\S+) into it, start, and delete the stream/.exec(hint ?? "") ?? [];
    assert.ok(name !== undefined, hint);
    await mkdir(dirname(lost));
    await writeFile(join(dirname(lost), name), "");
    const streams = await place.open();
    await streams.deleteStream("s");
    assert.deepEqual(streams.listStreams(), ["kept"]);
    assert.equal((await readAll(streams, "kept", SHARD_0)).length, 1);
    await streams.close();
  });
});

test("a second process is kept out", async () => {
  await withPlace(async (place) => {
    const streams = await place.open();
    await assert.rejects(place.open(), { code: "STREAMS_LOCKED" });
    await streams.close();
  });
});
