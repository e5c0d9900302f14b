/**
 * A disk that refuses any one file operation of making or deleting a stream, or several: what was acknowledged is there
 * after a crash and after a power cut, a deletion that was refused did not happen, and the store opens.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { cp, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import type { LocalStreams } from "../../../../../gateway/streams/stores/local/local.ts";
import { FailingFiles, type Refusal } from "../../../../support/failing-files.ts";
import { randomFrom } from "../../../../support/ordeal.ts";
import { type LocalPlace, makeLocalPlace } from "./local-place.ts";
import { recordsOf } from "./stream-audit.ts";

const SHARD_0 = "shardId-000000000000";
/** About a second each on a slow disk; SEED has others run. */
const SEQUENCES = 16;

const REFUSED = { code: "DATABASE_WRITE_FAILED", retryable: true };
const CRASHES = ["kill", "power cut"] as const;

interface FailingDisk {
  readonly place: LocalPlace;
  readonly files: FailingFiles;
  /** The store's folder elsewhere, as a killed process leaves it, or a power cut that takes all names that were not synced. */
  crashed(by: (typeof CRASHES)[number]): Promise<LocalPlace>;
}

async function makeFailingDisk(t: TestContext): Promise<FailingDisk> {
  const place = await makeLocalPlace();
  const { dir } = place;
  const logs = join(dir, "logs");
  let sidecar = "";
  let names = new Set<string>();
  const files = await FailingFiles.in(dir, (folder) => {
    const file = join(dir, "streams.json");
    if (folder === "" && existsSync(file)) sidecar = readFileSync(file, "utf8");
    if (folder === "/logs") names = new Set(readdirSync(logs));
  });
  t.after(async () => {
    files.restore();
    await place.remove();
  });
  return {
    place,
    files,
    async crashed(by) {
      const copy = await makeLocalPlace();
      t.after(() => copy.remove());
      for (const name of ["format.json", "streams.json", "meta", "logs"]) {
        await cp(join(dir, name), join(copy.dir, name), { recursive: true });
      }
      if (by === "kill") return copy;
      await writeFile(join(copy.dir, "streams.json"), sidecar);
      // A folder that is gone stays so, as it may also without a sync.
      for (const name of await readdir(join(copy.dir, "logs"))) {
        if (!names.has(name)) await rm(join(copy.dir, "logs", name), { recursive: true });
      }
      for (const name of names) {
        if (name.endsWith(".deleted")) await writeFile(join(copy.dir, "logs", name), "");
      }
      return copy;
    },
  };
}

function create(streams: LocalStreams, name: string): Promise<unknown> {
  return streams.createStream({ name, shards: 1, retentionHours: 24 });
}

function put(streams: LocalStreams, name: string, text: string): Promise<unknown> {
  return streams.append(name, [{ partitionKey: "k", data: Buffer.from(text) }]);
}

async function texts(streams: LocalStreams, name: string): Promise<string[]> {
  const { parts } = await streams.read(name, SHARD_0, 0, 1_000_000);
  return recordsOf(parts).map(({ text }) => text);
}

/** The tokens that it holds, each stream's, when it is opened; and it takes more. */
async function holdings(place: LocalPlace): Promise<Map<string, string[]>> {
  const streams = await place.open();
  try {
    const found = new Map<string, string[]>();
    for (const name of streams.listStreams()) {
      found.set(name, await texts(streams, name));
      await put(streams, name, "more");
    }
    return found;
  } finally {
    await streams.close();
  }
}

const ofSidecar = (operation: string, path: string): boolean =>
  operation === "open" && path === "/streams.json.tmp";
const ofMark = (operation: string, path: string): boolean =>
  operation === "open" && path.endsWith(".deleted");
const syncOf =
  (folder: string) =>
  (operation: string, path: string): boolean =>
    operation === "sync" && path === folder;

const NO_ROOM: Refusal = { code: "ENOSPC", matching: ofSidecar };

