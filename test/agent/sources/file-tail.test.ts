import assert from "node:assert/strict";
import {
  appendFile,
  copyFile,
  readFile,
  rename,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { gzipSync } from "node:zlib";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { FileTail } from "../../../agent/sources/file-tail.ts";
import type { FileSourceConfig } from "../../../config/source-config.ts";
import { GAPS_STREAM } from "../../../protocol/topics.ts";
import { type Clock, systemClock } from "../../../runtime/clock.ts";
import { openBuffer, temporaryFolder } from "../buffer/records/buffer-fixture.ts";
import { drained, sourceParts, stored, tailConfig, until } from "./source-parts.ts";

async function tail(
  t: TestContext,
  buffer: RecordBuffer,
  path: string,
  config: Partial<FileSourceConfig> = {},
  clock: Clock = systemClock,
): Promise<FileTail> {
  const source = new FileTail({ ...sourceParts(buffer), clock, config: tailConfig(path, config) });
  t.after(() => source.close());
  await source.start();
  return source;
}

async function lines(buffer: RecordBuffer): Promise<unknown[]> {
  return (await stored(buffer)).map(({ line }) => line);
}

/** Its time passes when the test says so, and it knows how often it was asked. */
function stillClock() {
  const clock = {
    nowUs: systemClock.nowUs,
    ms: 1_000,
    asked: 0,
    monotonicMs: () => {
      clock.asked++;
      return clock.ms;
    },
  };
  return clock;
}

async function waiting(buffer: RecordBuffer, records: number): Promise<void> {
  await until(() => buffer.usage().waitingRecords >= records);
}

test("lines that a file has and gets become records; a line without its end waits", async (t) => {
  const folder = await temporaryFolder(t);
  const buffer = await openBuffer(join(folder, "buffer"));
  const path = join(folder, "app.log");
  const source = await tail(t, buffer, path);
  assert.equal(source.status().state, "waiting");
  await until(() => source.status().health === "idle");
  await writeFile(path, "one\r\n\ntwo\nthr");
  await waiting(buffer, 2);
  await appendFile(path, "ee\n");
  await waiting(buffer, 3);
  assert.deepEqual(await lines(buffer), ["one", "two", "three"]);
  assert.equal(source.status().health, "running");
  await source.close();
  assert.equal(source.status().state, "stopped");
  await buffer.close();
});

test("a restart goes on where the buffer has it, also over two rotations meanwhile", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "app.log");
  const first = await openBuffer(join(folder, "buffer"));
  await writeFile(path, "1\n2\n");
  const before = await tail(t, first, path);
  await waiting(first, 2);
  await before.close();
  await first.close();
  await appendFile(path, "3\n4");
  await rename(path, `${path}.2`);
  await new Promise((resolve) => setTimeout(resolve, 15));
  await writeFile(`${path}.1`, "5\n6\n");
  await new Promise((resolve) => setTimeout(resolve, 15));
  await writeFile(path, "7\n");
  const second = await openBuffer(join(folder, "buffer"));
  const after = await tail(t, second, path);
  await waiting(second, 7);
  assert.deepEqual(await lines(second), ["1", "2", "3", "4", "5", "6", "7"]);
  await after.close();
  await second.close();
});

test("what a program still writes into a renamed file is read before the new one", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "app.log");
  const buffer = await openBuffer(join(folder, "buffer"));
  await writeFile(path, "1\n");
  const clock = stillClock();
  const source = await tail(t, buffer, path, { rotateWaitMs: 4_000 }, clock);
  await waiting(buffer, 1);
  await rename(path, `${path}.1`);
  await writeFile(path, "4\n");
  await appendFile(`${path}.1`, "2\n");
  await waiting(buffer, 2);
  await appendFile(`${path}.1`, "3");
  // It asks three times a look at the most: by then it has seen that, and is quiet for long enough from here on.
  const before = clock.asked;
  await until(() => clock.asked >= before + 6);
  clock.ms += 4_000;
  await waiting(buffer, 4);
  await appendFile(path, "5\n");
  await waiting(buffer, 5);
  assert.deepEqual(await lines(buffer), ["1", "2", "3", "4", "5"]);
  await source.close();
  await buffer.close();
});

test("a file that is copied and truncated loses nothing of the copy, also when it has grown again", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "app.log");
  const first = await openBuffer(join(folder, "buffer"));
  await writeFile(path, "1\n2\n");
  const before = await tail(t, first, path);
  await waiting(first, 2);
  await before.close();
  await first.close();
  await appendFile(path, "3\n");
  await copyFile(path, `${path}.1`);
  await truncate(path, 0);
  await appendFile(path, "4\n5\n6\n7\n8\n");
  const second = await openBuffer(join(folder, "buffer"));
  const after = await tail(t, second, path);
  await waiting(second, 8);
  await appendFile(path, "9\n");
  await waiting(second, 9);
  // And while it runs.
  await copyFile(path, `${path}.1`);
  await truncate(path, 0);
  await until(async () => {
    await appendFile(path, "10\n");
    return second.usage().waitingRecords > 9;
  });
  assert.deepEqual((await lines(second)).slice(0, 10), ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]);
  assert.deepEqual(await stored(second, GAPS_STREAM), []);
  await after.close();
  await second.close();
});

