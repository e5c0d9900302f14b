/** Cuts that were under way when the gateway stopped, and what changed until it came back. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { CutLedger, DeliveryStateError } from "../../../gateway/delivery/cut-ledger.ts";
import type { CutStep } from "../../../gateway/delivery/cutter.ts";
import type { Streams } from "../../../gateway/streams/streams.ts";
import { type Clock, systemClock } from "../../../runtime/clock.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import {
  closeRigs,
  countInOrder,
  files,
  lines,
  numbered,
  openRig,
  type Rig,
  type RigOptions,
  STREAM,
  until,
} from "./delivery-rig.ts";

async function inFolder(body: (dir: string) => Promise<void>): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-delivery-"));
  try {
    await body(dir);
  } finally {
    await closeRigs();
    await removeFolder(dir);
  }
}

/** Both hands jump together, as over a night in which the gateway was off. */
function handClock(): Clock & { hours(by: number): void } {
  let aheadMs = 0;
  return {
    nowUs: () => systemClock.nowUs() + aheadMs * 1_000,
    monotonicMs: () => systemClock.monotonicMs() + aheadMs,
    hours: (by) => {
      aheadMs += by * 3_600_000;
    },
  };
}

/** Ends this try behind the step, and each that is made by itself before the rig is closed at its next step. */
const stopAt = (step: CutStep): ((at: CutStep) => void) => {
  let stopped = false;
  return (at) => {
    stopped ||= at === step;
    if (stopped) throw new Error(`stopped behind ${step}`);
  };
};

/** Appends 20 records, and stops for good behind a step of their cut. */
async function stopBehind(dir: string, step: CutStep, options: RigOptions = {}): Promise<void> {
  const rig = await openRig(dir, { ...options, onStep: stopAt(step) });
  // Before the delivery looks: it might see some shards before, and others after a slow append, and cut these alone.
  await rig.streams.append(STREAM, numbered(0, 20));
  await rig.delivery.start();
  await until("a cut is under way", () => rig.delivery.status()[0]!.lastError !== undefined);
  await rig.close();
}

const status = (rig: Rig) => rig.delivery.status()[0]!;

async function errorsOf(rig: Rig): Promise<number> {
  const text = await rig.metrics.render();
  return Number(/headwater_delivery_errors_total\{[^}]*\} (\d+)/.exec(text)?.[1] ?? 0);
}

async function splitAll(streams: Streams): Promise<void> {
  for (const { shardId, hashFrom, hashTo, closedMs } of streams.describe(STREAM).shardList) {
    if (closedMs === undefined) await streams.splitShard(STREAM, shardId, (hashFrom + hashTo) / 2n);
  }
}

for (const step of ["manifest", "object", "checkpoint"] as const) {
  test(`stopped behind "${step}" and started with another stream in the config, the cut is finished from its own`, () =>
    inFolder(async (dir) => {
      await stopBehind(dir, step);
      const second = await openRig(dir, { stream: "others" });
      await second.delivery.start();
      await until("the cut is finished", () => status(second).deliveredRecords === 20);
      await second.streams.append("others", [{ partitionKey: "k", data: Buffer.from('{"other":1}') }]);
      await until("the other stream is delivered", () => status(second).deliveredRecords === 21);
      assert.equal(status(second).trimmedRecords, 0);
      await second.close();
      const third = await openRig(dir);
      await third.streams.append(STREAM, numbered(20, 20));
      await third.delivery.start();
      await until("the rest is delivered", () => status(third).deliveredRecords === 41);
      const delivered = await lines(third.out);
      assert.equal(countInOrder(delivered.filter((line) => line !== '{"other":1}')), 40);
    }));
}