const REFUSED_DELETIONS: Record<string, readonly Refusal[]> = {
  "the folder's sync behind the rename": [{ code: "EIO", count: 1, matching: syncOf("") }],
  "the rename": [{ code: "EIO", count: 1, matching: (operation) => operation === "rename" }],
  "the rename, which was done": [
    { code: "EIO", count: 1, late: true, matching: (operation) => operation === "rename" },
  ],
  "room, and the sync of the mark": [NO_ROOM, { code: "EIO", count: 1, matching: syncOf("/logs") }],
  "room, and a descriptor to sync the mark": [
    NO_ROOM,
    { code: "EMFILE", matching: (operation, path) => operation === "open" && path === "/logs" },
  ],
  "room, and an inode for the mark": [NO_ROOM, { code: "ENOSPC", matching: ofMark }],
  "room, and the opening of the mark, which was made": [
    NO_ROOM,
    { code: "EIO", late: true, matching: ofMark },
  ],
};

for (const [what, refusals] of Object.entries(REFUSED_DELETIONS)) {
  test(`a deletion for which the disk refused ${what}, is none at the next start either`, async (t) => {
    const { place, files, crashed } = await makeFailingDisk(t);
    const streams = await place.open();
    for (const name of ["other", "s"]) await create(streams, name);
    await put(streams, "s", "before");
    files.refuse(...refusals);
    await assert.rejects(streams.deleteStream("s"), REFUSED);
    assert.ok(files.refused.length > 0);
    files.heal();
    assert.deepEqual(streams.listStreams(), ["other", "s"]);
    await put(streams, "s", "behind");
    for (const by of CRASHES) {
      assert.deepEqual((await holdings(await crashed(by))).get("s"), ["before", "behind"], by);
    }
    await streams.close();
    assert.deepEqual([...(await holdings(place)).keys()], ["other", "s"]);
  });
}

