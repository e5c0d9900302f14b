import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { appendFile, copyFile, mkdir, rename, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { FileTail } from "../../../agent/sources/file-tail.ts";
import { encodePlace } from "../../../agent/sources/tail/file-place.ts";
import type { FileSourceConfig } from "../../../config/source-config.ts";
import { GAPS_STREAM } from "../../../protocol/topics.ts";
import { pause } from "../../../runtime/backoff.ts";
import { openBuffer, temporaryFolder } from "../buffer/records/buffer-fixture.ts";
import { sourceParts, stored, tailConfig, until } from "./source-parts.ts";

/** Times of files tell their order. */
const TICK_MS = 12;

interface Rig {
  readonly folder: string;
  readonly buffer: RecordBuffer;
  readonly source: FileTail;
  write(path: string, text: string): Promise<void>;
  /** `sensor: line` of all that is stored, sorted; waits until there are so many. */
  lines(count: number): Promise<string[]>;
  /** Lets the work be undone, and begins anew with the same buffer. */
  restarted(meanwhile?: () => Promise<void>): Promise<Rig>;
  close(): Promise<void>;
}

async function rig(
  t: TestContext,
  pattern: string,
  config: Partial<FileSourceConfig> = {},
  folder?: string,
): Promise<Rig> {
  const root = folder ?? (await temporaryFolder(t));
  const logs = join(root, "logs");
  await mkdir(logs, { recursive: true });
  const buffer = await openBuffer(join(root, "buffer"));
  const source = new FileTail({
    ...sourceParts(buffer),
    config: tailConfig(join(logs, pattern), { name: "app", ...config }),
  });
  await source.start();
  const close = async (): Promise<void> => {
    await source.close();
    await buffer.close();
  };
  t.after(close);
  return {
    folder: logs,
    buffer,
    source,
    write: (path, text) => appendFile(join(logs, path), text),
    async lines(count) {
      await until(() => buffer.usage().waitingRecords >= count);
      return (await stored(buffer)).map(({ sensor, line }) => `${sensor}: ${line}`).sort();
    },
    async restarted(meanwhile) {
      await close();
      await meanwhile?.();
      return rig(t, pattern, config, root);
    },
    close,
  };
}

test("files that match are followed, also those that come later, each named by its path", async (t) => {
  const one = await rig(t, "*/*.log");
  await until(() => one.source.status().health === "idle");
  await mkdir(join(one.folder, "web"));
  await one.write("web/a.log", "1\n");
  assert.deepEqual(await one.lines(1), ["app/web/a.log: 1"]);
  await mkdir(join(one.folder, "db"));
  await one.write("db/a.log", "2\n");
  await one.write("db/a.txt", "no\n");
  await one.write("web/a.log", "3\n");
  assert.deepEqual(await one.lines(3), ["app/db/a.log: 2", "app/web/a.log: 1", "app/web/a.log: 3"]);
  assert.equal(one.source.status().health, "running");
});

test("each file goes on from its own place after a restart", async (t) => {
  const one = await rig(t, "*.log");
  await one.write("a.log", "a1\na2\n");
  await one.write("b.log", "b1\n");
  await one.lines(3);
  const two = await one.restarted(async () => {
    await one.write("a.log", "a3\n");
    await one.write("b.log", "b2\n");
    await one.write("c.log", "c1\n");
  });
  assert.deepEqual(await two.lines(6), [
    "app/a.log: a1",
    "app/a.log: a2",
    "app/a.log: a3",
    "app/b.log: b1",
    "app/b.log: b2",
    "app/c.log: c1",
  ]);
  assert.deepEqual(await stored(two.buffer, GAPS_STREAM), []);
});

test("a file that is rotated to a name that matches too is not read twice", async (t) => {
  for (const renamed of ["app.log.1", "app-2026-11-21.log", "other.log"]) {
    const one = await rig(t, "*");
    await one.write("app.log", "1\n2\n");
    await one.lines(2);
    await rename(join(one.folder, "app.log"), join(one.folder, renamed));
    await one.write("app.log", "3\n");
    await one.write("witness.log", "4\n");
    await one.lines(4);
    // While nobody looks as well.
    const two = await one.restarted(async () => {
      await one.write("app.log", "5\n");
      await rename(join(one.folder, "app.log"), join(one.folder, `2${renamed}`));
      await one.write("app.log", "6\n");
    });
    const lines = await two.lines(6);
    await two.write("end.log", "7\n");
    assert.deepEqual(
      (await two.lines(7)).map((line) => line.split(": ")[1]).sort(),
      ["1", "2", "3", "4", "5", "6", "7"],
      `${renamed}: ${lines.join(", ")}`,
    );
    assert.deepEqual(await stored(two.buffer, GAPS_STREAM), []);
    await two.close();
  }
});

test("a copy made before a truncation is not read twice, whatever it is called", async (t) => {
  for (const copy of ["app.log.1", "app-20261121.log"]) {
    const one = await rig(t, "*.log*");
    const long = Array.from({ length: 30 }, (_, i) => `line ${i} of the first`);
    await one.write("app.log", `${long.join("\n")}\n`);
    await one.lines(30);
    const two = await one.restarted(async () => {
      await one.write("app.log", "missed\n");
      await copyFile(join(one.folder, "app.log"), join(one.folder, copy));
      await truncate(join(one.folder, "app.log"), 0);
      await one.write("app.log", "new\n");
    });
    await two.lines(32);
    await two.write("z.log", "last\n");
    const lines = (await two.lines(33)).map((line) => line.split(": ")[1]);
    assert.deepEqual(lines.sort(), [...long, "missed", "new", "last"].sort(), copy);
    await two.close();
  }
});

test("more files than may be open take turns, and none is lost or read twice", async (t) => {
  const one = await rig(t, "*.log", { maxFiles: 2, rotateWaitMs: 0 });
  const names = Array.from({ length: 6 }, (_, i) => `${i}.log`);
  for (const name of names) await one.write(name, "first\n");
  await one.lines(6);
  for (const name of names) await one.write(name, "second\n");
  const expected = names.flatMap((name) => [`app/${name}: first`, `app/${name}: second`]);
  assert.deepEqual(await one.lines(12), expected);
  const two = await one.restarted();
  await two.write("3.log", "third\n");
  assert.deepEqual(await two.lines(13), [...expected, "app/3.log: third"].sort());
});

test("from: end skips what was there at the very first, and nothing that comes later", async (t) => {
  const root = await temporaryFolder(t);
  await mkdir(join(root, "logs"));
  await writeFile(join(root, "logs", "old.log"), "old\nhalf");
  const one = await rig(t, "*.log", { from: "end", maxFiles: 1, rotateWaitMs: 0 }, root);
  await until(() => one.source.status().health === "running");
  await one.write("old.log", " a line\n");
  await one.write("new.log", "1\n");
  assert.deepEqual(await one.lines(2), ["app/new.log: 1", "app/old.log: half a line"]);
  const two = await one.restarted(() => one.write("later.log", "2\n"));
  assert.deepEqual((await two.lines(3))[0], "app/later.log: 2");
});

test("a file that goes away and comes again is read from its start, without a word of a gap", async (t) => {
  const one = await rig(t, "*.log");
  await one.write("a.log", "1\n");
  await one.lines(1);
  await one.write("a.log", "without an end");
  await rm(join(one.folder, "a.log"));
  assert.deepEqual(await one.lines(2), ["app/a.log: 1", "app/a.log: without an end"]);
  const two = await one.restarted(() => one.write("a.log", "2\n"));
  assert.deepEqual(await two.lines(3), ["app/a.log: 1", "app/a.log: 2", "app/a.log: without an end"]);
  assert.deepEqual(await stored(two.buffer, GAPS_STREAM), []);
});

test("a new file that was given the inode of one that is gone is another, however alike it is", async (t) => {
  const app = await rig(t, "*.log");
  for (let i = 0; i < 8; i++) {
    const name = `${"abcdefgh"[i]}.log`;
    await app.write(name, "one\n");
    await until(() => app.buffer.usage().waitingRecords === i + 1);
    await rm(join(app.folder, name));
    // Files tell when they were made in steps of the kernel's clock.
    await pause(TICK_MS);
  }
  await app.close();
});

test("places of files that are gone are forgotten, the oldest first, also while the agent runs", async (t) => {
  const app = await rig(t, "*.log");
  await app.source.close();
  const places = Array.from({ length: 540 }, (_, i) => {
    const path = join(app.folder, `${i}x.log`);
    const id = `0:${i}`;
    const place = { path, id, bornNs: "1", offset: 4, head: "b25lCg==", before: "b25lCg==", modifiedNs: "1" };
    const source = `file/app/at/${createHash("sha256").update(path).digest("hex").slice(0, 32)}`;
    return { source, value: encodePlace({ ...place, timeUs: i + 1, done: true }) };
  });
  await app.buffer.setMarks(places);
  const next = new FileTail({
    ...sourceParts(app.buffer),
    config: tailConfig(join(app.folder, "*.log"), { name: "app" }),
  });
  await next.start();
  // Those that were there at the start count as well.
  for (let i = 0; i < 52; i++) await app.write(`new${i}x.log`, `${i}\n`);
  await until(() => app.buffer.usage().waitingRecords === 52);
  for (let i = 0; i < 52; i++) await rm(join(app.folder, `new${i}x.log`));
  const marks = () => app.buffer.marks("file/app/at/");
  await until(async () => (await marks()).length <= 500);
  const left = await marks();
  assert.ok(left.length >= 480, String(left.length));
  const newest = createHash("sha256").update(join(app.folder, "new51x.log")).digest("hex").slice(0, 32);
  assert.ok(left.includes(`file/app/at/${newest}`), "the newest is remembered");
  await next.close();
});
