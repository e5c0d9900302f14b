import assert from "node:assert/strict";
import test from "node:test";
import {
  Lane,
  type LaneHost,
  MAX_WAITING_BYTES,
  type Work,
} from "../../../../gateway/streams/stores/jetstream/lane.ts";
import { LogBusyError } from "../../../../gateway/streams/streams.ts";

/** A cluster that stores nothing before it is told. */
class SlowCluster {
  readonly host: LaneHost;
  store: () => void = () => {};

  constructor() {
    let sequence = 0;
    const publish = (): Promise<unknown> =>
      new Promise((resolve) => {
        this.store = () => resolve({ stored: true, sequence: ++sequence });
      });
    const tail = {
      producers: { get: () => ({ sequence: 0, lastFrame: 0n, recent: [], arrivalMs: 0 }) },
      offer: () => {},
      reach: async () => {},
      isVoid: () => false,
    };
    this.host = {
      ...{ name: "readings", stream: "S", subject: "s", waitingBytes: 0, isBusy: false },
      link: { publish, nextMessageId: () => "id" } as unknown as LaneHost["link"],
      tail: tail as unknown as LaneHost["tail"],
      clock: { nowUs: () => 0, monotonicMs: () => 0 },
      stored: () => {},
      arrivalMs: () => 0,
    };
  }
}

const frame = (sequence: bigint, bytes: number, outcomes: Map<bigint, unknown>): Work => ({
  ...{ runs: [], records: 1, bytes, frame: sequence, tip: 0 },
  done: (outcome) => void outcomes.set(sequence, outcome),
  failed: (error) => void outcomes.set(sequence, error),
});

test("behind a frame that is refused because too much waits, no smaller one is taken", async () => {
  const cluster = new SlowCluster();
  const others = new Map<bigint, unknown>();
  const full = new Lane(cluster.host, "other-epoch");
  full.push(frame(1n, MAX_WAITING_BYTES - 1_000, others));
  const outcomes = new Map<bigint, unknown>();
  const lane = new Lane(cluster.host, "epoch");
  lane.push(frame(1n, 2_000, outcomes));
  lane.push(frame(2n, 10, outcomes));
  assert.ok(outcomes.get(1n) instanceof LogBusyError);
  assert.ok(outcomes.get(2n) instanceof LogBusyError, "stored, the first would be taken for known");
  await new Promise((resolve) => setImmediate(resolve));
  cluster.store();
  await full.drained();
  lane.push(frame(1n, 2_000, outcomes));
  await new Promise((resolve) => setImmediate(resolve));
  cluster.store();
  await lane.drained();
  assert.equal(outcomes.get(1n), "stored");
});