test("a stream of which nobody knows whether the disk has it as deleted takes no records until that is settled", async (t) => {
  const { place, files, crashed } = await makeFailingDisk(t);
  const streams = await place.open();
  for (const name of ["other", "s"]) await create(streams, name);
  await put(streams, "s", "before");
  files.refuse(
    { code: "EIO", matching: syncOf("") },
    { code: "EIO", matching: (operation, path) => operation === "open" && path === "/logs" },
  );
  await assert.rejects(streams.deleteStream("s"), REFUSED);
  assert.match(streams.describe("s").refusing ?? "", /cannot be written/);
  assert.equal(streams.describe("other").refusing, undefined);
  assert.match(place.logged.join(), /takes no records until that is settled/);
  for (let i = 0; i < 3; i++) await assert.rejects(put(streams, "s", "refused"), REFUSED);
  await assert.rejects(streams.updateStream("s", { retentionHours: 48 }), REFUSED);
  assert.deepEqual(await texts(streams, "s"), ["before"]);
  await put(streams, "other", "taken");

  files.heal();
  const until = performance.now() + 30_000;
  const taken = (): Promise<boolean> =>
    put(streams, "s", "behind").then(
      () => true,
      () => false,
    );
  while (!(await taken())) {
    assert.ok(performance.now() < until, "it takes no records on a disk that is well again");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.equal(streams.describe("s").refusing, undefined);
  for (const by of CRASHES) {
    assert.deepEqual((await holdings(await crashed(by))).get("s"), ["before", "behind"], by);
  }
  await streams.close();
});

test("a doubt whether a stream is deleted ends with the next stream that is made, a look at its health, a close, and its deletion", async (t) => {
  const ends: Record<string, (streams: LocalStreams) => Promise<unknown>> = {
    "a stream that is made": (streams) => create(streams, "new"),
    "a close": (streams) => streams.close(),
    "a look at its health": async (streams) => {
      const until = performance.now() + 30_000;
      while (streams.describe("s").refusing !== undefined && performance.now() < until) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      assert.equal(streams.describe("s").refusing, undefined);
    },
    "a deletion": (streams) => streams.deleteStream("s"),
  };
  for (const [what, end] of Object.entries(ends)) {
    const { place, files, crashed } = await makeFailingDisk(t);
    const streams = await place.open();
    await create(streams, "s");
    await put(streams, "s", "before");
    // The new streams.json stands, and a kill right here would have the stream erased.
    files.refuse(
      { code: "EIO", matching: syncOf("") },
      { code: "EMFILE", after: 1, matching: ofSidecar },
      { code: "EIO", matching: ofMark },
    );
    await assert.rejects(streams.deleteStream("s"), REFUSED);
    files.heal();
    await end(streams);
    for (const by of CRASHES) {
      const found = (await holdings(await crashed(by))).get("s");
      assert.deepEqual(found, what === "a deletion" ? undefined : ["before"], `${what}, ${by}`);
    }
    await streams.close();
    files.restore();
  }
});

const REFUSED_CREATIONS: Record<string, (after: number) => readonly Refusal[]> = {
  sync: (after) => [{ code: "EIO", after, matching: (operation) => operation === "sync" }],
  "sync, and then the making of files,": (after) => [
    { code: "EIO", after, matching: (operation) => operation === "sync" },
    { code: "EMFILE", after: 2, matching: ofSidecar },
  ],
  "sync of a name": (after) => [
    { code: "EIO", after, matching: syncOf("") },
    { code: "ENOSPC", after: 2, matching: ofSidecar },
  ],
};

for (const [what, refusalsAfter] of Object.entries(REFUSED_CREATIONS)) {
  test(`whichever ${what} a disk that goes bad refuses first while a stream is made, the next start has none of it, or one that works`, async (t) => {
    let refused = 0;
    for (let after = 0; after < 6; after++) {
      if (await refuseCreation(t, refusalsAfter(after))) refused++;
    }
    assert.ok(refused >= 2, `${refused} were refused`);
  });
}

async function refuseCreation(t: TestContext, refusals: readonly Refusal[]): Promise<boolean> {
  const { place, files, crashed } = await makeFailingDisk(t);
  const streams = await place.open();
  await create(streams, "kept");
  await put(streams, "kept", "before");
  files.refuse(...refusals);
  const outcome = await create(streams, "new").then(
    () => "made",
    (error: { code?: string }) => String(error.code),
  );
  assert.match(outcome, /^(made|DATABASE_WRITE_FAILED|LOG_WRITE_FAILED)$/);
  files.heal();
  for (const by of CRASHES) {
    const found = await holdings(await crashed(by));
    assert.deepEqual(found.get("kept"), ["before"], by);
    if (outcome === "made") assert.ok(found.has("new"), by);
  }
  if (outcome !== "made") await create(streams, "new");
  await put(streams, "new", "x");
  for (const by of CRASHES) assert.deepEqual((await holdings(await crashed(by))).get("new"), ["x"], by);
  await streams.close();
  assert.deepEqual([...(await holdings(place)).keys()], ["kept", "new"]);
  files.restore();
  return outcome !== "made";
}

test("a start tells which streams it erases", async (t) => {
  const place = await makeLocalPlace();
  t.after(() => place.remove());
  let streams = await place.open();
  await create(streams, "s");
  const { streamId } = streams.describe("s");
  await streams.close();
  await writeFile(join(place.dir, "logs", `${streamId}.deleted`), "");
  streams = await place.open();
  await streams.close();
  assert.deepEqual(place.logged, ["a stream is erased whose making, or deletion, had begun and not ended"]);
});

/** What must be there of one stream: `maybe` where a refusal left it open. */
interface Known {
  state: "there" | "gone" | "maybe";
  acknowledged: string[];
  retentionHours: number;
}

test("one refused operation, or several, of any changes: what was acknowledged is there, and what was refused is not", async (t) => {
  const seed = Number(process.env.SEED ?? 1);
  for (let sequence = 0; sequence < SEQUENCES; sequence++) {
    const random = randomFrom(seed * 1_000 + sequence);
    await refuseAmongChanges(t, random).catch((error: unknown) => {
      throw new Error(`seed ${seed}, sequence ${sequence}`, { cause: error });
    });
  }
});

async function refuseAmongChanges(t: TestContext, random: () => number): Promise<void> {
  const below = (limit: number): number => Math.floor(random() * limit);
  const oneOf = <T>(...choices: readonly T[]): T => choices[below(choices.length)]!;
  const { place, files, crashed } = await makeFailingDisk(t);
  const streams = await place.open();
  const known = new Map<string, Known>();
  const refuse = (): void => {
    const code = oneOf("EIO", "ENOSPC", "EMFILE");
    const count = oneOf(1, 1, 2, 4, Number.POSITIVE_INFINITY);
    isSingle = count === 1;
    const kinds = oneOf(
      ["open", "writeFile", "datasync", "rename", "sync", "mkdir", "rm"],
      ["open", "sync"],
      ["sync"],
    );
    const matching = (operation: string): boolean => kinds.includes(operation);
    files.refuse({ code, after: below(kinds.length + 2), count, late: random() < 0.3, matching });
  };
  let isSingle = true;
  const history: string[] = [];
  const check = async (by: (typeof CRASHES)[number], from?: LocalPlace): Promise<void> => {
    const again = await (from ?? (await crashed(by))).open();
    const trail = `${by}: ${history.join(", ")}`;
    for (const [name, { state, acknowledged, retentionHours }] of known) {
      const isThere = again.listStreams().includes(name);
      if (state !== "maybe") assert.equal(isThere, state === "there", `${name}, ${trail}`);
      if (!isThere) continue;
      const found = new Set(await texts(again, name));
      for (const text of acknowledged) assert.ok(found.has(text), `${text} of ${name}, ${trail}`);
      assert.equal(again.settings(name).retentionHours, retentionHours, trail);
      await put(again, name, "more");
    }
    await again.close();
  };
  for (let step = 0; step < 14; step++) {
    const name = oneOf("a", "b");
    const before = known.get(name) ?? { state: "gone", acknowledged: [], retentionHours: 24 };
    const isListed = streams.listStreams().includes(name);
    const what = isListed ? oneOf("put", "put", "put", "keep longer", "delete", "delete") : "create";
    if ((what === "create" || what === "delete") && random() < 0.7) refuse();
    const work = {
      put: () => put(streams, name, `${step}`),
      "keep longer": () => streams.updateStream(name, { retentionHours: before.retentionHours + 1 }),
      delete: () => streams.deleteStream(name),
      create: () => create(streams, name),
    }[what];
    const done = await work().then(
      () => true,
      (error: { code?: string }) => {
        assert.match(error.code ?? String(error), /^(DATABASE_WRITE_FAILED|LOG_WRITE_FAILED|LOG_FULL)$/);
        return false;
      },
    );
    history.push(`${what} ${name} ${done ? "done" : "refused"} [${files.refused.splice(0).join("; ")}]`);
    known.set(name, knownAfter(before, what, done, isSingle, `${step}`));
    if (random() < 0.3) await check(oneOf(...CRASHES));
    if (random() < 0.6) files.heal();
  }
  files.heal();
  for (const by of CRASHES) await check(by);
  await streams.close();
  await check("kill", place);
  files.restore();
}

function knownAfter(before: Known, what: string, done: boolean, isSingle: boolean, text: string): Known {
  if (what === "create") {
    return { state: done ? "there" : "maybe", acknowledged: [], retentionHours: 24 };
  }
  if (what === "delete") {
    // Refused again and again, it is in doubt, and nothing is acknowledged any more.
    return done ? { ...before, state: "gone" } : { ...before, state: isSingle ? before.state : "maybe" };
  }
  if (!done) return before;
  if (what === "put") return { ...before, state: "there", acknowledged: [...before.acknowledged, text] };
  return { ...before, state: "there", retentionHours: before.retentionHours + 1 };
}
