import assert from "node:assert/strict";
import test from "node:test";
import { Places } from "../../../../gateway/api/kinesis/places.ts";

test("no more run at once than there are places, in the order in which they came, whatever fails", async () => {
  const places = new Places(3);
  const begun: number[] = [];
  const ends: Array<() => void> = [];
  let running = 0;
  const all = Array.from({ length: 10 }, (_, i) =>
    places
      .run(async () => {
        begun.push(i);
        running++;
        await new Promise<void>((resolve) => ends.push(resolve));
        running--;
        if (i % 2 === 0) throw new Error(`${i} failed`);
        return i;
      })
      .catch((error: Error) => error.message),
  );
  for (let i = 0; i < 10; i++) {
    assert.ok(running <= 3);
    assert.equal(begun.length, Math.min(10, i + 3));
    ends[i]!();
    await new Promise((resolve) => setImmediate(resolve));
  }
  const answers = Array.from({ length: 10 }, (_, i) => (i % 2 === 0 ? `${i} failed` : i));
  assert.deepEqual(await Promise.all(all), answers);
  assert.deepEqual(begun, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});
