/** A disk of which some sectors can no longer be read: what stands there is told as damage, and all the rest is read. */
import assert from "node:assert/strict";
import { readlinkSync } from "node:fs";
import { constants, type FileHandle, mkdtemp, open, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { PastBadSectors } from "../../../../../gateway/streams/stores/local/segments/bad-sectors.ts";
import { verifyLocalStreams } from "../../../../../gateway/streams/stores/local/verify.ts";
import type { Streams } from "../../../../../gateway/streams/streams.ts";
import { makeFrame, readAll } from "../../../../contract/streams.ts";
import { randomFrom } from "../../../../support/ordeal.ts";
import { removeFolder } from "../../../../support/remove-folder.ts";
import { type LocalPlace, makeLocalPlace } from "./local-place.ts";

const SHARD_0 = "shardId-000000000000";
const BLOCK = 4_096;
const FRAMES = 60;

type Read = (
  this: FileHandle,
  into: Buffer,
  offset: number,
  bytes: number,
  position: number,
) => Promise<{ readonly bytesRead: number }>;

interface BadSectors {
  /** Extents that cannot be read, by path. */
  readonly of: Map<string, Array<readonly [from: number, to: number]>>;
}

/** The disk answers as Linux does: up to the first sector that it cannot read, and from there with EIO. */
async function makeBadDisk(t: TestContext): Promise<BadSectors | undefined> {
  const path = join(await mkdtemp(join(tmpdir(), "headwater-direct-")), "file");
  t.after(() => removeFolder(join(path, "..")));
  await writeFile(path, "x");
  const direct = await open(path, constants.O_RDONLY | constants.O_DIRECT).catch(() => undefined);
  if (direct === undefined) {
    t.skip(`${tmpdir()} knows no direct reads`);
    return undefined;
  }
  const prototype = Object.getPrototypeOf(direct) as { read: Read };
  await direct.close();
  const { read } = prototype;
  t.after(() => {
    prototype.read = read;
  });
  const disk: BadSectors = { of: new Map() };
  prototype.read = function (into, offset, bytes, at) {
    let length = bytes;
    for (const [from, to] of disk.of.get(readlinkSync(`/proc/self/fd/${this.fd}`)) ?? []) {
      if (at >= to || at + length <= from) continue;
      if (at >= from)
        return Promise.reject(Object.assign(new Error("EIO: i/o error, read"), { code: "EIO" }));
      length = from - at;
    }
    return read.call(this, into, offset, length, at);
  };
  return disk;
}

/** Sixty frames of 4,000 bytes and more in four segments, closed. */
async function filled(t: TestContext): Promise<LocalPlace> {
  const place = await makeLocalPlace();
  t.after(() => place.remove());
  const streams = await place.open({ segmentBytes: 65_536 });
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  for (let i = 1; i <= FRAMES; i++) await streams.appendFrame(makeFrame("s", BigInt(i), [textOf(i)]));
  await streams.close();
  return place;
}

function textOf(i: number): string {
  return `${i}-`.padEnd(4_000, "x");
}

async function numbersOf(streams: Streams): Promise<number[]> {
  return (await readAll(streams, "s", SHARD_0)).map(({ text }) => Number(text.split("-")[0]));
}

const CASES: ReadonlyArray<
  readonly [what: string, segment: number, from: number, lost: number, rescan?: true]
> = [
  ["the middle of a closed segment", 1, 3 * BLOCK, 2],
  ["a closed segment whose sidecar is lost", 1, 3 * BLOCK, 2, true],
  ["the head of a closed segment", 1, 0, 1],
  ["the middle of the last segment", -1, 3 * BLOCK, 2],
  ["the head of the last segment", -1, 0, 1],
];

for (const [what, segment, from, lost, rescan] of CASES) {
  test(`a bad sector in ${what} costs the records in it and no other, and is told`, async (t) => {
    const disk = await makeBadDisk(t);
    if (disk === undefined) return;
    const place = await filled(t);
    const path = (await place.segments()).at(segment)!;
    if (rescan) await rm(path.replace(".log", ".idx"));
    disk.of.set(path, [[from, from + BLOCK]]);
    const report = await verifyLocalStreams(place.dir);
    assert.ok(report.findings.some((one) => one.from! <= from && from < one.to!));
    assert.equal(report.records, FRAMES - lost);
    const streams = await place.open();
    const numbers = await numbersOf(streams);
    assert.equal(numbers.length, FRAMES - lost);
    assert.ok(place.logged.includes("the log is damaged; what can be read is kept"));
    await streams.appendFrame(makeFrame("s", BigInt(FRAMES + 1), [textOf(FRAMES + 1)]));
    assert.deepEqual(await numbersOf(streams), [...numbers, FRAMES + 1]);
    await streams.close();
  });
}

test("what comes behind a closed log whose last block cannot be read goes into a segment of its own", async (t) => {
  const disk = await makeBadDisk(t);
  if (disk === undefined) return;
  const place = await filled(t);
  const path = (await place.segments()).at(-1)!;
  const { size } = await stat(path);
  assert.notEqual(size % BLOCK, 0);
  disk.of.set(path, [[size - (size % BLOCK), size - (size % BLOCK) + BLOCK]]);
  for (let start = 1; start <= 2; start++) {
    const streams = await place.open();
    await streams.appendFrame(makeFrame("s", BigInt(FRAMES + start), [textOf(FRAMES + start)]));
    const numbers = await numbersOf(streams);
    assert.equal(numbers.at(-1), FRAMES + start);
    assert.ok(numbers.length >= FRAMES + start - 2);
    await streams.close();
  }
  assert.deepEqual(
    place.logged.filter((line) => line.includes("cannot be written")),
    [],
  );
  assert.equal((await stat(path)).size, size);
});

test("a disk that answers nothing has lost nothing: the same is read once it is back", async (t) => {
  const disk = await makeBadDisk(t);
  if (disk === undefined) return;
  const place = await filled(t);
  const path = (await place.segments())[1]!;
  let streams = await place.open();
  disk.of.set(path, [[0, Number.MAX_SAFE_INTEGER]]);
  const { next } = await streams.read("s", SHARD_0, 0, 1_000_000);
  await assert.rejects(streams.read("s", SHARD_0, next, 1_000), { code: "EIO" });
  await streams.close();
  await assert.rejects(place.open(), { code: "EIO" });
  disk.of.clear();
  streams = await place.open();
  assert.equal((await numbersOf(streams)).length, FRAMES);
  assert.deepEqual(place.logged, []);
  await streams.close();
});

test("whatever is read from wherever: what stands in bad sectors is zeros, and everything else as it was", async (t) => {
  const disk = await makeBadDisk(t);
  if (disk === undefined) return;
  const random = randomFrom(11);
  const below = (limit: number): number => Math.floor(random() * limit);
  const folder = await mkdtemp(join(tmpdir(), "headwater-bad-sectors-"));
  t.after(() => removeFolder(folder));
  const path = join(folder, "file");
  await writeFile(path, Buffer.from(Array.from({ length: 300_000 }, () => 1 + below(255))));
  const expected = await readFile(path);
  const bad: Array<readonly [number, number]> = [];
  for (let i = 0; i < 12; i++) {
    const from = below(72) * BLOCK;
    bad.push([from, from + (1 + below(4)) * BLOCK]);
  }
  for (const [from, to] of bad) expected.fill(0, from, Math.min(to, expected.length));
  disk.of.set(path, bad);
  const file = await open(path);
  t.after(() => file.close());
  const reads = new PastBadSectors(path, file);
  const once = async (): Promise<void> => {
    const from = below(expected.length);
    const into = Buffer.alloc(1 + below(60_000), 0xdb);
    const { bytesRead } = await reads.read(into, 0, into.length, from);
    assert.ok(bytesRead > 0);
    assert.deepEqual(into.subarray(0, bytesRead), expected.subarray(from, from + bytesRead));
  };
  for (let i = 0; i < 50; i++) await Promise.all([once(), once(), once()]);
});
