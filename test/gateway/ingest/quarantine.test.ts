import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { Quarantine } from "../../../gateway/ingest/quarantine.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";

const publish = (text: string) => ({
  timeUs: 1_700_000_000_000_000,
  client: "plain",
  topic: "t",
  reason: "test",
  payload: Buffer.from(text),
});

test("a quarantine whose folder could not be written takes publishes again once it can", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-quarantine-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const folder = join(dir, "quarantine");
  const quarantine = new Quarantine(folder, silentLog, new Metrics(), 200);
  await quarantine.start();
  await quarantine.keep(publish("1".repeat(60)));
  await rm(folder, { recursive: true });
  // The next is due for a new file, and there is no place for one.
  await assert.rejects(quarantine.keep(publish("2".repeat(60))));
  await assert.rejects(quarantine.keep(publish("3")));
  await mkdir(folder);
  await quarantine.keep(publish("4"));
  assert.equal(quarantine.status().publishes, 2);
  const lines = (await readFile(join(folder, "publishes.ndjson"), "utf8")).trim().split("\n");
  assert.equal(lines.length, 1);
  assert.equal(Buffer.from(JSON.parse(lines[0]!).payload, "base64").toString(), "4");
  await quarantine.close();
  await quarantine.close();
  await assert.rejects(quarantine.keep(publish("5")), /closed/);
});

test("a flood of invalid publishes writes few lines to the log, and the next line counts the others", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-quarantine-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const lines: Array<Record<string, unknown>> = [];
  const log = { ...silentLog, warn: (fields: Record<string, unknown>) => void lines.push(fields) };
  const quarantine = new Quarantine(dir, log, new Metrics());
  await quarantine.start();
  for (let i = 0; i < 25; i++) await quarantine.keep(publish(String(i)));
  assert.equal(lines.length, 10);
  await quarantine.keep({ ...publish("later"), timeUs: publish("").timeUs + 60_000_000 });
  assert.equal(lines.length, 11);
  assert.equal(lines[10]!.unsaid, 15);
  assert.equal(quarantine.status().publishes, 26);
  await quarantine.close();
});