test("an object that was made before a long stop is counted as delivered, not as lost to retention", () =>
  inFolder(async (dir) => {
    const clock = handClock();
    await stopBehind(dir, "object", { clock });
    clock.hours(26);
    const rig = await openRig(dir, { clock });
    await rig.streams.enforceRetention();
    assert.ok(rig.streams.describe(STREAM).shardList.every((shard) => shard.trimHorizon === shard.latest));
    await rig.delivery.start();
    await until("it is counted", () => status(rig).deliveredRecords + status(rig).trimmedRecords > 0);
    assert.deepEqual([status(rig).deliveredRecords, status(rig).trimmedRecords], [20, 0]);
    assert.equal(countInOrder(await lines(rig.out)), 20);
    assert.equal(rig.delivery.recent(1)[0]!.records, 20);
  }));

test("an object taken away after its checkpoint does not come again, though its shards are closed and read to their ends", () =>
  inFolder(async (dir) => {
    const first = await openRig(dir, { onStep: stopAt("checkpoint") });
    await first.streams.append(STREAM, numbered(0, 20));
    await splitAll(first.streams);
    await first.delivery.start();
    await until("its checkpoint is made", () => status(first).lastError !== undefined);
    await first.close();
    await rm(first.out, { recursive: true });
    const second = await openRig(dir);
    await second.delivery.start();
    await until("it is counted", () => status(second).deliveredRecords === 20);
    assert.equal((await files(second.out)).size, 0);
  }));

test("an object that was never made is counted as lost when retention and expiry took its shards", () =>
  inFolder(async (dir) => {
    const clock = handClock();
    const before = await openRig(dir, { clock });
    await before.delivery.start();
    // The consumer has no place in the children yet: they were made after it.
    await until("it is there", async () => (await before.streams.consumers(STREAM)).length === 1);
    await splitAll(before.streams);
    await before.close();
    await stopBehind(dir, "manifest", { clock });
    const rig = await openRig(dir, { clock });
    await splitAll(rig.streams);
    clock.hours(26);
    await rig.streams.enforceRetention();
    clock.hours(2);
    await rig.streams.enforceRetention();
    await rig.delivery.start();
    await until("it is counted", () => status(rig).deliveredRecords + status(rig).trimmedRecords > 0);
    assert.deepEqual([status(rig).deliveredRecords, status(rig).trimmedRecords], [0, 20]);
    assert.equal((await files(rig.out)).size, 0);
  }));

async function shardsThatExpireUnread(startsAnew: boolean): Promise<void> {
  await inFolder(async (dir) => {
    const clock = handClock();
    await writeFile(join(dir, "out"), "in the way");
    let rig = await openRig(dir, { clock, bufferBytes: 1_000 });
    await rig.delivery.start();
    await rig.streams.append(STREAM, numbered(0, 20));
    await until("a cut is under way", () => status(rig).lastError !== undefined);
    // Behind that cut: in its shards, and in the children that wait for them.
    await rig.streams.append(STREAM, numbered(20, 50));
    await splitAll(rig.streams);
    await rig.streams.append(STREAM, numbered(70, 50));
    await splitAll(rig.streams);
    const tries = (): Promise<number> => errorsOf(rig);
    const seen = await tries();
    await until("it has looked", async () => (await tries()) > seen + 1);
    if (startsAnew) {
      await rig.close();
      rig = await openRig(dir, { clock, bufferBytes: 1_000 });
    }
    for (const hours of [26, 2]) {
      clock.hours(hours);
      await rig.streams.enforceRetention();
    }
    assert.equal(rig.streams.describe(STREAM).shardList.length, 12);
    if (startsAnew) await rig.delivery.start();
    await rm(join(dir, "out"));
    await rig.streams.append(STREAM, numbered(120, 30));
    const counted = () => status(rig).deliveredRecords + status(rig).trimmedRecords;
    await until("all are told of", () => counted() >= 150);
    assert.equal(counted(), 150);
    const delivered = await lines(rig.out);
    assert.equal(delivered.length, status(rig).deliveredRecords);
    assert.ok(delivered.length >= 30);
    const { trimmedRecords } = status(rig);
    await rig.close();
    // What was unread is read by now, and expires in peace.
    const later = await openRig(dir, { clock });
    for (const hours of [26, 2]) {
      clock.hours(hours);
      await later.streams.enforceRetention();
    }
    await later.delivery.start();
    await later.streams.append(STREAM, numbered(150, 5));
    await until("it works", () => status(later).deliveredRecords === delivered.length + 5);
    assert.equal(status(later).trimmedRecords, trimmedRecords);
  });
}

