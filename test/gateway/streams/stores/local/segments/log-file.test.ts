import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { mkdtemp, open, readdir, readFile, readlink, rm, stat } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import fc from "fast-check";
import {
  BLOCK_BYTES,
  LogFile,
  MAX_PADDING_BYTES,
} from "../../../../../../gateway/streams/stores/local/segments/log-file.ts";
import { removeFolder } from "../../../../../support/remove-folder.ts";

async function inFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "headwater-log-file-"));
  try {
    await use(folder);
  } finally {
    await removeFolder(folder);
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

/** Puts `fake` in the place of a function of node:fs for as long as `use` runs; it gets the real one. */
async function instead<K extends "write" | "fdatasync">(
  name: K,
  fake: (real: (typeof fs)[K], ...args: unknown[]) => void,
  use: () => Promise<void>,
): Promise<void> {
  const real = fs[name];
  fs[name] = ((...args: unknown[]) => fake(real, ...args)) as (typeof fs)[K];
  syncBuiltinESMExports();
  try {
    await use();
  } finally {
    fs[name] = real;
    syncBuiltinESMExports();
  }
}

type Write = (fd: number, bytes: Buffer, offset: number, length: number, at: number, done: unknown) => void;
type Done = (error: Error | null, bytes?: number) => void;

function failing(code: string): Error {
  return Object.assign(new Error(code), { code });
}

test("what the kernel takes in part, or refuses as unaligned, stands in the file all the same", async () => {
  await inFolder(async (folder) => {
    let turn = 0;
    const outcome = fc.constantFrom("whole", "short", "nothing", "EINVAL" as const);
    const writes = fc.array(fc.record({ bytes: fc.integer({ min: 1, max: 60_000 }), outcome }), {
      maxLength: 12,
    });
    await fc.assert(
      fc.asyncProperty(writes, async (steps) => {
        const path = join(folder, String(turn++));
        const file = await LogFile.open(path, "w+");
        let expected = Buffer.alloc(0);
        let seen = 0;
        for (const { bytes, outcome } of [{ bytes: 10, outcome: "whole" }, ...steps]) {
          const more = randomBytes(bytes);
          const fake = (real: unknown, ...args: unknown[]): void => {
            const [fd, from, offset, length, at, done] = args as [
              number,
              Buffer,
              number,
              number,
              number,
              Done,
            ];
            seen++;
            if (outcome === "EINVAL") return void setImmediate(done, failing("EINVAL"));
            if (outcome === "nothing") return void setImmediate(done, null, 0);
            const taken = outcome === "short" ? Math.floor(length / 2 / BLOCK_BYTES) * BLOCK_BYTES : length;
            (real as Write)(fd, from, offset, Math.max(taken, BLOCK_BYTES), at, done);
          };
          await instead("write", fake, () => file.write(more, expected.length));
          expected = Buffer.concat([expected, more]);
          const found = await readFile(path);
          assert.ok(found.subarray(0, expected.length).equals(expected));
          assert.ok(found.subarray(expected.length).every((byte) => byte === 0));
          assert.equal(file.isPadded, found.length > expected.length);
        }
        await file.close();
        assert.ok(seen > 0 || !(await hasDirectWrites(folder)), "the usual way was gone");
      }),
      { numRuns: 40 },
    );
  });
});

test("a file system that turns out to know no direct writes is written through the page cache", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "file");
    const file = await LogFile.open(path, "w+");
    const handle = Object.getPrototypeOf(file.handle) as { write: (...args: unknown[]) => Promise<unknown> };
    const real = handle.write;
    let refused = 0;
    handle.write = async function (this: unknown, ...args: unknown[]) {
      if (refused++ === 0) throw failing("EINVAL");
      return await real.apply(this, args);
    };
    const bytes = randomBytes(30_000);
    try {
      const refuse = (_: unknown, ...args: unknown[]): void =>
        void setImmediate(args[5] as Done, failing("EINVAL"));
      await instead("write", refuse, () => file.write(bytes.subarray(0, 10_000), 0));
    } finally {
      handle.write = real;
    }
    await file.write(bytes.subarray(10_000), 10_000);
    await file.datasync();
    assert.ok((await readFile(path)).subarray(0, bytes.length).equals(bytes));
    await file.close();
  });
});

