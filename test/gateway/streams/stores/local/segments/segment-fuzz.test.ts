/** Segments with bytes changed, cut, zeroed and put in: what is sound is found, nothing else passes, nothing throws. */
import assert from "node:assert/strict";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import fc from "fast-check";
import { Group } from "../../../../../../gateway/streams/stores/local/log/group.ts";
import { scanSegment } from "../../../../../../gateway/streams/stores/local/segments/segment-scan.ts";
import { ENTRY_KIND, entryAt, MAGIC_BYTES } from "../../../../../../gateway/streams/stores/log-entry.ts";
import { encodeBatch } from "../../../../../../protocol/record-batch.ts";

const GENERATION = 0x1234_5678_9abc;

interface Written {
  readonly number: number;
  readonly from: number;
  readonly to: number;
  readonly group: number;
}

/** A log of groups, each of so many entries. */
function makeLog(
  groups: readonly (readonly number[])[],
  // A payload full of magic numbers is the search's worst case.
  fill: Uint8Array = MAGIC_BYTES,
): { bytes: Buffer; entries: Written[] } {
  const chunks: Buffer[] = [];
  const entries: Written[] = [];
  let base = 0;
  for (const [index, sizes] of groups.entries()) {
    const group = new Group(GENERATION);
    for (const size of sizes) {
      const from = base + group.bytes;
      const number = entries.length + 1;
      const payload = Buffer.alloc(size, fill);
      const batch = encodeBatch([{ key: "k", timeUs: 1, payload }]);
      group.add({
        kind: ENTRY_KIND.records,
        number,
        arrivalMs: 1,
        recordsBefore: number - 1,
        producer: undefined,
        parts: [{ shard: 0, first: number - 1, count: 1, batch, bytes: batch.length }],
      });
      entries.push({ number, from, to: base + group.bytes, group: index });
    }
    chunks.push(Buffer.from(group.contents));
    base += group.bytes;
  }
  return { bytes: Buffer.concat(chunks), entries };
}

const log = fc.array(fc.array(fc.nat(300), { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 8 });

async function scan(path: string, bytes: Buffer, tail: "torn" | "sealed", generation?: number) {
  await writeFile(path, bytes);
  const file = await open(path, "r");
  const found: Array<{ number: number; position: number }> = [];
  try {
    const result = await scanSegment(file, 0, bytes.length, generation, tail, (entry, position) => {
      found.push({ number: entry.number, position });
    });
    return { ...result, found };
  } finally {
    await file.close();
  }
}

async function withFile(body: (path: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "headwater-segment-"));
  try {
    await body(join(folder, "segment"));
  } finally {
    await rm(folder, { recursive: true });
  }
}

test("damage in a sealed segment costs the entries that it touches and no other", async () => {
  const hits = fc.array(fc.record({ at: fc.nat(), length: fc.integer({ min: 1, max: 40 }) }), {
    maxLength: 3,
  });
  await withFile(async (path) => {
    await fc.assert(
      fc.asyncProperty(log, hits, async (groups, damages) => {
        const { bytes, entries } = makeLog(groups);
        const touched = new Set<number>();
        for (const { at, length } of damages) {
          const from = at % bytes.length;
          const to = Math.min(bytes.length, from + length);
          for (let i = from; i < to; i++) bytes[i]! ^= 0x5a;
          for (const entry of entries) if (entry.from < to && from < entry.to) touched.add(entry.number);
        }
        // Two changes of one byte may undo one another, so untouched ones must be there, others may.
        const { found, damage } = await scan(path, bytes, "sealed", GENERATION);
        for (const entry of entries.filter(({ number }) => !touched.has(number))) {
          assert.ok(found.some(({ number, position }) => number === entry.number && position === entry.from));
        }
        assert.deepEqual(
          found.map(({ number }) => number),
          [...found.map(({ number }) => number)].sort((a, b) => a - b),
        );
        for (const { from, to } of damage) {
          assert.ok(entries.some((entry) => touched.has(entry.number) && entry.from < to && from < entry.to));
        }
      }),
      { numRuns: 150 },
    );
  });
});