test("shards that expire unread while the destination is broken are counted, and what comes later is delivered", () =>
  shardsThatExpireUnread(false));

test("… also while a destination takes its time and nothing fails, and none that is delivered is among them", () =>
  inFolder(async (dir) => {
    const clock = handClock();
    const gate = new AbortController();
    const opened = once(gate.signal, "abort");
    let held = false;
    const rig = await openRig(dir, {
      clock,
      bufferBytes: 1_000,
      lookEveryMs: 20,
      onStep: async (step) => {
        if (step !== "manifest" || gate.signal.aborted) return;
        held = true;
        await opened;
      },
    });
    await rig.delivery.start();
    await rig.streams.append(STREAM, numbered(0, 20));
    await until("a cut is under way", () => held);
    await rig.streams.append(STREAM, numbered(20, 50));
    await splitAll(rig.streams);
    await rig.streams.append(STREAM, numbered(70, 50));
    await splitAll(rig.streams);
    let looks = 0;
    const describe = rig.streams.describe.bind(rig.streams);
    rig.streams.describe = (name) => {
      looks++;
      return describe(name);
    };
    await until("it has looked", () => looks > 1);
    for (const hours of [26, 2]) {
      clock.hours(hours);
      await rig.streams.enforceRetention();
    }
    await rig.streams.append(STREAM, numbered(120, 30));
    gate.abort();
    const counted = () => status(rig).deliveredRecords + status(rig).trimmedRecords;
    await until("all are told of", () => counted() >= 150);
    await until("nothing waits", () => status(rig).waitingMs === 0);
    assert.equal(counted(), 150);
    assert.equal((await lines(rig.out)).length, status(rig).deliveredRecords);
    assert.equal(await errorsOf(rig), 0);
  }));

test("… also when they expire before a gateway that was started anew has looked", () =>
  shardsThatExpireUnread(true));

test("what expires while its object is built is delivered, and not counted as trimmed as well", () =>
  inFolder(async (dir) => {
    const clock = handClock();
    let expired = false;
    const rig = await openRig(dir, {
      clock,
      lookEveryMs: 10,
      onStep: async (step) => {
        if (step !== "built" || expired) return;
        expired = true;
        for (const hours of [26, 2]) {
          clock.hours(hours);
          await rig.streams.enforceRetention();
        }
        let looks = 0;
        const describe = rig.streams.describe.bind(rig.streams);
        rig.streams.describe = (name) => {
          looks++;
          return describe(name);
        };
        await until("it is looked for what expired", () => looks >= 2);
      },
    });
    await rig.streams.append(STREAM, numbered(0, 20));
    await splitAll(rig.streams);
    await rig.delivery.start();
    await until("all is counted", () => status(rig).deliveredRecords + status(rig).trimmedRecords >= 20);
    await rig.streams.append(STREAM, numbered(20, 5));
    await until("the rest is delivered", () => status(rig).deliveredRecords === 25);
    assert.equal(status(rig).trimmedRecords, 0);
    assert.equal(countInOrder(await lines(rig.out)), 25);
  }));