test("a write or a sync that fails says so, and the next one has all it needs", async () => {
  await inFolder(async (folder) => {
    if (!(await hasDirectWrites(folder))) return;
    const path = join(folder, "file");
    const file = await LogFile.open(path, "w+");
    const bytes = randomBytes(5_000);
    await file.write(bytes, 0);
    const full = (_: unknown, ...args: unknown[]): void =>
      void setImmediate(args.at(-1) as Done, failing("ENOSPC"));
    for (let i = 0; i < 6; i++) {
      await instead("write", full, () => assert.rejects(file.write(bytes, 5_000), { code: "ENOSPC" }));
      await instead("fdatasync", full, () => assert.rejects(file.datasync(), { code: "ENOSPC" }));
    }
    await file.write(bytes, 5_000);
    await file.datasync();
    assert.ok((await readFile(path)).subarray(0, 10_000).equals(Buffer.concat([bytes, bytes])));
    await file.close();
    await assert.rejects(file.write(bytes, 10_000), { code: "EBADF" });
    await assert.rejects(file.datasync(), { code: "EBADF" });
  });
});

test("what is written past the page cache is on disk at once; what is not waits for its fdatasync", async () => {
  await inFolder(async (folder) => {
    if (!(await hasDirectWrites(folder))) return;
    const path = join(folder, "file");
    const flagsOf = async (fd: string): Promise<number> => {
      const info = await readFile(`/proc/self/fdinfo/${fd}`, "utf8");
      return Number.parseInt(/^flags:\s*([0-7]+)$/m.exec(info)![1]!, 8);
    };
    let syncs = 0;
    const count = (real: unknown, ...args: unknown[]): void => {
      syncs++;
      (real as (...args: unknown[]) => void)(...args);
    };
    const syncsOf = async (file: LogFile): Promise<number> => {
      syncs = 0;
      await instead("fdatasync", count, () => file.datasync());
      return syncs;
    };
    let file = await LogFile.open(path, "w+");
    const isOurs = async (fd: string) => (await readlink(`/proc/self/fd/${fd}`).catch(() => "")) === path;
    const fds = await readdir("/proc/self/fd");
    const ours = (await Promise.all(fds.map(isOurs))).flatMap((is, i) => (is ? [fds[i]!] : []));
    const { O_DIRECT, O_DSYNC } = fs.constants;
    const flags = await Promise.all(ours.map(flagsOf));
    assert.equal(flags.filter((one) => (one & O_DIRECT) !== 0).length, 1);
    assert.ok(flags.every((one) => (one & O_DIRECT) === 0 || (one & O_DSYNC) === O_DSYNC));
    let at = 0;
    const write = async (bytes: number): Promise<void> => {
      await file.write(randomBytes(bytes), at);
      at += bytes;
    };
    await write(100);
    assert.equal(await syncsOf(file), 1);
    for (const bytes of [10, 5_000, 70_000, 5_000_000]) {
      await write(bytes);
      assert.equal(await syncsOf(file), 0);
    }
    const fail = (_: unknown, ...args: unknown[]): void =>
      void setImmediate(args.at(-1) as Done, failing("EIO"));
    await instead("write", fail, () => assert.rejects(file.write(randomBytes(10), at), { code: "EIO" }));
    assert.equal(await syncsOf(file), 1);
    await file.close();
    // Who comes after a crash knows nothing of what is on disk.
    file = await LogFile.open(path, "r+");
    assert.equal(await syncsOf(file), 1);
    await file.close();
  });
});

test("closing waits for what is under way", async () => {
  await inFolder(async (folder) => {
    if (!(await hasDirectWrites(folder))) return;
    const file = await LogFile.open(join(folder, "file"), "w+");
    const order: string[] = [];
    const held: (() => void)[] = [];
    const hold = (real: unknown, ...args: unknown[]): void =>
      void held.push(() => (real as (...args: unknown[]) => void)(...args));
    let closed: Promise<unknown> | undefined;
    await instead("write", hold, async () => {
      await instead("fdatasync", hold, async () => {
        void file.write(randomBytes(100), 0).then(() => order.push("written"));
        void file.datasync().then(() => order.push("synced"));
        closed = file.close().then(() => order.push("closed"));
        await new Promise((resolve) => setImmediate(resolve));
        assert.deepEqual(order, []);
      });
    });
    for (const go of held) go();
    await closed;
    assert.equal(order.length, 3);
    assert.equal(order.at(-1), "closed");
    assert.equal(held.length, 2);
  });
});

async function hasDirectWrites(folder: string): Promise<boolean> {
  const { O_CREAT, O_WRONLY, O_DIRECT } = fs.constants;
  const file = await open(join(folder, "direct"), O_CREAT | O_WRONLY | O_DIRECT).catch(() => undefined);
  await file?.close();
  return file !== undefined;
}
