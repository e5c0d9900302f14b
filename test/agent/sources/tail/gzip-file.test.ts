import assert from "node:assert/strict";
import { open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { GzipFile } from "../../../../agent/sources/tail/gzip-file.ts";
import { temporaryFolder } from "../../buffer/records/buffer-fixture.ts";

test("a compressed file is read like the plain one, wherever one looks", async (t) => {
  const path = join(await temporaryFolder(t), "a.gz");
  const plain = Buffer.from(Array.from({ length: 40_000 }, (_, i) => `line ${i}\n`).join(""));
  // Written in two goes, as by `gzip -c >> a.gz`.
  await writeFile(path, Buffer.concat([gzipSync(plain.subarray(0, 1_000)), gzipSync(plain.subarray(1_000))]));
  const look = fc.record({ at: fc.nat(plain.length + 1_000), length: fc.integer({ min: 1, max: 200_000 }) });
  await fc.assert(
    fc.asyncProperty(fc.array(look, { minLength: 1, maxLength: 5 }), async (looks) => {
      const file = new GzipFile(await open(path), path);
      for (const { at, length } of looks) {
        const into = Buffer.alloc(length + 3);
        const { bytesRead } = await file.read(into, 3, length, at);
        assert.deepEqual(into.subarray(3, 3 + bytesRead), plain.subarray(at, at + length));
      }
      assert.equal(file.damage, undefined);
      await file.close();
    }),
    { numRuns: 50 },
  );
});

test("what is cut off, or damaged, ends there and says so", async (t) => {
  const folder = await temporaryFolder(t);
  const plain = Buffer.from("a line\n".repeat(50_000));
  const packed = gzipSync(plain, { level: 0 });
  const read = async (bytes: Buffer): Promise<[Buffer, string | undefined]> => {
    const path = join(folder, "a.gz");
    await writeFile(path, bytes);
    const file = new GzipFile(await open(path), path);
    const into = Buffer.alloc(plain.length + 10);
    const { bytesRead } = await file.read(into, 0, into.length, 0);
    await file.close();
    return [into.subarray(0, bytesRead), file.damage];
  };
  const [cut, damage] = await read(packed.subarray(0, packed.length / 2));
  assert.ok(cut.length > 0 && cut.equals(plain.subarray(0, cut.length)));
  assert.match(damage ?? "", /a\.gz is damaged/);
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 100 }), async (bytes) => {
      await read(Buffer.from(bytes));
    }),
    { numRuns: 100 },
  );
});