test("a file that was replaced while nobody read it is reported as a gap", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "app.log");
  const first = await openBuffer(join(folder, "buffer"));
  await writeFile(path, "1\n2\n");
  const before = await tail(t, first, path);
  await waiting(first, 2);
  await before.close();
  await first.close();
  await rm(path);
  await writeFile(path, "x\ny\nz\n");
  const second = await openBuffer(join(folder, "buffer"));
  const after = await tail(t, second, path);
  await waiting(second, 6);
  assert.deepEqual(await lines(second), ["1", "2", "x", "y", "z"]);
  const [gap] = await stored(second, GAPS_STREAM);
  assert.match(String(gap!.reason), /replaced/);
  await after.close();
  await second.close();
});

test("from: end skips what was there, once", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "app.log");
  const first = await openBuffer(join(folder, "buffer"));
  await writeFile(path, "old\nhalf");
  const before = await tail(t, first, path, { from: "end" });
  await until(() => before.status().health === "running");
  await before.close();
  await first.close();
  await appendFile(path, " a line\nnew\n");
  const second = await openBuffer(join(folder, "buffer"));
  const after = await tail(t, second, path, { from: "end" });
  await waiting(second, 2);
  assert.deepEqual(await lines(second), ["half a line", "new"]);
  await after.close();
  await second.close();
});

test("lines that belong to one another are one record, ended by the next or by silence", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "app.log");
  const buffer = await openBuffer(join(folder, "buffer"));
  const source = await tail(t, buffer, path, { multiline: { start: "^\\d{4}-", flushAfterMs: 60 } });
  await writeFile(path, "2026-01-01 boom\n  at one\n  at two\n2026-01-02 fine\n");
  await waiting(buffer, 1);
  // By now the silence may have ended the second.
  assert.equal((await lines(buffer))[0], "2026-01-01 boom\n  at one\n  at two");
  await waiting(buffer, 2);
  assert.deepEqual((await lines(buffer)).slice(1), ["2026-01-02 fine"]);
  await source.close();
  await buffer.close();
});

test("CSV goes on in the middle of a file with the header of its first line", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "log.csv");
  const first = await openBuffer(join(folder, "buffer"));
  await writeFile(path, "sensor,temperature\nbarn,20.5\n");
  const before = await tail(t, first, path, { format: "csv" });
  await waiting(first, 1);
  await before.close();
  await first.close();
  await appendFile(path, "shed,19\nnonsense\n");
  const second = await openBuffer(join(folder, "buffer"));
  const after = await tail(t, second, path, { format: "csv" });
  await waiting(second, 3);
  const records = await stored(second);
  assert.deepEqual(
    records.map(({ sensor, temperature }) => [sensor, temperature]),
    [
      ["barn", 20.5],
      ["shed", 19],
      ["log", undefined],
    ],
  );
  assert.equal(Buffer.from(String(records[2]!.raw), "base64").toString(), "nonsense");
  assert.equal(after.status().rejected, 1);
  await after.close();
  await second.close();
});

test("a full buffer is waited for, and nothing is lost or doubled", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "app.log");
  const buffer = await openBuffer(join(folder, "buffer"), { maxBytes: 60_000, whenFull: "reject" });
  const count = 3_000;
  await writeFile(path, Array.from({ length: count }, (_, i) => `line ${i} ${"x".repeat(50)}\n`).join(""));
  const source = await tail(t, buffer, path);
  const seen = await drained(buffer, count);
  assert.deepEqual(
    seen.map(({ line }) => String(line).split(" ")[1]),
    Array.from({ length: count }, (_, i) => String(i)),
  );
  await source.close();
  await buffer.close();
});

/** As `gzip` does: the time of the last write stays. */
async function compress(path: string): Promise<void> {
  const { mtime, atime } = await stat(path);
  await writeFile(`${path}.gz`, gzipSync(await readFile(path)));
  await utimes(`${path}.gz`, atime, mtime);
  await rm(path);
}

