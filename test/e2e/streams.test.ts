import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { runStreamOrdeal } from "../support/stream-ordeal.ts";

test("a gateway that is killed, cut off from power and full loses, doubles and changes nothing; flipped bytes are reported", {
  timeout: 290_000,
}, async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-ordeal-"));
  const seed = Math.floor(Math.random() * 2 ** 31);
  t.diagnostic(`seed ${seed}`);
  const verdict = await runStreamOrdeal({ dir, seed, seconds: 8, say: (line) => t.diagnostic(line) });
  assert.deepEqual(verdict.findings, [], `seed ${seed}`);
  const { lost, doubled, corrupted, compared } = verdict;
  assert.deepEqual({ lost, doubled, corrupted }, { lost: 0, doubled: 0, corrupted: 0 });
  assert.ok(compared.acknowledgedFrames! > 100 && compared.acknowledgedPuts! > 20, JSON.stringify(compared));
});
