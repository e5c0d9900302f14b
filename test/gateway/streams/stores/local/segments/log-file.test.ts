import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import fc from "fast-check";
import {
  BLOCK_BYTES,
  LogFile,
  MAX_PADDING_BYTES,
} from "../../../../../../gateway/streams/stores/local/segments/log-file.ts";

async function inFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "headwater-log-file-"));
  try {
    await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const step = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 3 * BLOCK_BYTES }) },
  { weight: 1, arbitrary: fc.integer({ min: 2_000_000, max: 5_000_000 }) },
  { weight: 1, arbitrary: fc.constantFrom(BLOCK_BYTES, 2 * BLOCK_BYTES) },
  { weight: 1, arbitrary: fc.constant("reopen" as const) },
  { weight: 1, arbitrary: fc.constant("cut" as const) },
);

test("what is written stands in the file to the byte, whatever the sizes, cuts and reopenings", async () => {
  await inFolder(async (folder) => {
    let turn = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), async (steps) => {
        const path = join(folder, String(turn++));
        let expected = Buffer.alloc(0);
        let file = await LogFile.open(path, "w+");
        for (const next of steps) {
          if (next === "reopen") {
            await file.close();
            file = await LogFile.open(path, "r+");
          } else if (next === "cut") {
            expected = expected.subarray(0, Math.floor(expected.length / 2));
            await file.truncate(expected.length);
            assert.equal((await stat(path)).size, expected.length);
          } else {
            const bytes = randomBytes(next);
            await file.write(bytes, expected.length);
            await file.datasync();
            expected = Buffer.concat([expected, bytes]);
          }
          const found = await readFile(path);
          assert.ok(found.subarray(0, expected.length).equals(expected));
          assert.ok(found.length - expected.length <= MAX_PADDING_BYTES);
          // Whoever opens a file is to find out, and to cut it.
          if (next !== "reopen") assert.equal(file.isPadded, found.length > expected.length);
          assert.ok(found.subarray(expected.length).every((byte) => byte === 0));
        }
        await file.close();
        await rm(path);
      }),
      { numRuns: 25 },
    );
  });
});

test("many files are written at once without mixing up their bytes", async () => {
  await inFolder(async (folder) => {
    await Promise.all(
      Array.from({ length: 12 }, async (_, i) => {
        const file = await LogFile.open(join(folder, String(i)), "w+");
        for (let at = 0; at < 20; at++) await file.write(Buffer.alloc(3_000, i), at * 3_000);
        await file.truncate(60_000);
        await file.close();
        assert.ok((await readFile(join(folder, String(i)))).equals(Buffer.alloc(60_000, i)));
      }),
    );
  });
});
