import assert from "node:assert/strict";
import { mkdir, mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { CutLedger } from "../../../gateway/delivery/cut-ledger.ts";
import { TrimmedRecords } from "../../../gateway/delivery/trimmed-records.ts";
import { silentLog } from "../../../runtime/log.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { HandClock } from "../api/api-fixture.ts";
import { closeRigs, numbered, openRig, STREAM, until } from "./delivery-rig.ts";

test("what cannot be written into the ledger is neither forgotten nor counted twice", async () => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-trimmed-"));
  try {
    const { streams } = await openRig(dir);
    const own = join(dir, "own");
    const consumer = await streams.openConsumer(STREAM, "c");
    const state = await CutLedger.open(own);
    // As the last process left it: a shard was unread that is no more.
    const { streamId } = streams.describe(STREAM);
    await state.update({ unread: { streamId, shards: { "shardId-000000000099": [5, 12] } } });
    let counted = 0;
    const open = async (ledger: CutLedger): Promise<TrimmedRecords> =>
      new TrimmedRecords({
        streams,
        state: ledger,
        log: silentLog,
        lookEveryMs: 60_000,
        counted: (records) => {
          counted += records;
        },
      });
    const trimmed = await open(state);
    // A folder where the file is made stops root, too, whom permissions and full disks do not.
    const inTheWay = join(own, "delivery.json.tmp");
    await mkdir(inTheWay);
    await assert.rejects(trimmed.begin(consumer));
    await assert.rejects(trimmed.begin(consumer));
    await assert.rejects(trimmed.count(3, consumer, new Map()));
    assert.equal(counted, 0);
    // The next process finds the same as this one.
    for (const which of ["next", "this"]) {
      counted = 0;
      const ledger = which === "next" ? await CutLedger.open(own) : state;
      const one = which === "next" ? await open(ledger) : trimmed;
      await removeFolder(inTheWay);
      await one.begin(consumer);
      await one.count(3, consumer, new Map());
      await one.settle();
      assert.equal(counted, 10, which);
      assert.equal(ledger.ledger.trimmedRecords, 10);
      assert.equal(ledger.ledger.unread, undefined);
    }
  } finally {
    await closeRigs();
    await removeFolder(dir);
  }
});

test("what retention took is counted once, though the process ends before its checkpoint", async () => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-trimmed-"));
  try {
    const clock = new HandClock();
    const dying = await openRig(dir, {
      clock,
      segmentBytes: 4_096,
      onStep: (step) => {
        if (step === "trimmed") throw new Error("it ends here");
      },
    });
    const { streams } = dying;
    await (await streams.openConsumer(STREAM, "delivery/archive")).close();
    for (let from = 0; from < 500; from += 50) await streams.append(STREAM, numbered(from, 50));
    clock.aheadMs += 25 * 3_600_000;
    await streams.append(STREAM, numbered(500, 50));
    await streams.enforceRetention();
    const kept = streams.describe(STREAM).shardList.map((shard) => shard.latest - shard.trimHorizon);
    const keptRecords = kept.reduce((sum, records) => sum + records, 0);
    assert.ok(keptRecords < 550);
    await dying.delivery.start();
    await until("they are counted", () => dying.delivery.status()[0]!.lastError === "it ends here");
    assert.ok(dying.delivery.status()[0]!.trimmedRecords > 0);
    await dying.close();
    const next = await openRig(dir, { clock, segmentBytes: 4_096 });
    const status = () => next.delivery.status()[0]!;
    await next.delivery.start();
    await until("delivered", () => status().deliveredRecords === keptRecords);
    assert.equal(status().trimmedRecords, 550 - keptRecords);
  } finally {
    await closeRigs();
    await removeFolder(dir);
  }
});

test("what was counted is not counted once more when the rest of its shard expires before the checkpoint", async () => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-trimmed-"));
  try {
    const { streams } = await openRig(dir);
    const consumer = await streams.openConsumer(STREAM, "c");
    const state = await CutLedger.open(join(dir, "own"));
    const { streamId } = streams.describe(STREAM);
    // As the last process left it: 5 to 12 stood unread, up to 9 was counted; all of the shard is no more.
    const gone = "shardId-000000000099";
    await state.update({
      trimmedRecords: 4,
      unread: { streamId, shards: { [gone]: [5, 12] } },
      counted: { streamId, positions: { [gone]: 9 } },
    });
    const trimmed = new TrimmedRecords({
      streams,
      state,
      log: silentLog,
      lookEveryMs: 60_000,
      counted: () => {},
    });
    await trimmed.begin(consumer);
    assert.equal(state.ledger.trimmedRecords, 7);
    await trimmed.begin(consumer);
    assert.equal(state.ledger.trimmedRecords, 7);
  } finally {
    await closeRigs();
    await removeFolder(dir);
  }
});
