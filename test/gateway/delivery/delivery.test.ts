import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import test from "node:test";
import type { CutStep } from "../../../gateway/delivery/cutter.ts";
import { pause } from "../../../runtime/backoff.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { nodeFlags, scriptPath } from "../../support/script.ts";
import { closeRigs, countInOrder, files, lines, numbered, openRig, STREAM, until } from "./delivery-rig.ts";

async function inFolder(body: (dir: string) => Promise<void>): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-delivery-"));
  try {
    await body(dir);
  } finally {
    await closeRigs();
    await removeFolder(dir);
  }
}

test("every record is delivered once, in order within its key, over several cuts", () =>
  inFolder(async (dir) => {
    const rig = await openRig(dir, { bufferBytes: 2_000 });
    await rig.delivery.start();
    for (let from = 0; from < 500; from += 50) await rig.streams.append(STREAM, numbered(from, 50));
    await until("all delivered", () => rig.delivery.status()[0]!.deliveredRecords === 500);
    const status = rig.delivery.status()[0]!;
    assert.equal(countInOrder(await lines(rig.out)), 500);
    assert.ok(status.deliveredObjects > 3, `${status.deliveredObjects} objects`);
    await until("nothing waits", () => rig.delivery.status()[0]!.waitingMs === 0);
    assert.equal(status.lastError, undefined);
    const names = [...(await files(rig.out)).keys()];
    for (const name of names)
      assert.match(name, /^\d{4}\/\d\d\/\d\d\/\d\d\/archive-[0-9a-f]{8}-\d{12}\.ndjson\.gz$/);
    const recent = rig.delivery.recent(1_000);
    assert.deepEqual(recent.map((object) => object.name).sort(), names.sort());
    assert.equal(
      recent.reduce((sum, object) => sum + object.records, 0),
      500,
    );
    await rig.close();
    await rig.close();
  }));

test("a buffer of no bytes is full with the first record, and stops nobody", () =>
  inFolder(async (dir) => {
    const rig = await openRig(dir, { bufferBytes: 0, bufferSeconds: 60 });
    await rig.delivery.start();
    await rig.streams.append(STREAM, numbered(0, 3));
    await until("all delivered", () => rig.delivery.status()[0]!.deliveredRecords === 3);
    await rig.close();
  }));

test("totals and recent objects survive a restart, and nothing is delivered again", () =>
  inFolder(async (dir) => {
    const first = await openRig(dir);
    await first.delivery.start();
    await first.streams.append(STREAM, numbered(0, 20));
    await until("delivered", () => first.delivery.status()[0]!.deliveredRecords === 20);
    const recent = first.delivery.recent(10);
    await first.close();
    const second = await openRig(dir);
    assert.deepEqual(second.delivery.recent(10), recent);
    await second.delivery.start();
    await second.streams.append(STREAM, numbered(20, 20));
    await until("delivered", () => second.delivery.status()[0]!.deliveredRecords === 40);
    assert.equal(countInOrder(await lines(second.out)), 40);
    await second.close();
  }));

test("an object is cut by age, also where there is always one more shard to read", () =>
  inFolder(async (dir) => {
    const rig = await openRig(dir, { bufferBytes: 128 * 1_048_576, bufferSeconds: 0.2 });
    const { streams, delivery } = rig;
    const read = streams.read.bind(streams);
    let put = 0;
    streams.read = async (...place) => {
      if (delivery.status()[0]!.deliveredObjects === 0)
        await streams.append(STREAM, numbered(put++ * 25, 25));
      return read(...place);
    };
    await streams.append(STREAM, numbered(put++ * 25, 25));
    await delivery.start();
    await until("delivered", () => delivery.status()[0]!.deliveredObjects > 0, 30_000);
    await until("all delivered", () => delivery.status()[0]!.deliveredRecords === put * 25);
    assert.equal(countInOrder(await lines(rig.out)), put * 25);
    await rig.close();
  }));

