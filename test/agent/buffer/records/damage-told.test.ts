/** What a damaged part lost is told of by its number also where the part is dropped, written again, or written to meanwhile. */
import assert from "node:assert/strict";
import { open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import type { RecordBuffer } from "../../../../agent/buffer/record-buffer.ts";
import { parsePartName } from "../../../../agent/buffer/records/chain-part.ts";
import { GAPS_STREAM, type GapRecord } from "../../../../protocol/topics.ts";
import { eventually } from "../../../support/program.ts";
import { openBuffer, readAll, record, temporaryFolder, texts } from "./buffer-fixture.ts";

const LIMIT = { timeout: 60_000 };
const SMALL = {
  maxBytes: 65_536,
  partBytes: 16_384,
  whenFull: "drop-oldest",
  priorities: { alarms: 1 },
} as const;

/** The logs of the parts, oldest first: of closed ones, or of the others. */
async function logsOf(dir: string, isSealed = true): Promise<string[]> {
  const chain = join(dir, "chain");
  const names = (await readdir(chain)).filter((name) => parsePartName(name)?.sealed === isSealed).sort();
  return Promise.all(
    names.map(async (name) => {
      const files = await readdir(join(chain, name));
      return join(chain, name, files.find((file) => file.endsWith(".log"))!);
    }),
  );
}

/** 64 bad bytes within one of its records. */
async function flip(log: string, at: number): Promise<void> {
  const handle = await open(log, "r+");
  const bytes = Buffer.alloc(64);
  await handle.read(bytes, 0, 64, at);
  await handle.write(
    bytes.map((byte) => byte ^ 0x55),
    0,
    64,
    at,
  );
  await handle.close();
}

/** @returns how many records are in no frame and in no report */
async function untold(buffer: RecordBuffer, stored: number): Promise<number> {
  await readAll(buffer);
  const frames = await readAll(buffer);
  const waiting = frames.reduce((sum, frame) => sum + frame.recordCount, 0);
  assert.equal(buffer.usage().waitingRecords, waiting, "what waits is what can be read");
  const gaps = texts(frames, GAPS_STREAM).map((text) => JSON.parse(text) as GapRecord);
  const told = gaps.reduce((sum, { records }) => sum + (records ?? 0), 0);
  return stored - told - texts(frames, "sensors").length - texts(frames, "alarms").length;
}

for (const [what, harm] of Object.entries({
  "of which a piece is bad": (log: string) => flip(log, 3_000),
  "whose log is gone": (log: string) => rm(log),
})) {
  test(`dropping a part ${what} tells of all its records`, LIMIT, async (t) => {
    const dir = await temporaryFolder(t);
    let buffer = await openBuffer(dir, SMALL);
    for (let i = 0; i < 30; i++) await buffer.append([record(`${i}`.padEnd(2_000))]);
    await buffer.close();
    await harm((await logsOf(dir))[0]!);
    buffer = await openBuffer(dir, SMALL);
    t.after(() => buffer.close());
    for (let i = 0; i < 30; i++) await buffer.append([record(`${i}`.padEnd(2_000))]);
    assert.equal(await untold(buffer, 60), 0);
  });

  test(`thinning a part ${what} tells of all its records`, LIMIT, async (t) => {
    const dir = await temporaryFolder(t);
    let buffer = await openBuffer(dir, SMALL);
    for (let i = 0; i < 15; i++) {
      await buffer.append([record(`${i}`.padEnd(2_000))]);
      await buffer.append([record(`${i}`.padEnd(1_000), "pi-1/a", "alarms")]);
    }
    await buffer.close();
    await harm((await logsOf(dir))[0]!);
    buffer = await openBuffer(dir, SMALL);
    t.after(() => buffer.close());
    for (let i = 0; i < 15; i++) await buffer.append([record(`${i}`.padEnd(2_000))]);
    assert.equal(await untold(buffer, 45), 0);
  });

  test(`a part that was thinned, and then one ${what}, is told of`, LIMIT, async (t) => {
    const dir = await temporaryFolder(t);
    let buffer = await openBuffer(dir, SMALL);
    for (let i = 0; i < 15; i++) {
      await buffer.append([record(`${i}`.padEnd(2_000))]);
      await buffer.append([record(`${i}`.padEnd(1_000), "pi-1/a", "alarms")]);
    }
    for (let i = 0; i < 15; i++) await buffer.append([record(`${i}`.padEnd(2_000))]);
    await eventually(
      "it is thinned",
      30_000,
      async () => (await readdir(join(dir, "chain"))).some((name) => name.endsWith(".holes")) || undefined,
    );
    await buffer.close();
    const thinned = (await logsOf(dir)).find((log) => log.includes(".holes"))!;
    await harm(thinned);
    buffer = await openBuffer(dir, SMALL);
    t.after(() => buffer.close());
    assert.equal(await untold(buffer, 45), 0);
  });
}

test("a part that is written to while its damage is looked at tells of what it lost", LIMIT, async (t) => {
  for (let round = 0; round < 5; round++) {
    const dir = await temporaryFolder(t);
    const buffer = await openBuffer(dir, { commitDelayMs: 0, commitRecords: 1 });
    t.after(() => buffer.close());
    let stored = 0;
    for (; stored < 40; stored++) await buffer.append([record(`${stored}`.padEnd(3_000))]);
    const [active] = await logsOf(dir, false);
    await flip(active!, 40_000);
    let isRead = false;
    const writing = (async () => {
      for (; !isRead; stored++) await buffer.append([record(`${stored}`)]);
    })();
    await readAll(buffer);
    isRead = true;
    await writing;
    assert.equal(await untold(buffer, stored), 0);
  }
});

test("bad bytes where all is acknowledged are no loss", LIMIT, async (t) => {
  for (const isRestarted of [true, false]) {
    const dir = await temporaryFolder(t);
    let buffer = await openBuffer(dir, SMALL);
    t.after(() => buffer.close());
    for (let i = 0; i < 30; i++) await buffer.append([record(`${i}`.padEnd(2_000))]);
    const acked = (await readAll(buffer))[3]!;
    await buffer.ack(acked.epoch, acked.sequence);
    if (isRestarted) await buffer.close();
    await flip((await logsOf(dir))[0]!, 3_000);
    if (isRestarted) buffer = await openBuffer(dir, SMALL);
    for (let i = 0; i < 30; i++) await buffer.append([record(`${i}`.padEnd(2_000))]);
    assert.equal(await untold(buffer, 60), 4);
  }
});
