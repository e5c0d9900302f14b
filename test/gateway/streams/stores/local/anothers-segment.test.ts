/** A segment's file that another stream's, or another segment's, was put in the place of: as by a restore into the wrong folder. */
import assert from "node:assert/strict";
import { cp, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { type Disk, realDisk } from "../../../../../gateway/streams/stores/local/log/segment-file.ts";
import { verifyLocalStreams } from "../../../../../gateway/streams/stores/local/verify.ts";
import { makeFrame, readAll } from "../../../../contract/streams.ts";
import { type LocalPlace, makeLocalPlace } from "./local-place.ts";

const SHARD_0 = "shardId-000000000000";
const FRAMES = 60;

interface TwoStreams {
  readonly place: LocalPlace;
  /** The segments of stream s, oldest first. */
  readonly own: readonly string[];
  /** Of stream t, with the same names. */
  readonly others: readonly string[];
}

/** Sixty frames in four segments of each of two streams. */
async function filled(t: TestContext, end: "closed" | "killed"): Promise<TwoStreams> {
  const live = await makeLocalPlace();
  t.after(() => live.remove());
  const streams = await live.open({ segmentBytes: 65_536 });
  const ids: string[] = [];
  for (const name of ["s", "t"]) {
    ids.push((await streams.createStream({ name, shards: 1, retentionHours: 24 })).streamId);
    for (let i = 1; i <= FRAMES; i++) {
      await streams.appendFrame(makeFrame(name, BigInt(i), [`${name}${i}-`.padEnd(4_000, "x")]));
    }
  }
  if (end === "closed") await streams.close();
  const place = end === "closed" ? live : await makeLocalPlace(`${live.dir}-killed`);
  if (end === "killed") {
    t.after(() => place.remove());
    await cp(live.dir, place.dir, { recursive: true });
    await streams.close();
  }
  const [own, others] = await Promise.all(ids.map((id) => segmentsOf(join(place.dir, "logs", id))));
  return { place, own: own!, others: others! };
}

async function segmentsOf(folder: string): Promise<string[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith(".log"));
  return names.sort().map((name) => join(folder, name));
}

const sidecar = (path: string): string => path.replace(/\.log$/, ".idx");

const CASES: ReadonlyArray<
  readonly [what: string, place: number, end: "closed" | "killed", how: "alone" | "with its sidecar" | "own"]
> = [
  ["the oldest", 0, "closed", "alone"],
  ["one in the middle", 1, "closed", "alone"],
  ["one in the middle", 2, "killed", "with its sidecar"],
  ["one in the middle", 2, "closed", "own"],
  ["the last", -1, "closed", "alone"],
  ["the last", -1, "closed", "with its sidecar"],
  ["the last", -1, "killed", "alone"],
  ["the last", -1, "killed", "own"],
];

for (const [what, at, end, how] of CASES) {
  test(`${what}, ${end}, ${how}: no record of it is read, all of it is damage, and it stays as it is`, async (t) => {
    const { place, own, others } = await filled(t, end);
    const path = own.at(at)!;
    const right = await readFile(path);
    const other = how === "own" ? own[1]! : others.at(at)!;
    await cp(other, path);
    if (how === "with its sidecar") await cp(sidecar(other), sidecar(path), { force: true }).catch(() => {});
    const bytes = await readFile(path);
    const { findings } = await verifyLocalStreams(place.dir);
    const extents = findings.filter(({ file, from }) => path.endsWith(file) && from !== undefined);
    assert.deepEqual(extents.map(({ kind, from, to }) => [kind, from, to]).slice(0, 2), [
      ["damage", 0, 64],
      ["damage", 64, bytes.length],
    ]);
    let left: string[] = [];
    for (let start = 1; start <= 2; start++) {
      place.logged.length = 0;
      const streams = await place.open({ segmentBytes: 65_536 });
      assert.ok(place.logged.includes("the log is damaged; what can be read is kept"));
      assert.ok(streams.describe("s").damagedBytes! >= bytes.length);
      assert.equal(await streams.appendFrame(makeFrame("s", BigInt(FRAMES + start), ["new"])), "stored");
      const texts = (await readAll(streams, "s", SHARD_0)).map(({ text }) => text.split("-")[0]!);
      assert.equal(texts.pop(), "new");
      if (start === 2) assert.equal(texts.pop(), "new");
      assert.ok(texts.length > 0.6 * FRAMES && texts.length < FRAMES, `${texts.length} are left`);
      assert.ok(texts.every((text) => text.startsWith("s")));
      assert.equal(new Set(texts).size, texts.length);
      if (start === 2) assert.deepEqual(texts, left);
      left = texts;
      await streams.close();
    }
    assert.ok((await readFile(path)).equals(bytes));
    // Where a sidecar told what was lost, whoever finds the right file has all of it.
    if (how === "with its sidecar" || end === "killed") return;
    await writeFile(path, right);
    const streams = await place.open();
    const texts = (await readAll(streams, "s", SHARD_0)).map(({ text }) => text.split("-")[0]!);
    assert.deepEqual(texts, [...Array.from({ length: FRAMES }, (_, i) => `s${i + 1}`), "new", "new"]);
    await streams.close();
  });
}

test("also a full disk puts nothing into it: what comes waits for a segment of its own", async (t) => {
  const { place, own, others } = await filled(t, "killed");
  const path = own.at(-1)!;
  await cp(others.at(-1)!, path);
  const bytes = await readFile(path);
  let refusals = 1;
  const disk: Disk = {
    ...realDisk,
    async write(file, chunk, position) {
      if (refusals-- > 0) throw Object.assign(new Error("no space left"), { code: "ENOSPC" });
      await realDisk.write(file, chunk, position);
    },
  };
  const streams = await place.open({ disk });
  t.after(() => streams.close());
  const frame = makeFrame("s", 100n, ["new"]);
  await assert.rejects(streams.appendFrame(frame), { code: "LOG_FULL" });
  // Until it is repaired.
  for (;;) {
    const outcome = await streams.appendFrame(frame).catch(({ code }: { code: string }) => code);
    if (outcome === "stored") break;
    assert.equal(outcome, "LOG_FULL");
    await new Promise(setImmediate);
  }
  assert.ok((await readFile(path)).equals(bytes));
  assert.equal((await readAll(streams, "s", SHARD_0)).at(-1)!.text, "new");
});
