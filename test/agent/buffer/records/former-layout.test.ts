import assert from "node:assert/strict";
import { cp, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { type Operation, openDatabase, writeSynced } from "../../../../agent/buffer/level/leveldb.ts";
import { ForeignBufferError } from "../../../../agent/buffer/records/sidecar.ts";
import { encodeFrame, epochName } from "../../../../protocol/frame.ts";
import { encodeBatch } from "../../../../protocol/record-batch.ts";
import { crc32c } from "../../../../runtime/crc32c.ts";
import { openBuffer, readAll, temporaryFolder, texts } from "./buffer-fixture.ts";

const EPOCHS = [0xaaaan, 0xbbbbn];
const FRAMES = 40;
const hex = (value: number | bigint, digits: number): string => value.toString(16).padStart(digits, "0");

function frameOf(start: number, sequence: number): Buffer {
  const payload = Buffer.from(`${start}/${sequence}`.padEnd(200));
  return encodeFrame(
    {
      device: "pi-1",
      stream: "sensors",
      epoch: EPOCHS[start - 1]!,
      epochStart: start,
      sequence: BigInt(sequence),
      storedUs: 1_700_000_000_000_000 + sequence,
      recordCount: 1,
      timeSource: "system",
    },
    encodeBatch([{ key: "k", timeUs: 1_700_000_000_000_000, payload }]),
  );
}

/** As version 0.1 left it: epoch 1 half acknowledged, epoch 2 whole, one mark. */
async function formerFolder(dir: string, promised = FRAMES): Promise<void> {
  await mkdir(dir, { recursive: true });
  const database = await openDatabase(join(dir, "db"), true);
  const operations: Operation[] = [{ type: "put", key: "m/serial/board", value: Buffer.from("mark") }];
  for (const start of [1, 2]) {
    const tail = JSON.stringify([epochName(EPOCHS[start - 1]!), String(FRAMES), FRAMES, FRAMES * 260]);
    operations.push({ type: "put", key: `t/${hex(start, 8)}`, value: Buffer.from(tail) });
    for (let sequence = 1; sequence <= FRAMES; sequence++) {
      const key = `f/${hex(start, 8)}/${hex(sequence, 16)}`;
      if (start === 2 || sequence > 20)
        operations.push({ type: "put", key, value: frameOf(start, sequence) });
    }
  }
  operations.push({
    type: "put",
    key: `h/${hex(1, 8)}`,
    value: Buffer.from(JSON.stringify(["20", 20, 5_200])),
  });
  await writeSynced(database, operations);
  await database.close();
  const epochs = [1, 2].map((start) => ({
    start,
    epoch: epochName(EPOCHS[start - 1]!),
    last: String(promised),
    removedTo: start === 1 ? "20" : "0",
  }));
  const json = JSON.stringify({
    version: 1,
    device: "pi-1",
    epochStart: 2,
    floorStart: 1,
    epochs,
    oldestUs: 0,
    writtenUs: 0,
  });
  await writeFile(join(dir, "sidecar"), `${json}\n${hex(crc32c(Buffer.from(json)), 8)}\n`);
}

const EXPECTED = [
  ...Array.from({ length: 20 }, (_, i) => `1/${i + 21}`),
  ...Array.from({ length: FRAMES }, (_, i) => `2/${i + 1}`),
];

async function assertMigrated(dir: string): Promise<void> {
  const buffer = await openBuffer(dir);
  const frames = await readAll(buffer);
  assert.deepEqual(
    texts(frames).map((text) => text.trim()),
    EXPECTED,
  );
  assert.deepEqual([...new Set(frames.map((frame) => frame.epoch))], EPOCHS);
  assert.equal(buffer.usage().waitingRecords, EXPECTED.length);
  assert.equal(Buffer.from((await buffer.mark("serial/board"))!).toString(), "mark");
  await buffer.close();
  assert.ok(!(await readdir(dir)).includes("db"));
}

test("a folder of the former layout is migrated: frames keep their places, and marks stay", async (t) => {
  const dir = join(await temporaryFolder(t), "records");
  await formerFolder(dir);
  await assertMigrated(dir);
  await assertMigrated(dir);
});

test("a migration that a crash interrupted begins again, or is only cleaned up", async (t) => {
  const root = await temporaryFolder(t);
  const dir = join(root, "records");
  await formerFolder(dir);
  await cp(join(dir, "db"), join(root, "db"), { recursive: true });
  await mkdir(join(dir, "chain/00000001"), { recursive: true });
  await writeFile(join(dir, "chain/00000001/000003.log"), "half a record");
  await assertMigrated(dir);
  await rename(join(root, "db"), join(dir, "db"));
  await assertMigrated(dir);
});

/** One byte is another: the version, of all things. */
async function damageSidecar(dir: string): Promise<void> {
  const file = join(dir, "sidecar");
  await writeFile(file, (await readFile(file, "utf8")).replace('"version":1', '"version":3'));
}

test("what cannot be migrated is refused and left alone", async (t) => {
  const root = await temporaryFolder(t);
  for (const [what, change] of [
    ["another device", () => undefined],
    ["fewer frames than were promised", () => undefined],
    ["no sidecar", (dir: string) => rm(join(dir, "sidecar"))],
    ["a damaged sidecar", damageSidecar],
    ["an open that did not end", (dir: string) => mkdir(join(dir, "before"))],
  ] as const) {
    const dir = join(root, what);
    await formerFolder(dir, what.startsWith("fewer") ? FRAMES + 1 : FRAMES);
    await change(dir);
    const device = what === "another device" ? "pi-2" : "pi-1";
    await assert.rejects(openBuffer(dir, { device }), ForeignBufferError, what);
    assert.ok((await readdir(dir)).includes("db"), what);
  }
});