test("shards that expire while no manifest can be made are counted as trimmed", () =>
  inFolder(async (dir) => {
    const clock = handClock();
    let failing = true;
    const rig = await openRig(dir, {
      clock,
      onStep: (step) => {
        if (failing && step === "built") throw new Error("no room for a manifest");
      },
    });
    await rig.streams.append(STREAM, numbered(0, 20));
    await splitAll(rig.streams);
    await rig.delivery.start();
    await until("it has failed twice", async () => (await errorsOf(rig)) >= 2);
    for (const hours of [26, 2]) {
      clock.hours(hours);
      await rig.streams.enforceRetention();
    }
    failing = false;
    await rig.streams.append(STREAM, numbered(20, 5));
    await until("the rest is delivered", () => status(rig).deliveredRecords === 5);
    await until("what expired is counted", () => status(rig).trimmedRecords > 0);
    assert.deepEqual([status(rig).deliveredRecords, status(rig).trimmedRecords], [5, 20]);
  }));

test("the cut of a deleted stream is given up once, and counted; one whose object is there is finished", () =>
  inFolder(async (dir) => {
    for (const step of ["manifest", "object"] as const) {
      const own = join(dir, step);
      const before = await openRig(own);
      await before.streams.append(STREAM, [{ partitionKey: "k", data: Buffer.from("no json") }]);
      await before.close();
      await stopBehind(own, step);
      const rig = await openRig(own);
      await rig.streams.deleteStream(STREAM);
      await rig.streams.createStream({ name: STREAM, shards: 1, retentionHours: 24 });
      await rig.streams.append(STREAM, numbered(20, 5));
      await rig.delivery.start();
      const made = step === "object" ? 20 : 0;
      await until("the new stream is delivered", () => status(rig).deliveredRecords === made + 5);
      assert.equal(status(rig).trimmedRecords, step === "object" ? 0 : 21);
      assert.equal((await lines(rig.out)).length, made + 5);
      await rig.close();
    }
  }));

test("a stream made anew while an object is built is delivered from its first record on", () =>
  inFolder(async (dir) => {
    let anew = false;
    const rig = await openRig(dir, {
      onStep: async (step) => {
        if (step !== "built" || anew) return;
        anew = true;
        await rig.streams.deleteStream(STREAM);
        // Fewer records in fewer shards: whoever went on in it under the former one's positions would wait, or miss some.
        await rig.streams.createStream({ name: STREAM, shards: 1, retentionHours: 24 });
        await rig.streams.append(STREAM, numbered(1_000, 5));
      },
    });
    await rig.streams.append(STREAM, numbered(0, 20));
    await rig.delivery.start();
    await until("the new stream is delivered", () => status(rig).deliveredRecords > 0);
    assert.equal((await lines(rig.out)).length, 5);
    assert.deepEqual([status(rig).deliveredRecords, status(rig).trimmedRecords], [5, 0]);
  }));

test("a digit of a manifest or a ledger that is another one is noticed", () =>
  inFolder(async (dir) => {
    await stopBehind(dir, "manifest");
    const own = join(dir, "delivery", "archive");
    for (const name of ["cut.json", "delivery.json"]) {
      const file = join(own, name);
      const good = await readFile(file);
      for (const [i, byte] of good.entries()) {
        if (byte < 0x30 || byte > 0x39) continue;
        const bad = Buffer.from(good);
        bad[i] = byte ^ 1;
        await writeFile(file, bad);
        await assert.rejects(CutLedger.open(own), DeliveryStateError, `byte ${i} of ${name}`);
      }
      await writeFile(file, good);
    }
    assert.equal((await CutLedger.open(own)).pending?.records, 20);
  }));

test("manifest and ledger of earlier versions, which have no checksum, are read", () =>
  inFolder(async (dir) => {
    await stopBehind(dir, "manifest");
    const own = join(dir, "delivery", "archive");
    for (const [name, version] of [
      ["cut.json", 2],
      ["delivery.json", 1],
    ] as const) {
      const [json] = (await readFile(join(own, name), "utf8")).split("\n");
      await writeFile(join(own, name), JSON.stringify({ ...JSON.parse(json!), formatVersion: version }));
    }
    const rig = await openRig(dir);
    await rig.delivery.start();
    await until("it is delivered", () => status(rig).deliveredRecords === 20);
    assert.equal(countInOrder(await lines(rig.out)), 20);
  }));
