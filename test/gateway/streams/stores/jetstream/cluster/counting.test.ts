/** Which messages of a subject count, against the plain rule applied to the whole log. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  counts,
  lastCounting,
  type SubjectLog,
} from "../../../../../../gateway/streams/stores/jetstream/cluster/counting.ts";
import {
  EXPECTED_HEADER,
  ID_HEADER,
  type StoredMessage,
} from "../../../../../../gateway/streams/stores/jetstream/cluster/stored-message.ts";

interface Written {
  readonly sequence: number;
  readonly expected: number;
}

/** Sequences of a subject with gaps between them, each expecting one of the last few before it, as racing writers do. */
const history = fc
  .array(fc.record({ gap: fc.nat(3), behind: fc.constantFrom(0, 0, 0, 0, 1, 1, 2, 3) }), {
    minLength: 1,
    maxLength: 30,
  })
  .map((steps) => {
    const written: Written[] = [];
    let sequence = 0;
    for (const { gap, behind } of steps) {
      sequence += 1 + gap;
      written.push({ sequence, expected: written.at(-1 - behind)?.sequence ?? 0 });
    }
    return written;
  });

function messageOf({ sequence, expected }: Written, id = `id-${sequence}`): StoredMessage {
  const fields: Record<string, string> = { [EXPECTED_HEADER]: String(expected), [ID_HEADER]: id };
  const header = (name: string): string => fields[name] ?? "";
  return { sequence, subject: "s", payload: Buffer.alloc(0), header };
}

/** @param passedOver what looking for the next one of the subject does not find */
function logOf(
  kept: readonly Written[],
  passedOver: ReadonlySet<number> = new Set(),
): SubjectLog & { asked: number } {
  const find = async (holds: (one: Written) => boolean): Promise<StoredMessage | undefined> => {
    log.asked++;
    const found = kept.find(holds);
    return found && messageOf(found);
  };
  const log = {
    asked: 0,
    get: (sequence: number) => find((one) => one.sequence === sequence),
    from: (sequence: number) => find((one) => one.sequence >= sequence && !passedOver.has(one.sequence)),
  };
  return log;
}

/** The rule: what stands right behind what it expected. */
function plainly(written: readonly Written[]): number[] {
  return written
    .filter(({ expected }, i) => expected === (written[i - 1]?.sequence ?? 0))
    .map(({ sequence }) => sequence);
}

test("a message counts when it stands right behind what it expected", async () => {
  await fc.assert(
    fc.asyncProperty(history, async (written) => {
      const counting = plainly(written);
      for (const one of written) {
        const verdict = await counts(logOf(written), messageOf(one));
        assert.equal(verdict, counting.includes(one.sequence));
      }
    }),
  );
});

test("one that a server passes over, though it has it, counts all the same", async () => {
  await fc.assert(
    fc.asyncProperty(history, fc.nat(29), async (written, which) => {
      const one = written[which % written.length]!;
      const verdict = await counts(logOf(written, new Set([one.sequence])), messageOf(one));
      assert.equal(verdict, plainly(written).includes(one.sequence));
    }),
  );
});

test("where the leader has another message, nothing is said of this one but that", async () => {
  const written = [1, 2, 3].map((sequence) => ({ sequence, expected: sequence - 1 }));
  const log = logOf(written, new Set([2]));
  assert.equal(await counts(log, messageOf(written[1]!)), true);
  assert.equal(await counts(log, messageOf(written[1]!, "another")), "elsewhere");
});

test("what expects itself, or one behind it, does not count", async () => {
  for (const expected of [2, 3]) {
    const one = { sequence: 2, expected };
    assert.equal(await counts(logOf([{ sequence: 1, expected: 0 }, one]), messageOf(one)), false);
  }
});

test("what nobody has any more is not judged", async () => {
  const written = [1, 2, 3].map((sequence) => ({ sequence, expected: sequence - 1 }));
  assert.equal(await counts(logOf(written.slice(2)), messageOf(written[1]!)), undefined);
  assert.equal(await counts(logOf([]), messageOf(written[1]!)), undefined);
});

test("the last one that counts is found, whatever races came behind it", async () => {
  await fc.assert(
    fc.asyncProperty(history, async (written) => {
      const found = await lastCounting(logOf(written), messageOf(written.at(-1)!));
      assert.equal(found.sequence, plainly(written).at(-1));
    }),
  );
});

test("without races it takes one question", async () => {
  const written = Array.from({ length: 50 }, (_, i) => ({ sequence: i + 1, expected: i }));
  const log = logOf(written);
  assert.equal((await lastCounting(log, messageOf(written.at(-1)!))).sequence, 50);
  assert.equal(log.asked, 1);
});

test("with its beginning taken by retention the last one that counts is found all the same", async () => {
  await fc.assert(
    fc.asyncProperty(history, fc.nat(29), async (written, taken) => {
      const counting = plainly(written);
      const kept = written.slice(Math.min(taken, written.length - 1));
      const found = await lastCounting(logOf(kept), messageOf(kept.at(-1)!));
      const last = counting.at(-1)!;
      // Where the one that counts is gone itself, the oldest that is kept is the nearest to it.
      if (last >= kept[0]!.sequence) assert.equal(found.sequence, last);
      else assert.ok(kept.some(({ sequence }) => sequence === found.sequence));
    }),
  );
});
