/** What a store keeps of what was appended to it, once that is on disk. */
import assert from "node:assert/strict";
import test from "node:test";
import { bufferBytes, heldAtMost } from "../../../../support/held-memory.ts";
import { makeLocalPlace } from "./local-place.ts";

const MIB = 1_048_576;
const STREAMS = 24;

test("streams that got a large request once do not keep memory for it", async (t) => {
  const place = await makeLocalPlace();
  t.after(() => place.remove());
  const streams = await place.open();
  t.after(() => streams.close());
  const names = Array.from({ length: STREAMS }, (_, i) => `s-${i}`);
  for (const name of names) await streams.createStream({ name, shards: 1, retentionHours: 24 });
  const sinceBytes = bufferBytes();
  const large = Array.from({ length: 5 }, (_, i) => ({
    partitionKey: `k-${i}`,
    data: Buffer.alloc(900_000),
  }));
  const append = (entries: typeof large): Promise<unknown> =>
    Promise.all(names.map((name) => streams.append(name, entries)));
  await append(large);
  // What comes later is small, and takes no more than it needs.
  await append([{ partitionKey: "k", data: Buffer.from("small") }]);
  assert.ok((await heldAtMost(48 * MIB, sinceBytes)) <= 48 * MIB);
  await append(large);
  assert.equal(streams.shard("s-7", 0).latest, 11);
});
