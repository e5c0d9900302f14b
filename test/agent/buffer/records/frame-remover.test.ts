import assert from "node:assert/strict";
import test from "node:test";
import { newPart } from "../../../../agent/buffer/records/chain-part.ts";
import { EpochLedger, newEpochState } from "../../../../agent/buffer/records/epoch-ledger.ts";
import { FrameRemover, type FrameRemoverOptions } from "../../../../agent/buffer/records/frame-remover.ts";

const size = { records: 10, bytes: 1_000, storedUs: 1 };

test("frames that are acknowledged after they were dropped are not counted out twice", async () => {
  const state = newEpochState(1, 5n);
  Object.assign(state, { last: 6n, waitingRecords: 60, waitingBytes: 6_000 });
  const parts = [1n, 4n].map((first, i) => {
    const part = newPart(i + 1, 1, 5n);
    Object.assign(part, { first, last: first + 2n, records: 30, bytes: 3_000, sealed: true });
    // Both were read, and are under way.
    for (let n = first; n < first + 3n; n++) part.sizes.set(n, size);
    return part;
  });
  const remover = new FrameRemover({
    // The dropped part's folder is still being removed.
    chain: { parts, sweep: () => {} } as unknown as FrameRemoverOptions["chain"],
    ledger: new EpochLedger([], state),
    onMoved: () => {},
  });
  remover.removeWithin(state, parts[1]!);
  assert.equal(state.waitingRecords, 30);
  await remover.ack(5n, 2n);
  assert.equal(state.waitingRecords, 10);
  await remover.ack(5n, 5n);
  assert.deepEqual([state.waitingRecords, state.waitingBytes], [0, 0]);
});
