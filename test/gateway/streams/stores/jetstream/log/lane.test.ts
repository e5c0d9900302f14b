import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { equalRanges } from "../../../../../../gateway/streams/shard-map.ts";
import { Gets } from "../../../../../../gateway/streams/stores/jetstream/cluster/gets.ts";
import type {
  Link,
  PublishOutcome,
} from "../../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import {
  EXPECTED_HEADER,
  ID_HEADER,
  type StoredMessage,
} from "../../../../../../gateway/streams/stores/jetstream/cluster/stored-message.ts";
import { runsOf } from "../../../../../../gateway/streams/stores/jetstream/log/entry.ts";
import {
  Lane,
  type LaneHost,
  MAX_WAITING_BYTES,
  type Work,
  type WorkPlace,
} from "../../../../../../gateway/streams/stores/jetstream/log/lane.ts";
import {
  epochToken,
  gatewayToken,
  UNKNOWN,
} from "../../../../../../gateway/streams/stores/jetstream/log/producer-states.ts";
import { shardRecord } from "../../../../../../gateway/streams/stores/jetstream/log/shard-history.ts";
import { StreamTail } from "../../../../../../gateway/streams/stores/jetstream/log/stream-tail.ts";
import { LogBusyError, StreamNotFoundError } from "../../../../../../gateway/streams/streams.ts";
import { silentLog } from "../../../../../../runtime/log.ts";

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
  ...{ runs: [], records: 1, bytes, frame: sequence, tip: 0, recent: [] },
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

/** What becomes of the tries of a publish, each with an id of its own; the last one gets an answer. */
const TRIES = fc.array(fc.constantFrom("stored", "late", "lost"), { minLength: 1, maxLength: 4 });

const CLOCK = { nowUs: () => 1_000, monotonicMs: () => 0 };

/** @param other number of another one of the publish's ids. @returns what the cluster answers to that try */
type Store = (other?: number) => PublishOutcome;

/**
 * A cluster whose log is at hand and whose answers to publishes are given by the test. Unless told to, it looks at
 * nothing, as a leader that has just been chosen may not know what it should look at; lane and tail are the real ones.
 */
class LenientCluster {
  readonly log: StoredMessage[] = [];
  readonly tail: StreamTail;
  readonly host: LaneHost;
  /** What becomes of each publish, by its number from 1; the others are stored once and answered. */
  readonly answers = new Map<number, (store: Store) => PublishOutcome>();
  published = 0;
  /** At what a message expects, before it is stored. */
  looks = false;
  /** What becomes of tries without an answer behind the next publish, or at the end. */
  late: Array<() => void> = [];

  constructor() {
    const find = async (holds: (message: StoredMessage) => boolean): Promise<StoredMessage | undefined> =>
      this.log.find(holds);
    const link = {
      id: "here",
      gets: new Gets(),
      signal: new AbortController().signal,
      nextMessageId: () => `here-${this.published + 1}`,
      publish: async (...sent: Parameters<Link["publish"]>): Promise<PublishOutcome> => {
        const store: Store = (other) => this.#store(sent, other);
        const answer = this.answers.get(++this.published);
        for (const store of this.late.splice(0)) store();
        return answer === undefined ? store() : answer(store);
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

  #store(
    [, subject, payload, fields, expected, first]: Parameters<Link["publish"]>,
    other?: number,
  ): PublishOutcome {
    const id = other === undefined ? first! : `${first}+${other}`;
    const all: Record<string, string> = { ...fields, [EXPECTED_HEADER]: String(expected), [ID_HEADER]: id };
    const last = this.log.findLast((message) => message.subject === subject)?.sequence ?? 0;
    if (this.looks && last !== expected) return { stored: false, uncertain: true };
    const sequence = this.log.length + 1;
    this.log.push({ sequence, subject, payload, header: (name) => all[name] ?? "" });
    return { stored: true, sequence, id };
  }

  /** As a node that hung sends on what it had received before. */
  repeat(sequence: number): void {
    this.log.push({ ...this.log[sequence - 1]!, sequence: this.log.length + 1 });
  }
}

/** Works of one lane, one after the other. @returns where each was said to be */
async function storeWorks(
  cluster: LenientCluster,
  token: string,
  works = 3,
): Promise<Array<{ outcome: unknown; place: WorkPlace | undefined }>> {
  await cluster.tail.start();
  const lane = new Lane(cluster.host, token);
  const told: Array<{ outcome: unknown; place: WorkPlace | undefined }> = [];
  try {
    for (let frame = 1n; frame <= works; frame++) {
      const runs = runsOf([{ key: "k", timeUs: 1, payload: Buffer.from(`r${frame}`) }]);
      lane.push({
        ...{ runs, records: 1, bytes: 2, tip: cluster.tail.tip, recent: [] },
        ...(token.startsWith("f.") && { frame }),
        done: (outcome, place) => void told.push({ outcome, place }),
        failed: (error) => void told.push({ outcome: error, place: undefined }),
      });
      await lane.drained();
    }
    const placed = told.map(({ place }) => place?.sequence ?? 0);
    for (const repeated of cluster.late.splice(0)) repeated();
    await cluster.tail.poll();
    await cluster.tail.reach(cluster.log.length);
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
function assertThirdIsFourth(cluster: LenientCluster, told: Awaited<ReturnType<typeof storeWorks>>): void {
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
    const told = await storeWorks(cluster, token);
    assertThirdIsFourth(cluster, told);
  });

  test(`${what} stored twice by two tries stands where the first is`, async () => {
    const cluster = new LenientCluster();
    cluster.answers.set(2, (store) => {
      store();
      // A leader that does not know of the first try answers with the place of the second.
      return store();
    });
    const told = await storeWorks(cluster, token);
    assertThirdIsFourth(cluster, told);
  });

  test(`${what} stored under an id that was given up is stored, though the next one is refused`, async () => {
    for (const other of [undefined, 1]) {
      const cluster = new LenientCluster();
      cluster.answers.set(2, (store) => {
        store(other);
        return { stored: false, uncertain: true };
      });
      const told = await storeWorks(cluster, token);
      assert.deepEqual(
        told.map(({ place }) => place?.sequence),
        [1, 2, 3],
      );
      assert.equal(cluster.published, 3, "nothing was sent once more");
    }
  });

  test(`${what} stored under two ids stands where the first is`, async () => {
    const cluster = new LenientCluster();
    cluster.answers.set(2, (store) => {
      store();
      return store(1);
    });
    assertThirdIsFourth(cluster, await storeWorks(cluster, token));
  });

  test(`${what} is stored once whichever of its ids are, and whenever, by nodes that look at what it expects and such that do not`, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.boolean(),
        fc.array(TRIES, { minLength: 1, maxLength: 12 }),
        async (looks, plans) => {
          const cluster = new LenientCluster();
          cluster.looks = looks;
          plans.forEach((tries, i) => {
            cluster.answers.set(i + 1, (store) => {
              let answer: PublishOutcome = { stored: false, uncertain: true };
              tries.forEach((fate, at) => {
                const send = () => store(at === 0 ? undefined : at);
                // The last one is waited for.
                if (fate === "stored" || at === tries.length - 1) answer = send();
                else if (fate === "late") cluster.late.push(send);
              });
              return answer;
            });
          });
          const told = await storeWorks(cluster, token, plans.length);
          assert.deepEqual(new Set(told.map(({ outcome }) => outcome)), new Set(["stored"]));
        },
      ),
    );
  });
}