test("an object is cut by age, also of a single record, and named by its arrival", () =>
  inFolder(async (dir) => {
    let nowUs = Date.UTC(2026, 1, 3, 4, 59, 59) * 1_000;
    const rig = await openRig(dir, {
      bufferSeconds: 30,
      clock: { nowUs: () => nowUs, monotonicMs: systemClock.monotonicMs },
    });
    await rig.delivery.start();
    await rig.streams.append(STREAM, numbered(0, 1));
    await until("it is seen", () => {
      nowUs += 1_000;
      return rig.delivery.status()[0]!.waitingMs > 0;
    });
    assert.equal(rig.delivery.status()[0]!.deliveredObjects, 0);
    nowUs += 31_000_000;
    await until("it is delivered", () => rig.delivery.status()[0]!.deliveredObjects === 1);
    assert.match(rig.delivery.recent(1)[0]!.name, /^2026\/02\/03\/04\/archive-/);
    await rig.close();
  }));

test("what is no JSON goes to the error output with its reason, and JSON stays as it was sent", () =>
  inFolder(async (dir) => {
    const rig = await openRig(dir);
    const put = (data: Buffer) => rig.streams.append(STREAM, [{ partitionKey: "k", data }]);
    const exact = '{"big":12345678901234567890, "a":1.0,"a":2}';
    await put(Buffer.from(exact));
    await put(Buffer.from('{"two":\r\n1,\n "lines":"a\\nb"}'));
    await put(Buffer.from("1000.017"));
    await put(Buffer.from([0xff, 0xfe, 0x00]));
    await put(Buffer.from("{} {}"));
    await put(Buffer.from(" \n "));
    await rig.delivery.start();
    await until("delivered", () => rig.delivery.status()[0]!.failedRecords === 3);
    assert.deepEqual(await lines(rig.out), [exact, '{"two":  1,  "lines":"a\\nb"}', "1000.017"]);
    const failed = (await lines(rig.out, "failed")).map((line) => JSON.parse(line));
    assert.deepEqual(
      failed.map((line) => Buffer.from(line.data, "base64")),
      [Buffer.from([0xff, 0xfe, 0x00]), Buffer.from("{} {}"), Buffer.from(" \n ")],
    );
    assert.equal(failed[0].reason, "not UTF-8");
    assert.match(failed[1].reason, /^not JSON/);
    assert.equal(failed[0].partitionKey, "k");
    assert.match(failed[0].shardId, /^shardId-\d{12}$/);
    assert.match(failed[0].sequenceNumber, /^\d{56}$/);
    assert.match(
      await rig.metrics.render(),
      /headwater_delivery_failed_records_total\{delivery="archive"\} 3/,
    );
    await rig.close();
  }));

const STEPS: CutStep[] = ["built", "manifest", "confirmed", "object", "checkpoint", "ledger"];
for (const step of STEPS) {
  test(`a delivery killed by SIGKILL after "${step}" goes on without loss or doubling`, () =>
    inFolder(async (dir) => {
      const before = await openRig(dir);
      for (let from = 0; from < 100; from += 10) await before.streams.append(STREAM, numbered(from, 10));
      await before.close();
      await runKilled(dir, step, 2);
      const killed = await files(join(dir, "out"));
      const manifest = await pendingManifest(dir);
      const rig = await openRig(dir, { bufferBytes: 600, bufferSeconds: 0.05 });
      await rig.delivery.start();
      await until("all delivered", () => rig.delivery.status()[0]!.deliveredRecords === 100);
      assert.equal(countInOrder(await lines(rig.out)), 100);
      const after = await files(rig.out);
      for (const [name, bytes] of killed) {
        if (!name.endsWith(".tmp")) assert.deepEqual(after.get(name), bytes, `${name} changed`);
      }
      if (manifest !== undefined) assert.ok(after.has(manifest), `${manifest} was announced`);
      assert.equal(rig.delivery.status()[0]!.deliveredObjects, after.size);
      assert.ok(![...after.keys()].some((name) => name.endsWith(".tmp")));
      await rig.close();
    }));
}

