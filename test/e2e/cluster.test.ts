import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { runClusterOrdeal } from "../support/cluster-ordeal.ts";
import { natsMissing } from "../support/nats-cluster.ts";

test("two gateways in front of a NATS cluster: killed gateways and nodes, and hung ones, lose and double nothing", {
  skip: natsMissing() ?? false,
  timeout: 240_000,
}, async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-cluster-"));
  const seed = Math.floor(Math.random() * 2 ** 31);
  t.diagnostic(`seed ${seed}`);
  const verdict = await runClusterOrdeal({ dir, seed, seconds: 5, say: (line) => t.diagnostic(line) });
  assert.deepEqual(verdict.findings, [], `seed ${seed}`);
  const { lost, doubled, corrupted, compared } = verdict;
  assert.deepEqual({ lost, doubled, corrupted }, { lost: 0, doubled: 0, corrupted: 0 });
  assert.ok(compared.acknowledgedFrames! > 100 && compared.acknowledgedPuts! > 20, JSON.stringify(compared));
  t.diagnostic(JSON.stringify(compared));
});