test("what was not read before it was rotated and compressed is read from the compressed file", async (t) => {
  for (const name of ["app.log.1", "app-20261121.log"]) {
    const folder = await temporaryFolder(t);
    const path = join(folder, "app.log");
    const first = await openBuffer(join(folder, "buffer"));
    await writeFile(path, "1\n2\n");
    const before = await tail(t, first, path);
    await waiting(first, 2);
    await before.close();
    await first.close();
    const tick = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 15));
    await appendFile(path, "3\n4");
    await rename(path, join(folder, name.replace("1", "2")));
    await compress(join(folder, name.replace("1", "2")));
    await tick();
    await writeFile(join(folder, name), "5\n6\n");
    await compress(join(folder, name));
    await tick();
    await writeFile(path, "7\n");
    const second = await openBuffer(join(folder, "buffer"));
    const after = await tail(t, second, path);
    await waiting(second, 7);
    await appendFile(path, "8\n");
    await waiting(second, 8);
    assert.deepEqual(await lines(second), ["1", "2", "3", "4", "5", "6", "7", "8"]);
    assert.deepEqual(await stored(second, GAPS_STREAM), []);
    await after.close();
    await second.close();
  }
});

test("a place in a compressed file is kept over a restart, and read files are not read again", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "app.log");
  const count = 30_000;
  const all = Array.from({ length: count }, (_, i) => `line ${i}`);
  const first = await openBuffer(join(folder, "buffer"), { maxBytes: 4_000_000, whenFull: "reject" });
  await writeFile(path, `${all[0]}\n`);
  const before = await tail(t, first, path);
  await waiting(first, 1);
  await before.close();
  await first.close();
  await appendFile(path, `${all.slice(1).join("\n")}\n`);
  await rename(path, `${path}.1`);
  await compress(`${path}.1`);
  const seen: unknown[] = [];
  for (let restarts = 0; seen.length < count; restarts++) {
    // What is taken out makes room, so that the reader stops in the midst of it, each time further on.
    const buffer = await openBuffer(join(folder, "buffer"), { maxBytes: 4_000_000, whenFull: "reject" });
    const source = await tail(t, buffer, path);
    await until(() => buffer.usage().waitingRecords > 0);
    for (const { line } of await drained(buffer, Math.min(9_000, count - seen.length))) seen.push(line);
    await source.close();
    for (const { line } of await drained(buffer, buffer.usage().waitingRecords)) seen.push(line);
    await buffer.close();
    assert.ok(restarts < 20);
  }
  assert.deepEqual(seen, all);
});

test("a rotated file whose compressed form is damaged is read up to there, and the rest is a gap", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "app.log");
  const first = await openBuffer(join(folder, "buffer"));
  await writeFile(path, "1\n");
  const before = await tail(t, first, path);
  await waiting(first, 1);
  await before.close();
  await first.close();
  await appendFile(path, `2\n${"x".repeat(1_000)}\n`);
  await rename(path, `${path}.1`);
  await compress(`${path}.1`);
  await truncate(`${path}.1.gz`, (await stat(`${path}.1.gz`)).size - 10);
  await writeFile(path, "3\n");
  const second = await openBuffer(join(folder, "buffer"));
  const after = await tail(t, second, path);
  await until(async () => (await lines(second)).includes("3"));
  const [gap] = await stored(second, GAPS_STREAM);
  assert.match(String(gap!.reason), /app\.log\.1\.gz is damaged/);
  await after.close();
  await second.close();
});

test("a truncated file's copy that is compressed already gives what was missed", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "app.log");
  const first = await openBuffer(join(folder, "buffer"));
  await writeFile(path, "1\n2\n");
  const before = await tail(t, first, path);
  await waiting(first, 2);
  await before.close();
  await first.close();
  await appendFile(path, "3\n");
  await copyFile(path, `${path}.1`);
  await truncate(path, 0);
  await compress(`${path}.1`);
  await appendFile(path, "4\n");
  const second = await openBuffer(join(folder, "buffer"));
  const after = await tail(t, second, path);
  await waiting(second, 4);
  assert.deepEqual(await lines(second), ["1", "2", "3", "4"]);
  await after.close();
  await second.close();
});

test("a file that was filled, copied and truncated before anything of it was read is read from the copy", async (t) => {
  for (const restart of [true, false]) {
    const folder = await temporaryFolder(t);
    const path = join(folder, "app.log");
    let buffer = await openBuffer(join(folder, "buffer"));
    await writeFile(path, "1\n");
    let source = await tail(t, buffer, path, restart ? {} : { pollMs: 200 });
    await waiting(buffer, 1);
    await rename(path, `${path}-1`);
    await writeFile(path, "");
    // It is begun, and nothing of it is read.
    const { ino } = await stat(path);
    await until(async () => String(await buffer.mark("file/log")).includes(`:${ino}"`));
    if (restart) {
      await source.close();
      await buffer.close();
    }
    await appendFile(path, "2\n");
    await copyFile(path, `${path}-2`);
    await truncate(path, 0);
    await appendFile(path, "3\n");
    if (restart) {
      buffer = await openBuffer(join(folder, "buffer"));
      source = await tail(t, buffer, path);
    }
    await waiting(buffer, 3);
    await appendFile(path, "4\n");
    await waiting(buffer, 4);
    assert.deepEqual(await lines(buffer), ["1", "2", "3", "4"]);
    await source.close();
    await buffer.close();
  }
});
