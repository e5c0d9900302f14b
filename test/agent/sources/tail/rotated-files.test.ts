import assert from "node:assert/strict";
import { link, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import test from "node:test";
import { FileMoved } from "../../../../agent/sources/tail/file-place.ts";
import { isRotationOf, rotatedFiles } from "../../../../agent/sources/tail/rotated-files.ts";
import { pause } from "../../../../runtime/backoff.ts";
import { temporaryFolder } from "../../buffer/records/buffer-fixture.ts";

test("rotations are known by their names", () => {
  for (const name of ["app.log.1", "app.log-20261121", "app.log.2.gz", "app.1.log", "app-2026-11-21.log.gz"])
    assert.ok(isRotationOf("app.log", name), name);
  for (const name of [
    "app.log",
    "app-2.log",
    "web.log",
    "app.log.1.xz",
    "apps.log",
    "app.log1",
    "app-x-2026112.log",
  ])
    assert.ok(!isRotationOf("app.log", name), name);
});

test("each file is listed once, the oldest first, however many names it has", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "app.log");
  for (const name of ["app.log.2.gz", "app.log.1", "app.log", "other.log"]) {
    await writeFile(join(folder, name), name);
    await pause(12);
  }
  await writeFile(join(folder, "app.log.1.gz"), "is being made of app.log.1");
  await link(path, join(folder, "app.log-now"));
  const names = (await rotatedFiles(path)).map((file) => basename(file.path));
  assert.deepEqual(names, ["app.log.2.gz", "app.log.1", "app.log"]);
});

test("a rotation that is under way hides no file and shows none twice", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "app.log");
  const count = 15;
  for (let i = 1; i < count; i++) await writeFile(`${path}.${i}`, "x");
  await writeFile(path, "x");
  let done = false;
  const rotating = (async () => {
    while (!done) {
      await rm(`${path}.${count}`, { force: true });
      for (let i = count - 1; i >= 1; i--) await rename(`${path}.${i}`, `${path}.${i + 1}`);
      await rename(path, `${path}.1`);
      await writeFile(path, "x");
      await rm(`${path}.${count}`, { force: true });
      await pause(20);
    }
  })();
  let listed = 0;
  // On a slow machine most come while it is under way.
  for (let i = 0; i < 60 || listed === 0; i++) {
    try {
      const found = await rotatedFiles(path);
      const ids = new Set(found.map(({ id }) => id));
      assert.equal(ids.size, found.length);
      assert.ok(found.length >= count - 1 && found.length <= count + 1, String(found.length));
      listed++;
    } catch (error) {
      // Allowed: the source looks again.
      assert.ok(error instanceof FileMoved, String(error));
    }
  }
  done = true;
  await rotating;
  assert.ok((await stat(path)).isFile());
});
