import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { CredentialError, withCredentials } from "../../runtime/credentials.ts";
import { removeFolder } from "../support/remove-folder.ts";

test("credentials are found by their names, beside the environment", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "headwater-credentials-"));
  t.after(() => removeFolder(folder));
  await writeFile(join(folder, "secret_CAMERA_PASSWORD"), "hush hush\n");
  await writeFile(join(folder, "PLAIN"), "a\nb\r\n");
  await writeFile(join(folder, "secret_not a name"), "x");
  const environment = { CREDENTIALS_DIRECTORY: folder, PLAIN: "variable", HOME: "/root" };
  const found = await withCredentials(environment);
  assert.deepEqual(found, { ...environment, PLAIN: "a\nb", CAMERA_PASSWORD: "hush hush" });
  assert.equal(environment.PLAIN, "variable");

  await writeFile(join(folder, "HUGE"), Buffer.alloc(70_000));
  await assert.rejects(withCredentials(environment), CredentialError);
  await rm(join(folder, "HUGE"));
  await mkdir(join(folder, "FOLDER"));
  await assert.rejects(withCredentials(environment), /CREDENTIAL|FOLDER: EISDIR/);
});

test("without credentials the environment is as it was", async () => {
  const environment = { A: "1" };
  assert.equal(await withCredentials(environment), environment);
  const nowhere = { CREDENTIALS_DIRECTORY: join(tmpdir(), "headwater-no-such-folder"), A: "1" };
  assert.deepEqual(await withCredentials(nowhere), nowhere);
});
