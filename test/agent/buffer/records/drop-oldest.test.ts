import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { BufferFullError } from "../../../../agent/buffer/record-buffer.ts";
import { GAPS_STREAM } from "../../../../protocol/topics.ts";
import { openBuffer, readAll, record, temporaryFolder, texts } from "./buffer-fixture.ts";

/** What goes on for ever goes on for longer than that. */
const LIMIT = { timeout: 120_000 };

test(
  "an append for which dropping everything makes no room is refused, and does not drop for ever",
  LIMIT,
  async (t) => {
    const options = { maxBytes: 65_536, partBytes: 16_384, whenFull: "drop-oldest" } as const;
    const buffer = await openBuffer(await temporaryFolder(t), options);
    t.after(() => buffer.close());
    for (let i = 0; i < 20; i++) await buffer.append([record("x".repeat(8_000))]);
    // It would fit into an empty buffer, but the report of what was dropped for it takes some room.
    await assert.rejects(buffer.append([record("y".repeat(65_350))]), BufferFullError);
    await buffer.append([record("small")]);
    assert.equal(texts(await readAll(buffer), "sensors").at(-1), "small");
  },
);

test("what a source wrote to the stream of gaps and is no gap hinders no dropping", LIMIT, async (t) => {
  const options = { maxBytes: 65_536, partBytes: 16_384, whenFull: "drop-oldest" } as const;
  const dir = await temporaryFolder(t);
  const buffer = await openBuffer(dir, options);
  t.after(() => buffer.close());
  await buffer.append([record("no JSON", "pi-1/a", GAPS_STREAM), record("null", "pi-1/a", GAPS_STREAM)]);
  for (let i = 0; i < 20; i++) await buffer.append([record(`${i}`.padEnd(8_000))]);
  const left = await readAll(buffer);
  assert.equal(texts(left, "sensors").at(-1)?.trim(), "19");
  const gaps = texts(left, GAPS_STREAM);
  assert.ok(gaps.includes("no JSON") && gaps.includes("null"), "they are carried on as they are");
});

test("a disk that stays short is not written to for ever once all that may go has gone", LIMIT, async (t) => {
  const dir = await temporaryFolder(t);
  let buffer = await openBuffer(dir, { partBytes: 16_384 });
  for (let i = 0; i < 10; i++) await buffer.append([record(`${i}`.padEnd(8_000))]);
  await buffer.close();
  // So much is never free.
  buffer = await openBuffer(dir, { partBytes: 16_384, whenFull: "drop-oldest", minFreeBytes: 2 ** 60 });
  const waiting = assert.rejects(buffer.append([record("last")]), { code: "BUFFER_FAILED" });
  while (buffer.usage().droppedRecords < 10) await new Promise((resolve) => setTimeout(resolve, 10));
  // What was dropped is removed as quickly as the disk lets it; then nothing changes any more.
  const parts = async (): Promise<string> => (await readdir(join(dir, "chain"))).sort().join();
  let before = "";
  for (let now = await parts(); now !== before; now = await parts()) {
    before = now;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  const gaps = texts(await readAll(buffer), GAPS_STREAM).map((text) => JSON.parse(text).records);
  assert.equal(
    gaps.reduce((sum, records) => sum + records, 0),
    10,
  );
  await buffer.close();
  await waiting;
});

test("a stream that is called as a member of every object is dropped like any other", LIMIT, async (t) => {
  const options = {
    maxBytes: 65_536,
    partBytes: 16_384,
    whenFull: "drop-oldest",
    priorities: { alarms: 1 },
  } as const;
  const buffer = await openBuffer(await temporaryFolder(t), options);
  t.after(() => buffer.close());
  await buffer.append([record("alarm", "pi-1/a", "alarms")]);
  for (let i = 0; i < 20; i++) await buffer.append([record(`${i}`.padEnd(8_000), "pi-1/a", "constructor")]);
  assert.deepEqual(texts(await readAll(buffer), "alarms"), ["alarm"]);
});
