/** What a stretch of the log tells of its messages, against the rule applied to the whole log. */
import assert from "node:assert/strict";
import test, { mock } from "node:test";
import fc from "fast-check";
import {
  counts,
  type SubjectLog,
} from "../../../../../../gateway/streams/stores/jetstream/cluster/counting.ts";
import { Link } from "../../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import {
  EXPECTED_HEADER,
  type StoredMessage,
} from "../../../../../../gateway/streams/stores/jetstream/cluster/stored-message.ts";
import { Walk } from "../../../../../../gateway/streams/stores/jetstream/log/walk.ts";
import type { Streams } from "../../../../../../gateway/streams/streams.ts";
import { makeFrame, readAll } from "../../../../../contract/stream-records.ts";
import { clusterFact } from "../cluster-fact.ts";

function messageOf(sequence: number, subject: string, expected: number): StoredMessage {
  const header = (name: string): string => (name === EXPECTED_HEADER ? String(expected) : "");
  return { sequence, subject, payload: Buffer.alloc(0), header };
}

function logOf(kept: readonly StoredMessage[], subject: string): SubjectLog {
  return {
    get: async (sequence) => kept.find((one) => one.sequence === sequence),
    from: async (sequence) => kept.find((one) => one.subject === subject && one.sequence >= sequence),
  };
}

/** Places of a few subjects, some empty; a message expects one of the last few of its subject, or anything at all. */
const log = fc
  .array(
    fc.record({
      subject: fc.constantFrom("a", "b", "c", undefined),
      behind: fc.constantFrom(0, 0, 0, 1, 2),
      anything: fc.option(fc.nat(60), { freq: 5 }),
    }),
    { minLength: 1, maxLength: 50 },
  )
  .map((places) => {
    const messages: StoredMessage[] = [];
    for (const [i, { subject, behind, anything }] of places.entries()) {
      if (subject === undefined) continue;
      const before = messages.filter((one) => one.subject === subject).at(-1 - behind)?.sequence ?? 0;
      messages.push(messageOf(i + 1, subject, anything ?? before));
    }
    return { messages, end: places.length };
  });

test("what a walk says is what the whole log says, and it is silent only of what stands before it", () =>
  fc.assert(
    fc.asyncProperty(log, fc.nat(50), fc.nat(50), async ({ messages, end }, first, from) => {
      const firstSequence = Math.min(end, first) + 1;
      const kept = messages.filter(({ sequence }) => sequence >= firstSequence);
      const walk = new Walk(Math.max(firstSequence, Math.min(end, from)), firstSequence);
      const began = walk.next;
      const seen = new Set<string>();
      while (walk.next <= end) {
        const place = walk.next;
        const message = kept.find(({ sequence }) => sequence === place);
        if (message === undefined) walk.skip();
        else {
          const said = walk.look(message);
          const { subject } = message;
          if (said === undefined) {
            assert.ok(!seen.has(subject) && began > firstSequence);
            assert.ok(Number(message.header(EXPECTED_HEADER)) + 1 < began);
          } else assert.equal(said, await counts(logOf(kept, subject), message), `at ${place}`);
          seen.add(subject);
        }
        assert.equal(walk.next, place + 1);
      }
    }),
    { numRuns: 2_000 },
  ));

test("a walk over more subjects than it remembers says less, and nothing wrong", () => {
  const walk = new Walk(1, 1);
  for (let i = 1; i <= 5_000; i++)
    assert.equal(walk.look(messageOf(i, `s${i}`, 0)), i <= 4_096 ? true : undefined);
  assert.equal(walk.look(messageOf(5_001, "s5000", 5_000)), true);
  assert.equal(walk.look(messageOf(5_002, "s5000", 5_000)), false);
  assert.equal(walk.look(messageOf(5_003, "s1", 1)), undefined);
});

clusterFact(
  "a gateway that has just started reads all back and hardly asks what counts",
  async ({ open }) => {
    const a = await open();
    await a.createStream({ name: "s", shards: 2, retentionHours: 24 });
    const devices = Array.from({ length: 5 }, (_, i) => BigInt(i + 1));
    const write = async (epoch: bigint): Promise<void> => {
      for (let i = 1; i <= 40; i++)
        await a.appendFrame(makeFrame("s", BigInt(i), [`a=${i}`, `b=${i}`], epoch));
    };
    await Promise.all(devices.map(write));
    const textsOf = async (streams: Streams, maxBytes: number): Promise<string[][]> => {
      const shards = streams.describe("s").shardList;
      const reads = shards.map(({ shardId }) => readAll(streams, "s", shardId, 0, maxBytes));
      return (await Promise.all(reads)).map((records) => records.map(({ text }) => text));
    };
    const wanted = await textsOf(a, 100_000);
    assert.equal(wanted.flat().length, 5 * 40 * 2);
    const asked = mock.method(Link.prototype, "counts");
    try {
      // Both shards at once; pages that end within a stretch.
      for (const maxBytes of [100_000, 5_000]) {
        const before = asked.mock.callCount();
        assert.deepEqual(await textsOf(await open(), maxBytes), wanted);
        const asks = asked.mock.callCount() - before;
        assert.ok(asks <= 20, `${asks} of 200 messages were asked for`);
      }
    } finally {
      asked.mock.restore();
    }
  },
);
