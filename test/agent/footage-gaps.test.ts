import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import type { RecordBuffer } from "../../agent/buffer/record-buffer.ts";
import { FootageGaps } from "../../agent/footage-gaps.ts";
import { GAPS_STREAM } from "../../protocol/topics.ts";
import { silentLog } from "../../runtime/log.ts";
import { openBuffer, record, temporaryFolder } from "./buffer/records/buffer-fixture.ts";
import { stored, until } from "./sources/source-parts.ts";

const SECOND_US = 1_000_000;
const BEGAN_US = 1_700_000_000 * SECOND_US;
const POLICIES = ["pause", "reject"] as const;

async function full(t: TestContext, whenFull: "pause" | "reject"): Promise<RecordBuffer> {
  const buffer = await openBuffer(await temporaryFolder(t), { maxBytes: 40_000, whenFull });
  while (buffer.usage().waitingBytes < 38_000) await buffer.append([record("x".repeat(900))]);
  await buffer.append([record("x".repeat(40_000 - buffer.usage().waitingBytes - 300))]);
  t.after(() => buffer.close());
  return buffer;
}

const unitLost = (i: number) => ({
  camera: "gate",
  fromUs: BEGAN_US + 2 * i * SECOND_US,
  toUs: BEGAN_US + 2 * (i + 1) * SECOND_US,
  reason: "the footage buffer was full",
});

async function told(buffer: RecordBuffer): Promise<{ fromUs: number; toUs: number }[]> {
  return (await stored(buffer, GAPS_STREAM)) as { fromUs: number; toUs: number }[];
}

for (const whenFull of POLICIES) {
  test(`a full buffer that would ${whenFull} still takes the report of a gap in the footage`, async (t) => {
    const buffer = await full(t, whenFull);
    const gaps = new FootageGaps({ device: "pi-1", buffer, log: silentLog });
    gaps.tell(unitLost(0));
    await until(async () => (await told(buffer)).length === 1);
    await gaps.close();
    const [gap] = await told(buffer);
    assert.deepEqual(gap, {
      device: "pi-1",
      sensor: "gate",
      stream: "video.gate",
      time: "2023-11-14T22:13:22.000Z",
      reason: "the footage buffer was full",
      fromUs: BEGAN_US,
      toUs: BEGAN_US + 2 * SECOND_US,
    });
  });
}

test("while the buffer is full, gaps that touch become one, and all of it is told when there is room", async (t) => {
  const buffer = await full(t, "reject");
  const gaps = new FootageGaps({ device: "pi-1", buffer, log: silentLog, firstWaitMs: 1 });
  for (let i = 0; i < 20_000; i++) {
    gaps.tell(unitLost(i));
    if (i % 1_000 === 0) await until(() => true);
  }
  // The room that is kept for reports: an eighth of this buffer.
  assert.ok(buffer.usage().waitingBytes < 45_000, String(buffer.usage().waitingBytes));
  const waiting = buffer.usage();
  for (const frame of await buffer.read(undefined, 20_000)) await buffer.ack(frame.epoch, frame.sequence);
  assert.ok(buffer.usage().waitingBytes < waiting.waitingBytes);
  const toUs = BEGAN_US + 40_000 * SECOND_US;
  await until(async () => (await told(buffer)).at(-1)?.toUs === toUs);
  const all = await told(buffer);
  assert.ok(all.length < 100, String(all.length));
  // Reports that were acknowledged meanwhile are not looked at.
  for (const [i, gap] of all.entries()) if (i > 0) assert.ok(gap.fromUs <= all[i - 1]!.toUs);
  await gaps.close();
});

test("gaps that stored footage lies between stay apart", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const gaps = new FootageGaps({ device: "pi-1", buffer, log: silentLog });
  for (const i of [0, 1, 10, 11, 20]) gaps.tell(unitLost(i));
  await gaps.close();
  assert.deepEqual(
    (await told(buffer)).map(({ fromUs, toUs }) => [
      (fromUs - BEGAN_US) / SECOND_US,
      (toUs - BEGAN_US) / SECOND_US,
    ]),
    [
      [0, 2],
      [2, 4],
      [20, 24],
      [40, 42],
    ],
  );
  await buffer.close();
});

test("closing does not wait for a report that waits for the disk", { timeout: 60_000 }, async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), {
    whenFull: "drop-oldest",
    minFreeBytes: 2 ** 60,
  });
  const errors: string[] = [];
  const log = { ...silentLog, error: (_: object, message: string) => errors.push(message) };
  const gaps = new FootageGaps({ device: "pi-1", buffer, log });
  gaps.tell(unitLost(0));
  await gaps.close();
  await buffer.close();
  await until(() => errors.length > 0);
  assert.deepEqual(errors, ["gaps in the footage are not recorded"]);
});