test("an object made again from its manifest has the same name and bytes", () =>
  inFolder(async (dir) => {
    const before = await openRig(dir);
    await before.streams.append(STREAM, numbered(0, 60));
    await before.close();
    await runKilled(dir, "object", 1);
    const [[name, bytes]] = [...(await files(join(dir, "out")))] as [[string, Buffer]];
    // As if the power had gone before the rename.
    await rm(join(dir, "out", name));
    const rig = await openRig(dir, { bufferSeconds: 60 });
    await rig.delivery.start();
    await until("delivered", async () => (await files(rig.out)).has(name));
    assert.deepEqual((await files(rig.out)).get(name), bytes);
    await rig.close();
  }));

test("an object taken away after its checkpoint does not come again", () =>
  inFolder(async (dir) => {
    const before = await openRig(dir);
    await before.streams.append(STREAM, numbered(0, 60));
    await before.close();
    await runKilled(dir, "checkpoint", 1);
    const [name] = [...(await files(join(dir, "out"))).keys()] as [string];
    await rm(join(dir, "out", name));
    const rig = await openRig(dir, { bufferSeconds: 0.05 });
    await rig.delivery.start();
    await until("all counted", () => rig.delivery.status()[0]!.deliveredRecords === 60);
    assert.ok(!(await files(rig.out)).has(name));
    await rig.close();
  }));

test("a destination that cannot be written is tried again, its error is shown, and nothing is lost", () =>
  inFolder(async (dir) => {
    // A file where the folder belongs stops root, too, whom permissions do not.
    await writeFile(join(dir, "out"), "in the way");
    const rig = await openRig(dir);
    await rig.delivery.start();
    await rig.streams.append(STREAM, numbered(0, 30));
    await until("the error shows", () => rig.delivery.status()[0]!.lastError !== undefined);
    assert.match(rig.delivery.status()[0]!.lastError!, /^DESTINATION_FAILED: cannot write .*out/);
    assert.ok(rig.delivery.status()[0]!.waitingMs >= 0);
    await rig.streams.append(STREAM, numbered(30, 30));
    await rm(join(dir, "out"));
    await until("all delivered", () => rig.delivery.status()[0]!.deliveredRecords === 60);
    assert.equal(rig.delivery.status()[0]!.lastError, undefined);
    assert.equal(countInOrder(await lines(rig.out)), 60);
    await rig.close();
  }));

test("how long records wait is told at every look while a delivery cannot write its own state, and no longer", () =>
  inFolder(async (dir) => {
    const rig = await openRig(dir);
    // A folder where the file belongs stops root, too.
    const inTheWay = join(dir, "delivery", "archive", "cut.json");
    await mkdir(inTheWay);
    await rig.delivery.start();
    await rig.streams.append(STREAM, numbered(0, 30));
    await until("the error shows", () => rig.delivery.status()[0]!.lastError !== undefined);
    let lastMs = 0;
    for (let looks = 0; looks < 150; looks++) {
      const { waitingMs } = rig.delivery.status()[0]!;
      assert.ok(waitingMs > lastMs - 50, `${waitingMs} ms behind ${lastMs}`);
      lastMs = waitingMs;
      await pause(10);
    }
    assert.ok(lastMs > 1_000, `${lastMs} ms`);
    await rm(inTheWay, { recursive: true });
    await until("all delivered", () => rig.delivery.status()[0]!.deliveredRecords === 30);
    await until("nothing waits", () => rig.delivery.status()[0]!.waitingMs === 0);
    assert.equal(rig.delivery.status()[0]!.lastError, undefined);
    await rig.close();
  }));

test("… also while it cannot read what there is", () =>
  inFolder(async (dir) => {
    const rig = await openRig(dir);
    const { read } = rig.streams;
    rig.streams.read = () => Promise.reject(new Error("EIO: i/o error, read"));
    await rig.streams.append(STREAM, numbered(0, 30));
    await rig.delivery.start();
    await until("it waits", () => rig.delivery.status()[0]!.waitingMs > 500);
    rig.streams.read = read;
    await until("all delivered", () => rig.delivery.status()[0]!.deliveredRecords === 30);
    await until("nothing waits", () => rig.delivery.status()[0]!.waitingMs === 0);
    await rig.close();
  }));

