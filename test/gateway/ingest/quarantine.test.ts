import assert from "node:assert/strict";
import { mkdtemp, open, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { Quarantine } from "../../../gateway/ingest/quarantine.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const publish = (text: string) => ({
  timeUs: 1_700_000_000_000_000,
  client: "plain",
  topic: "t",
  reason: "test",
  payload: Buffer.from(text),
});

test("a quarantine whose folder could not be written takes publishes again once it can", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-quarantine-"));
  t.after(() => removeFolder(dir));
  const folder = join(dir, "quarantine");
  const quarantine = new Quarantine(folder, silentLog, new Metrics(), 200);
  await quarantine.start();
  await quarantine.keep(publish("1".repeat(60)));
  await rm(folder, { recursive: true });
  await writeFile(folder, "in the folder's place");
  await assert.rejects(quarantine.keep(publish("2".repeat(60))));
  await assert.rejects(quarantine.keep(publish("3")));
  await rm(folder);
  await quarantine.keep(publish("4"));
  assert.equal(quarantine.status().publishes, 2);
  const lines = (await readFile(join(folder, "publishes.ndjson"), "utf8")).trim().split("\n");
  assert.equal(lines.length, 1);
  assert.equal(Buffer.from(JSON.parse(lines[0]!).payload, "base64").toString(), "4");
  await quarantine.close();
  await quarantine.close();
  await assert.rejects(quarantine.keep(publish("5")), /closed/);
});

test("what comes after its file, or the whole folder, was removed or moved is kept all the same", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-quarantine-"));
  t.after(() => removeFolder(dir));
  const folder = join(dir, "quarantine");
  const file = join(folder, "publishes.ndjson");
  const quarantine = new Quarantine(folder, silentLog, new Metrics());
  await quarantine.start();
  const ways = [
    () => rm(file),
    () => rm(folder, { recursive: true }),
    () => rename(file, join(dir, "moved")),
  ];
  for (const [i, remove] of ways.entries()) {
    await quarantine.keep(publish("before"));
    await remove();
    await quarantine.keep(publish(`after ${i}`));
    const [line, ...more] = (await readFile(file, "utf8")).trim().split("\n");
    assert.equal(Buffer.from(JSON.parse(line!).payload, "base64").toString(), `after ${i}`);
    assert.deepEqual(more, []);
    assert.equal(quarantine.status().keptBytes, (await stat(file)).size);
  }
  await quarantine.close();
});

test("a flood of invalid publishes writes few lines to the log, and the next line counts the others", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-quarantine-"));
  t.after(() => removeFolder(dir));
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

test("what comes while the disk is at work goes to it together, and all of it is there", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-quarantine-"));
  t.after(() => removeFolder(dir));
  const quarantine = new Quarantine(dir, silentLog, new Metrics());
  await quarantine.start();
  const any = await open(join(dir, "any"), "w");
  const datasync = t.mock.method(Object.getPrototypeOf(any), "datasync");
  await any.close();
  await Promise.all(Array.from({ length: 2_000 }, (_, i) => quarantine.keep(publish(`ü${i}`))));
  assert.ok(datasync.mock.callCount() <= 4, `${datasync.mock.callCount()} times`);
  const text = await readFile(join(dir, "publishes.ndjson"), "utf8");
  const found = text
    .trim()
    .split("\n")
    .map((line) => Buffer.from(JSON.parse(line).payload, "base64").toString());
  assert.deepEqual(
    found,
    Array.from({ length: 2_000 }, (_, i) => `ü${i}`),
  );
  assert.equal(quarantine.status().keptBytes, Buffer.byteLength(text));
  await quarantine.close();
});

test("no file grows above its limit, however much comes together", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-quarantine-"));
  t.after(() => removeFolder(dir));
  const quarantine = new Quarantine(dir, silentLog, new Metrics(), 1_000);
  await quarantine.start();
  await Promise.all(Array.from({ length: 100 }, (_, i) => quarantine.keep(publish(String(i)))));
  for (const name of ["publishes.ndjson", "publishes.1.ndjson"]) {
    const text = await readFile(join(dir, name), "utf8");
    assert.ok(text.length > 0 && text.length <= 1_000, `${text.length} bytes`);
  }
  await quarantine.close();
});

test("behind a line that a crash has torn, the next one stands by itself", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-quarantine-"));
  t.after(() => removeFolder(dir));
  await writeFile(join(dir, "publishes.ndjson"), '{"time":"2023-');
  const quarantine = new Quarantine(dir, silentLog, new Metrics());
  await quarantine.start();
  await quarantine.keep(publish("1"));
  await quarantine.keep(publish("2"));
  await quarantine.close();
  const lines = (await readFile(join(dir, "publishes.ndjson"), "utf8")).trim().split("\n");
  assert.deepEqual(
    lines.slice(1).map((line) => Buffer.from(JSON.parse(line).payload, "base64").toString()),
    ["1", "2"],
  );
});

test("a reason is told in a few words, whatever a client had a hand in", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-quarantine-"));
  t.after(() => removeFolder(dir));
  const quarantine = new Quarantine(dir, silentLog, new Metrics());
  await quarantine.start();
  await quarantine.keep({ ...publish("1"), reason: `there is no stream ${"x".repeat(60_000)}` });
  assert.equal(quarantine.status().lastReason?.length, 500);
  await quarantine.close();
});
