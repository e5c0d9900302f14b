import assert from "node:assert/strict";
import test from "node:test";
import { equalRanges } from "../../../../../gateway/streams/shard-map.ts";
import { runsOf } from "../../../../../gateway/streams/stores/jetstream/entry.ts";
import { Gets } from "../../../../../gateway/streams/stores/jetstream/gets.ts";
import {
  Lane,
  type LaneHost,
  MAX_WAITING_BYTES,
  type Work,
  type WorkPlace,
} from "../../../../../gateway/streams/stores/jetstream/lane.ts";
import type { Link, PublishOutcome } from "../../../../../gateway/streams/stores/jetstream/link.ts";
import {
  epochToken,
  gatewayToken,
  UNKNOWN,
} from "../../../../../gateway/streams/stores/jetstream/producer-states.ts";
import { shardRecord } from "../../../../../gateway/streams/stores/jetstream/shard-history.ts";
import {
  EXPECTED_HEADER,
  ID_HEADER,
  type StoredMessage,
} from "../../../../../gateway/streams/stores/jetstream/stored-message.ts";
import { StreamTail } from "../../../../../gateway/streams/stores/jetstream/stream-tail.ts";
import { LogBusyError, StreamNotFoundError } from "../../../../../gateway/streams/streams.ts";
import { silentLog } from "../../../../../runtime/log.ts";

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
      producers: { get: () => UNKNOWN },
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

const CLOCK = { nowUs: () => 1_000, monotonicMs: () => 0 };

/**
 * A cluster whose log is at hand and whose answers to publishes are given by the test. It looks at
 * nothing, as a leader that has just been chosen may not know what it should look at; lane and tail are the real ones.
 */
class LenientCluster {
  readonly log: StoredMessage[] = [];
  readonly tail: StreamTail;
  readonly host: LaneHost;
  /** What becomes of each publish, by its number from 1; the others are stored once and answered. */
  readonly answers = new Map<number, (store: () => number) => PublishOutcome>();
  published = 0;

  constructor() {
    const find = async (holds: (message: StoredMessage) => boolean): Promise<StoredMessage | undefined> =>
      this.log.find(holds);
    const link = {
      id: "here",
      gets: new Gets(),
      signal: new AbortController().signal,
      nextMessageId: () => `here-${this.published + 1}`,
      publish: async (...sent: Parameters<Link["publish"]>): Promise<PublishOutcome> => {
        const store = (): number => this.#store(sent);
        const answer = this.answers.get(++this.published);
        return answer === undefined ? { stored: true, sequence: store() } : answer(store);
      },
      get: (_: string, sequence: number) => find((message) => message.sequence === sequence),
      leaderGet: async (_: string, { last_by_subj }: { last_by_subj: string }) =>
        this.log.findLast(({ subject }) => subject === last_by_subj),
      counts: (_: string, { sequence, subject, header }: StoredMessage) => {
        const first = this.log.find(
          (one) => one.subject === subject && one.sequence > Number(header(EXPECTED_HEADER)),
        );
        return Promise.resolve(first?.sequence === sequence);
      },
      state: async () => ({ firstSequence: 1, lastSequence: this.log.length, bytes: 0, subjects: [] }),
    } as unknown as Link;
    const map = { version: 1, shards: equalRanges(1).map((range, index) => shardRecord(index, range, 0)) };
    const names = { name: "readings", stream: "S", subject: "s" };
    this.tail = new StreamTail({ ...names, link, map, clock: CLOCK, log: silentLog });
    this.host = {
      ...{ ...names, link, tail: this.tail, clock: CLOCK, waitingBytes: 0, isBusy: false },
      stored: () => {},
      arrivalMs: () => 1,
    };
  }

  #store([, subject, payload, fields, expected, id]: Parameters<Link["publish"]>): number {
    const all: Record<string, string> = { ...fields, [EXPECTED_HEADER]: String(expected), [ID_HEADER]: id! };
    const sequence = this.log.length + 1;
    this.log.push({ sequence, subject, payload, header: (name) => all[name] ?? "" });
    return sequence;
  }

  /** As a node that hung sends on what it had received before. */
  repeat(sequence: number): void {
    this.log.push({ ...this.log[sequence - 1]!, sequence: this.log.length + 1 });
  }
}

/** Two works of one lane, one after the other. @returns where the second was said to be, and a third behind it */
async function storeThree(
  cluster: LenientCluster,
  token: string,
): Promise<Array<{ outcome: unknown; place: WorkPlace | undefined }>> {
  await cluster.tail.start();
  const lane = new Lane(cluster.host, token);
  const told: Array<{ outcome: unknown; place: WorkPlace | undefined }> = [];
  try {
    for (const frame of [1n, 2n, 3n]) {
      const runs = runsOf([{ key: "k", timeUs: 1, payload: Buffer.from(`r${frame}`) }]);
      lane.push({
        ...{ runs, records: 1, bytes: 2, tip: cluster.tail.tip },
        ...(token.startsWith("f.") && { frame }),
        done: (outcome, place) => void told.push({ outcome, place }),
        failed: (error) => void told.push({ outcome: error, place: undefined }),
      });
      await lane.drained();
    }
    const placed = told.map(({ place }) => place?.sequence ?? 0);
    assert.deepEqual(
      cluster.log.map(({ sequence }) => sequence).filter((sequence) => !cluster.tail.isVoid(sequence)),
      placed,
      "each is stored once, where its writer was told",
    );
    return told;
  } finally {
    cluster.tail.close(new StreamNotFoundError("readings"));
  }
}

/** The second message came twice, and what stands third is void. */
function assertThirdIsFourth(cluster: LenientCluster, told: Awaited<ReturnType<typeof storeThree>>): void {
  const places = told.map(({ outcome, place }) => [outcome, place?.sequence]);
  assert.deepEqual(places, [
    ["stored", 1],
    ["stored", 2],
    ["stored", 4],
  ]);
  assert.equal(cluster.published, 3, "nothing was sent once more");
}

for (const token of [gatewayToken("here"), epochToken("pi", 1n)]) {
  const what = token.startsWith("f.") ? "a frame" : "a put";

  test(`${what} stored by a try without an answer, with a repetition of an earlier one behind it, is stored`, async () => {
    const cluster = new LenientCluster();
    cluster.answers.set(2, (store) => {
      store();
      cluster.repeat(1);
      // The next try finds the repetition where it expects the first message.
      return { stored: false, uncertain: true };
    });
    const told = await storeThree(cluster, token);
    assertThirdIsFourth(cluster, told);
  });

  test(`${what} stored twice by two tries stands where the first is`, async () => {
    const cluster = new LenientCluster();
    cluster.answers.set(2, (store) => {
      store();
      // A leader that does not know of the first try answers with the place of the second.
      return { stored: true, sequence: store() };
    });
    const told = await storeThree(cluster, token);
    assertThirdIsFourth(cluster, told);
  });
}