test("of a log cut at any byte all whole entries are kept and nothing is called damage", async () => {
  await withFile(async (path) => {
    await fc.assert(
      fc.asyncProperty(log, fc.nat(), async (groups, cut) => {
        const { bytes, entries } = makeLog(groups);
        const length = cut % (bytes.length + 1);
        const { found, end, damage, tornBytes } = await scan(
          path,
          bytes.subarray(0, length),
          "torn",
          GENERATION,
        );
        const whole = entries.filter(({ to }) => to <= length);
        assert.deepEqual(
          found.map(({ number }) => number),
          whole.map(({ number }) => number),
        );
        assert.equal(end, whole.at(-1)?.to ?? 0);
        assert.equal(tornBytes, length - end);
        assert.deepEqual(damage, []);
      }),
      { numRuns: 100 },
    );
  });
});

test("damage in the last group cuts it there; in an earlier one it is damage", async () => {
  await withFile(async (path) => {
    await fc.assert(
      fc.asyncProperty(log, fc.nat(), async (groups, at) => {
        const { bytes, entries } = makeLog(groups);
        const hit = entries[at % entries.length]!;
        bytes[hit.from + 20]! ^= 1;
        const { found, end, damage } = await scan(path, bytes, "torn", GENERATION);
        const isLast = hit.group === groups.length - 1;
        const kept = entries.filter(({ number }) => (isLast ? number < hit.number : number !== hit.number));
        assert.deepEqual(
          found.map(({ number }) => number),
          kept.map(({ number }) => number),
        );
        assert.equal(end, isLast ? hit.from : bytes.length);
        assert.deepEqual(damage, isLast ? [] : [{ from: hit.from, to: hit.to }]);
      }),
      { numRuns: 100 },
    );
  });
});

test("what stands behind damage is found wherever a read of 1 MiB ends in it, and however large it is", async () => {
  const zero = Buffer.alloc(1);
  const [overhead] = makeLog([[1_000_000]], zero).entries.map(({ to }) => to - 1_000_000);
  await withFile(async (path) => {
    for (const before of [0, 1, 2, 3, 4, 23, 24, 55, 56, 57, 300]) {
      for (const size of [10, 1_200_000]) {
        // The search begins with the second byte of the damaged entry.
        const damaged = 1_048_576 + 1 - before - overhead!;
        const { bytes, entries } = makeLog([[5], [damaged], [size], [5]], zero);
        const hit = entries[1]!;
        bytes[hit.to - 1]! ^= 1;
        for (const tail of ["torn", "sealed"] as const) {
          const { found, damage, end } = await scan(path, bytes, tail, GENERATION);
          const what = `${before} bytes before the read's end, ${size} bytes, ${tail}`;
          assert.deepEqual(
            found.map(({ number }) => number),
            [1, 3, 4],
            what,
          );
          assert.deepEqual(damage, [{ from: hit.from, to: hit.to }], what);
          assert.equal(end, bytes.length, what);
        }
      }
    }
  });
});

test("a head that claims more than there is, or another's bytes, does not hide what stands behind it", async () => {
  await withFile(async (path) => {
    for (const claimed of [300, 5_000, 60 * 1_048_576]) {
      const { bytes, entries } = makeLog([[5], [400], [200], [5]]);
      // In the damaged entry stands what looks like the head of one of this generation.
      const head = bytes.subarray(entries[0]!.from, entries[0]!.from + 56);
      const claim = Buffer.from(head);
      claim.writeUInt32BE(claimed, 12);
      claim.copy(bytes, entries[1]!.from + 100);
      const { found, damage } = await scan(path, bytes, "sealed", GENERATION);
      assert.deepEqual(
        found.map(({ number }) => number),
        [1, 3, 4],
        `${claimed}`,
      );
      assert.deepEqual(damage, [{ from: entries[1]!.from, to: entries[1]!.to }]);
    }
  });
});

test("entries of another generation are no entries", async () => {
  await withFile(async (path) => {
    const { bytes, entries } = makeLog([[10, 20], [30]]);
    assert.equal((await scan(path, bytes, "torn", GENERATION + 1)).found.length, 0);
    assert.equal((await scan(path, bytes, "torn", undefined)).found.length, entries.length);
  });
});

test("random bytes are no entry, and ask for no more than an entry may have", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (random, headed) => {
      const bytes = Buffer.from(random);
      if (headed && bytes.length >= 9) {
        MAGIC_BYTES.copy(bytes);
        bytes[8] = 1;
      }
      const found = entryAt(bytes, 0, undefined);
      assert.ok(found === "damaged" || (typeof found === "number" && found <= 64 * 1_048_576));
    }),
  );
});
