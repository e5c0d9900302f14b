import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { readRanges } from "../../../gateway/delivery/range-reader.ts";
import { aggregate } from "../../support/kpl-aggregate.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { closeRigs, openRig, STREAM } from "./delivery-rig.ts";

test("however many records one append holds, they are visited in turns that others can come between", async () => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-delivery-"));
  try {
    const { streams } = await openRig(dir);
    const numbered = (from: number, count: number) =>
      Array.from({ length: count }, (_, i) => ({ partitionKey: "k", data: Buffer.from(String(from + i)) }));
    await streams.append(STREAM, [
      ...numbered(0, 20_000),
      { partitionKey: "k", data: aggregate(numbered(20_000, 20_000)) },
      ...numbered(40_000, 5_000),
      { partitionKey: "k", data: Buffer.alloc(100_000, "9") },
    ]);
    const { shardId, latest } = streams.describe(STREAM).shardList.find((shard) => shard.latest > 0)!;
    let seen = 0;
    let inTurn = 0;
    let most = 0;
    let turns = 0;
    let watched = true;
    const watch = (): void => {
      turns++;
      if (watched) setImmediate(watch);
    };
    setImmediate(watch);
    const trimmed = await readRanges(streams, STREAM, [{ shardId, from: 0, to: latest }], {
      add: (payload) => {
        if (seen < 45_000) assert.equal(payload.toString(), String(seen));
        seen++;
        most = Math.max(most, ++inTurn);
      },
      drain: async () => {
        inTurn = 0;
      },
    });
    watched = false;
    assert.equal(trimmed, 0);
    assert.equal(seen, 45_001);
    assert.ok(most <= 4_000, `${most} records in one turn`);
    assert.ok(turns >= 10, `${turns} turns of the event loop`);
  } finally {
    await closeRigs();
    await removeFolder(dir);
  }
});