test("records that retention took before they were read are counted, not passed over in silence", () =>
  inFolder(async (dir) => {
    let nowUs = Date.UTC(2026, 0, 1) * 1_000;
    const startUs = nowUs;
    const monotonicMs = (): number => systemClock.monotonicMs() + (nowUs - startUs) / 1_000;
    const clock = { nowUs: () => nowUs, monotonicMs };
    const rig = await openRig(dir, { clock, segmentBytes: 4_096 });
    // It was there and never delivered anything, as when its destination is broken from the start.
    await (await rig.streams.openConsumer(STREAM, "delivery/archive")).close();
    for (let from = 0; from < 500; from += 50) await rig.streams.append(STREAM, numbered(from, 50));
    nowUs += 25 * 3_600_000_000;
    await rig.streams.append(STREAM, numbered(500, 50));
    await rig.streams.enforceRetention();
    const kept = rig.streams.describe(STREAM).shardList.map((shard) => shard.latest - shard.trimHorizon);
    const keptRecords = kept.reduce((sum, records) => sum + records, 0);
    assert.ok(keptRecords < 550);
    await rig.delivery.start();
    await until("delivered", () => rig.delivery.status()[0]!.deliveredRecords === keptRecords);
    assert.equal((await lines(rig.out)).length, keptRecords);
    assert.equal(rig.delivery.status()[0]!.trimmedRecords, 550 - keptRecords);
    await rig.close();
    const again = await openRig(dir, { clock });
    assert.equal(again.delivery.status()[0]!.trimmedRecords, 550 - keptRecords);
    await again.close();
  }));

test("a stream that does not exist yet is waited for", () =>
  inFolder(async (dir) => {
    const rig = await openRig(dir);
    await rig.streams.deleteStream(STREAM);
    await rig.delivery.start();
    await until(
      "the error shows",
      () => rig.delivery.status()[0]!.lastError?.startsWith("STREAM_NOT_FOUND") === true,
    );
    assert.equal(rig.delivery.status()[0]!.waitingMs, 0);
    await rig.streams.createStream({ name: STREAM, shards: 1, retentionHours: 24 });
    await rig.streams.append(STREAM, numbered(0, 5));
    await until("delivered", () => rig.delivery.status()[0]!.deliveredRecords === 5);
    await rig.close();
  }));

test("a damaged ledger is never guessed at: that delivery halts, everything else runs", () =>
  inFolder(async (dir) => {
    const ledger = join(dir, "delivery", "archive", "delivery.json");
    await mkdir(dirname(ledger), { recursive: true });
    await writeFile(ledger, '{"formatVersion":2}');
    const halted = await openRig(dir);
    await halted.delivery.start();
    await halted.streams.append(STREAM, numbered(0, 5));
    const [status] = halted.delivery.status();
    assert.equal(status?.state, "failed");
    assert.match(status.lastError ?? "", /^DELIVERY_STATE_DAMAGED: .*restore it from a backup/);
    assert.match(await halted.metrics.render(), /headwater_delivery_errors_total\{delivery="archive"\} 1/);
    await halted.close();
    assert.equal(await readFile(ledger, "utf8"), '{"formatVersion":2}');
    await rm(ledger);
    const rig = await openRig(dir);
    await rig.delivery.start();
    await until("delivered", () => rig.delivery.status()[0]!.deliveredRecords === 5);
    await rig.close();
  }));

async function runKilled(dir: string, step: CutStep, nth: number): Promise<void> {
  const script = scriptPath("./stopped-delivery.ts", import.meta.url);
  const child = spawn(process.execPath, [...nodeFlags, script, dir, step, String(nth)], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  const timer = setTimeout(() => child.kill("SIGTERM"), 120_000);
  const [, signal] = (await once(child, "exit")) as [number | null, string | null];
  clearTimeout(timer);
  assert.equal(signal, "SIGKILL", `it never came to "${step}"`);
}

/** The name of the object that a killed delivery was about to make. */
async function pendingManifest(dir: string): Promise<string | undefined> {
  try {
    const text = await readFile(join(dir, "delivery", "archive", "cut.json"), "utf8");
    return (JSON.parse(text.split("\n")[0]!) as { object: string }).object;
  } catch {
    return undefined;
  }
}
