import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { runOrdeal } from "../support/ordeal.ts";

test("killed ten times in a minute, the pipeline loses, doubles and changes nothing", {
  timeout: 900_000,
}, async (context) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-e2e-"));
  const seed = Number(process.env.HEADWATER_SEED ?? Math.floor(Math.random() * 2 ** 31));
  context.diagnostic(`seed ${seed}, folder ${dir}`);
  const verdict = await runOrdeal({
    dir,
    seed,
    seconds: 60,
    kills: 5,
    say: (line) => context.diagnostic(line),
  });
  context.diagnostic(JSON.stringify(verdict.compared));
  assert.deepEqual(verdict.findings, []);
  assert.deepEqual([verdict.lost, verdict.doubled, verdict.corrupted], [0, 0, 0]);
  assert.ok(verdict.compared.messages > 1_000, "too few messages to prove anything");
  assert.ok(verdict.compared.boardRecords > 200, "too few board records to prove anything");
  assert.ok(verdict.compared.windows > 20, "too few windows to prove anything");
  assert.ok(verdict.compared.pictures > 200, "too few pictures to prove anything");
  assert.ok(verdict.compared.storedUnits > 5, "too few stored units to prove anything");
});
