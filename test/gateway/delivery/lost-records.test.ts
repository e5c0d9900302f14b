/** What the log itself lost, by damage or at its end: deliveries go on behind it, and nothing new is passed over. */
import assert from "node:assert/strict";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import type { CutStep } from "../../../gateway/delivery/cutter.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { closeRigs, lines, openRig, type Rig, STREAM, until } from "./delivery-rig.ts";

async function inFolder(body: (dir: string) => Promise<void>): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-delivery-"));
  try {
    await body(dir);
  } finally {
    await closeRigs();
    await removeFolder(dir);
  }
}

const status = (rig: Rig) => rig.delivery.status()[0]!;

/** Records of one key, so all are in one shard. */
function ofOneKey(from: number, count: number): { partitionKey: string; data: Buffer }[] {
  return Array.from({ length: count }, (_, i) => ({
    partitionKey: "k",
    data: Buffer.from(JSON.stringify({ n: from + i })),
  }));
}

const numbers = async (rig: Rig): Promise<number[]> =>
  (await lines(rig.out)).map((line) => (JSON.parse(line) as { n: number }).n);

async function flipByteOf(dir: string, text: string): Promise<void> {
  const logs = join(dir, "streams", "logs");
  for (const name of await readdir(logs, { recursive: true })) {
    const bytes = await readFile(join(logs, name)).catch(() => Buffer.alloc(0));
    const at = bytes.indexOf(text);
    if (at < 0) continue;
    bytes[at] = bytes[at]! ^ 1;
    await writeFile(join(logs, name), bytes);
    return;
  }
  throw new Error(`${text} is nowhere`);
}

test("a closed shard whose last records are damaged does not hold its children up", () =>
  inFolder(async (dir) => {
    const first = await openRig(dir);
    await first.delivery.start();
    await first.streams.append(STREAM, ofOneKey(0, 5));
    await until("delivered", () => status(first).deliveredRecords === 5);
    await first.delivery.close();
    const { shardId } = (await first.streams.append(STREAM, ofOneKey(5, 1)))[0]!;
    await first.close();
    await flipByteOf(dir, '{"n":5}');
    const rig = await openRig(dir);
    const { hashFrom, hashTo } = rig.streams
      .describe(STREAM)
      .shardList.find((one) => one.shardId === shardId)!;
    await rig.streams.splitShard(STREAM, shardId, (hashFrom + hashTo) / 2n);
    await rig.streams.append(STREAM, ofOneKey(6, 4));
    await rig.delivery.start();
    await until("the children are delivered", () => status(rig).deliveredRecords === 9);
    assert.deepEqual(await numbers(rig), [0, 1, 2, 3, 4, 6, 7, 8, 9]);
  }));

for (const step of ["manifest", "object"] as const) {
  test(`a log that lost its end under a cut that was stopped behind "${step}": what comes in its place is delivered`, () =>
    inFolder(async (dir) => {
      const logs = join(dir, "streams", "logs");
      // Tried again before it is closed, it must come no further.
      let isStopped = false;
      const stopped = await openRig(dir, {
        onStep: (at: CutStep) => {
          isStopped ||= at === step;
          if (isStopped) throw new Error(`stopped behind ${step}`);
        },
      });
      await stopped.streams.append(STREAM, ofOneKey(0, 10));
      await cp(logs, join(dir, "earlier"), { recursive: true });
      await stopped.streams.append(STREAM, ofOneKey(10, 10));
      await stopped.delivery.start();
      await until("a cut is under way", () => status(stopped).lastError !== undefined);
      await stopped.close();
      await rm(logs, { recursive: true });
      await cp(join(dir, "earlier"), logs, { recursive: true });

      const rig = await openRig(dir);
      // The doors may open before the delivery looks at its cut.
      await rig.streams.append(STREAM, ofOneKey(20, 15));
      await rig.delivery.start();
      const made = step === "object" ? 20 : 10;
      await until("all is delivered", () => status(rig).deliveredRecords >= made + 15);
      const kept = Array.from({ length: made }, (_, i) => i);
      assert.deepEqual(await numbers(rig), [...kept, ...Array.from({ length: 15 }, (_, i) => 20 + i)]);
      assert.equal(status(rig).trimmedRecords, 20 - made);
      assert.equal(status(rig).lastError, undefined);
    }));
}
