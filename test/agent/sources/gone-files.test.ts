/** Hundreds of files that are gone are looked for by few looks at their folder. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { appendFile, mkdir, rm } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { FileTail } from "../../../agent/sources/file-tail.ts";
import { encodePlace } from "../../../agent/sources/tail/file-place.ts";
import { openBuffer, temporaryFolder } from "../buffer/records/buffer-fixture.ts";
import { sourceParts, stored, tailConfig, until } from "./source-parts.ts";

/** Folders that are listed: in all, and the most between two scans, each of which begins with a list of its own kind. */
class Lists {
  count = 0;
  mostAScan = 0;
  #inScan = 0;

  constructor(t: TestContext) {
    const calls = fs.promises as unknown as { readdir: (...args: unknown[]) => Promise<unknown> };
    const plain = calls.readdir;
    calls.readdir = (...args) => {
      this.count++;
      this.#inScan = args[1] === undefined ? this.#inScan + 1 : 0;
      this.mostAScan = Math.max(this.mostAScan, this.#inScan);
      return plain(...args);
    };
    syncBuiltinESMExports();
    t.after(() => {
      calls.readdir = plain;
      syncBuiltinESMExports();
    });
  }
}

const markOf = (path: string): string =>
  `file/app/at/${createHash("sha256").update(path).digest("hex").slice(0, 32)}`;

/** A buffer that knows the places of so many files, of which none is there any more. */
async function goneFiles(t: TestContext, count: number): Promise<{ folder: string; buffer: RecordBuffer }> {
  const root = await temporaryFolder(t);
  const folder = join(root, "logs");
  await mkdir(folder);
  const buffer = await openBuffer(join(root, "buffer"));
  t.after(() => buffer.close());
  const places = Array.from({ length: count }, (_, i) => {
    const path = join(folder, `${i}x.log`);
    const samples = { head: "b25lCg==", before: "b25lCg==" };
    const place = { path, id: `0:${i}`, bornNs: "1", offset: 4, ...samples, modifiedNs: "1" };
    return { source: markOf(path), value: encodePlace({ ...place, timeUs: i + 1, done: true }) };
  });
  await buffer.setMarks(places);
  return { folder, buffer };
}

async function followed(t: TestContext, folder: string, buffer: RecordBuffer): Promise<FileTail> {
  const config = tailConfig(join(folder, "*.log"), { name: "app" });
  const source = new FileTail({ ...sourceParts(buffer), config });
  await source.start();
  t.after(() => source.close());
  return source;
}

test("at the start hundreds of files that are gone cost a few lists of their folder", async (t) => {
  const { folder, buffer } = await goneFiles(t, 500);
  await appendFile(join(folder, "here.log"), "1\n");
  const lists = new Lists(t);
  await followed(t, folder, buffer);
  await until(() => buffer.usage().waitingRecords === 1);
  // It was two and more for each of them, before anything else was looked at.
  assert.ok(lists.count < 200, `${lists.count} lists`);
});

test("forgetting the oldest of hundreds costs a few lists, and none that has a rest beside it is forgotten", async (t) => {
  const { folder, buffer } = await goneFiles(t, 500);
  // Read to its end, as far as that can be told; its place is the oldest.
  await appendFile(join(folder, "0x.log.1"), "one\n");
  const lists = new Lists(t);
  await followed(t, folder, buffer);
  const names = Array.from({ length: 52 }, (_, i) => join(folder, `new${i}.log`));
  for (const name of names) await appendFile(name, "1\n");
  await until(async () => (await stored(buffer)).length >= 52);
  for (const name of names) await rm(name);
  const marks = (): Promise<string[]> => buffer.marks("file/app/at/");
  await until(async () => (await marks()).length <= 501);
  const left = await marks();
  assert.ok(left.includes(markOf(join(folder, "0x.log"))), "what is left of it would be read anew");
  assert.ok(!left.includes(markOf(join(folder, "1x.log"))), "the next oldest is forgotten");
  assert.ok(lists.mostAScan < 800, `${lists.mostAScan} lists between two scans`);
});
