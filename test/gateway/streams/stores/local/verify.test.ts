import assert from "node:assert/strict";
import { mkdir, open, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { Level } from "level";
import {
  type VerifyFinding,
  verifyLocalStreams,
} from "../../../../../gateway/streams/stores/local/verify.ts";
import { verifyDataFolder } from "../../../../../gateway/verify.ts";
import { makeFrame } from "../../../../contract/streams.ts";
import { SmallDisk } from "../../../../support/small-disk.ts";
import { type LocalPlace, makeLocalPlace } from "./local-place.ts";

const FRAMES = 200;

/** A closed store with one stream of several segments, and a consumer that has read a little. */
async function filled(t: TestContext): Promise<LocalPlace> {
  const place = await makeLocalPlace();
  t.after(() => place.remove());
  const streams = await place.open({ segmentBytes: 32 * 1024 });
  await streams.createStream({ name: "s", shards: 2, retentionHours: 24 });
  for (let sequence = 1n; sequence <= FRAMES; sequence++) {
    const texts = Array.from({ length: 5 }, (_, i) => `k${i}=${sequence}/${"x".repeat(100)}`);
    await streams.appendFrame(makeFrame("s", sequence, texts));
  }
  const consumer = await streams.openConsumer("s", "reader");
  await consumer.checkpoint(new Map([["shardId-000000000000", 10]]));
  await consumer.close();
  await streams.close();
  return place;
}

async function flip(path: string, position: number): Promise<void> {
  const file = await open(path, "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, position);
  byte[0] = byte[0]! ^ 0x40;
  await file.write(byte, 0, 1, position);
  await file.close();
}

/** The store's database, while it is closed. */
async function withLevel<T>(place: LocalPlace, body: (db: Level<string, string>) => Promise<T>): Promise<T> {
  const db = new Level<string, string>(join(place.dir, "meta"));
  try {
    return await body(db);
  } finally {
    await db.close();
  }
}

async function snapshot(dir: string): Promise<string[]> {
  const lines: string[] = [];
  for (const entry of await readdir(dir, { recursive: true })) {
    const { size, mtimeMs } = await stat(join(dir, entry));
    lines.push(`${entry} ${size} ${mtimeMs}`);
  }
  return lines.sort();
}

function damaged(findings: readonly VerifyFinding[]): VerifyFinding[] {
  return findings.filter(({ kind }) => kind === "damage");
}

test("a sound folder is called sound, every record is counted, and nothing is touched", async (t) => {
  const place = await filled(t);
  const before = await snapshot(place.dir);
  const report = await verifyLocalStreams(place.dir);
  assert.deepEqual(report.findings, []);
  assert.equal(report.records, FRAMES * 5);
  assert.equal(report.streams, 1);
  assert.ok(report.segments > 2);
  assert.deepEqual(await snapshot(place.dir), before);
});

test("a flipped byte is found wherever it is, with its place, and what stands behind is still counted", async (t) => {
  const place = await filled(t);
  const [, second] = await place.segments();
  const { size } = await stat(second!);
  for (const position of [200, Math.floor(size / 2), size - 40]) {
    await flip(second!, position);
    const report = await verifyLocalStreams(place.dir);
    const [finding] = damaged(report.findings);
    assert.ok(finding !== undefined, `byte ${position}`);
    assert.equal(finding.stream, "s");
    assert.ok(second!.endsWith(finding.file));
    assert.ok(finding.from! <= position && position < finding.to!, JSON.stringify(finding));
    // The first is in the state entry, the others in a frame of five records.
    assert.equal(report.records, position === 200 ? FRAMES * 5 : FRAMES * 5 - 5);
    await flip(second!, position);
  }
  assert.deepEqual((await verifyLocalStreams(place.dir)).findings, []);
});

test("a missing segment, a cut one and lost metadata are damage", async (t) => {
  const missing = await filled(t);
  await rm((await missing.segments())[1]!);
  assert.match(
    damaged((await verifyLocalStreams(missing.dir)).findings)[0]!.detail,
    /entries \d+ to \d+ are missing/,
  );

  const cut = await filled(t);
  const [first] = await cut.segments();
  await truncate(first!, (await stat(first!)).size - 700);
  assert.ok(damaged((await verifyLocalStreams(cut.dir)).findings).length > 0);

  const lost = await filled(t);
  await rm(join(lost.dir, "meta", "CURRENT"));
  const report = await verifyLocalStreams(lost.dir);
  assert.match(damaged(report.findings)[0]!.detail, /CURRENT is missing/);
  assert.equal(report.records, FRAMES * 5, "the records are still looked at");
});

test("a damaged head costs itself alone, in the last segment as well: what stands behind it is looked at", async (t) => {
  const place = await filled(t);
  const paths = await place.segments();
  for (const path of [paths[0]!, paths[1]!, paths.at(-1)!]) {
    await flip(path, 20);
    const { findings, records } = await verifyLocalStreams(place.dir);
    assert.deepEqual(
      findings.map(({ kind, from, to }) => [kind, from, to]),
      [["damage", 0, 64]],
    );
    assert.equal(records, FRAMES * 5);
    await flip(path, 20);
  }
});

test("a segment that a crash kept from beginning is torn, and one that was cut short since it was closed is damage", async (t) => {
  const place = await filled(t);
  const last = (await place.segments()).at(-1)!;
  const unbegun = join(last, "..", "0000000000099999.log");
  await writeFile(unbegun, Buffer.alloc(4_096));
  assert.deepEqual(
    (await verifyLocalStreams(place.dir)).findings.map(({ kind }) => kind),
    ["torn"],
  );
  await rm(unbegun);
  const bytes = await readFile(last);
  await truncate(last, bytes.lastIndexOf("HWLE"));
  const { findings, records } = await verifyLocalStreams(place.dir);
  assert.deepEqual(
    findings.map(({ kind, from, to }) => [kind, from, to]),
    [["damage", bytes.lastIndexOf("HWLE"), bytes.length]],
  );
  assert.equal(records, FRAMES * 5 - 5);
});

test("metadata of which a part is lost, or that went back to before a split, is damage; the records are looked at", async (t) => {
  const place = await filled(t);
  const { streamId } = await withLevel(place, async (db) => {
    const [[, value]] = (await db.iterator({ gte: "stream/", lt: "stream0" }).all()) as [[string, string]];
    return JSON.parse(value.slice(8)) as { streamId: string };
  });
  const records = ["stream", "shard"].map((kind) => ({
    gte: `${kind}/${streamId}`,
    lt: `${kind}/${streamId}0`,
  }));
  const before = await withLevel(place, (db) =>
    Promise.all(records.map((range) => db.iterator(range).all())),
  );
  const streams = await place.open();
  await streams.splitShard("s", "shardId-000000000001", (3n << 126n) + 1n);
  for (const explicitHash of [1n << 127n, (1n << 128n) - 1n])
    await streams.append("s", [{ partitionKey: "k", explicitHash, data: Buffer.from("new") }]);
  await streams.close();
  assert.deepEqual((await verifyLocalStreams(place.dir)).findings, []);

  await withLevel(place, async (db) => {
    for (const range of records) await db.clear(range);
    for (const [key, value] of before.flat()) await db.put(key, value);
  });
  const back = await verifyLocalStreams(place.dir);
  assert.deepEqual(
    back.findings.map(({ kind, file }) => [kind, file]),
    [
      ["damage", "meta"],
      ["damage", "meta"],
    ],
  );
  await assert.rejects(place.open(), { code: "STREAM_METADATA_DAMAGED" });

  await withLevel(place, (db) => db.del(`shard/${streamId}/000000000000`));
  const lost = await verifyLocalStreams(place.dir);
  assert.match(lost.findings[0]!.detail, /has 1 shards in meta\/ instead of 2/);
  assert.equal(lost.records, FRAMES * 5 + 2);
});

test("a segment that cannot be read is damage, and the others are looked at", async (t) => {
  const place = await filled(t);
  const { records } = await verifyLocalStreams(place.dir);
  const [first] = await place.segments();
  await rm(first!);
  // It can be opened, and refuses to be read, as a bad sector does.
  await mkdir(first!);
  const report = await verifyLocalStreams(place.dir);
  assert.equal(report.findings[0]!.file, first!.slice(place.dir.length + 1));
  assert.match(report.findings[0]!.detail, /^cannot be read: /);
  assert.ok(report.records > 0 && report.records < records, `${report.records}`);
});

test("a folder for the copy that is not there, or is full, is no damage", async (t) => {
  const place = await filled(t);
  const disk = await SmallDisk.make(1_048_576);
  t.after(async () => typeof disk === "string" || (await disk.remove()));
  const former = process.env.TMPDIR;
  t.after(() => {
    if (former === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = former;
  });
  process.env.TMPDIR = join(place.dir, "none");
  await assert.rejects(verifyLocalStreams(place.dir), { code: "VERIFY_REFUSED", message: /ENOENT/ });
  if (typeof disk === "string") return t.diagnostic(disk);
  process.env.TMPDIR = disk.path;
  const fill = async (): Promise<never> => {
    for (;;) await writeFile(join(disk.path, "filler"), Buffer.alloc(1_024), { flag: "a", flush: true });
  };
  await assert.rejects(fill(), { code: "ENOSPC" });
  const full = { code: "VERIFY_REFUSED", message: /No space left|no space left/ };
  await assert.rejects(verifyLocalStreams(place.dir), full);
  assert.deepEqual((await readdir(disk.path)).sort(), ["filler", "lost+found"]);
});

test("a log that ends before a checkpoint is damage", async (t) => {
  const place = await filled(t);
  const streams = await place.open();
  const consumer = await streams.openConsumer("s", "far");
  const ends = streams.describe("s").shardList.map(({ shardId, latest }) => [shardId, latest] as const);
  await consumer.checkpoint(new Map(ends));
  await consumer.close();
  await streams.close();
  const last = (await place.segments()).at(-1)!;
  await truncate(last, 5_000);
  const { findings } = await verifyLocalStreams(place.dir);
  assert.ok(damaged(findings).some(({ detail }) => /consumer far had read/.test(detail)));
});

test("what a crash leaves at the end is torn, not damage", async (t) => {
  const place = await filled(t);
  const last = (await place.segments()).at(-1)!;
  await rm(last.replace(/log$/, "idx"));
  const file = await open(last, "a");
  await file.write(Buffer.from("HWLE half of a write"));
  await file.close();
  const { findings, records } = await verifyLocalStreams(place.dir);
  assert.deepEqual(
    findings.map(({ kind }) => kind),
    ["torn"],
  );
  assert.equal(records, FRAMES * 5);
});

test("a folder in use, and one that holds no streams, are refused", async (t) => {
  const place = await filled(t);
  const streams = await place.open();
  await assert.rejects(verifyLocalStreams(place.dir), { code: "VERIFY_REFUSED", message: /in use/ });
  await streams.close();
  await verifyLocalStreams(place.dir);
  await assert.rejects(verifyLocalStreams(join(place.dir, "logs")), { code: "VERIFY_REFUSED" });
});

test("the program's lines say what is damaged and how much is sound", async (t) => {
  const place = await filled(t);
  const lines: string[] = [];
  assert.equal(await verifyDataFolder(place.dir, (line) => lines.push(line)), true);
  assert.match(lines.at(-1)!, /^1 streams, \d+ segments, \d+ entries, 1000 records, 0\.\d MiB: sound$/);
  await writeFile((await place.segments())[0]!, Buffer.alloc(300));
  lines.length = 0;
  assert.equal(await verifyDataFolder(place.dir, (line) => lines.push(line)), false);
  assert.match(
    lines[0]!,
    /^damage: stream s, logs\/[0-9a-f]{32}\/\d{16}\.log, bytes 0 to 64: its head is not sound$/,
  );
});
