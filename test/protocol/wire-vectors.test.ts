import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import test from "node:test";
import { decodeFrame, encodeFrame } from "../../protocol/frame.ts";
import { openSync, readEnvelope, sealSync } from "../../protocol/publish-envelope.ts";
import { encodeBatch, forEachRecord } from "../../protocol/record-batch.ts";

/** The tests run from the checkout's root, also when compiled. */
const page = await readFile("docs/reference/wire.md", "utf8");
const documented = vector("frame");

function vector(name: string): Buffer {
  const text = new RegExp(`\`\`\`hex ${name}\\n([^\`]*)\`\`\``).exec(page)![1]!;
  return Buffer.from(text.replace(/\s/g, ""), "hex");
}

test("the documented frame is what the code writes", () => {
  const batch = encodeBatch([
    { key: "pi-1/barn", timeUs: 1_763_716_200_000_000, payload: Buffer.from('{"t":21.5}') },
    { key: "pi-1/silo", timeUs: 1_763_716_200_250_000, payload: Buffer.from('{"t":9}') },
    { key: "pi-1/barn", timeUs: 1_763_716_201_000_000, payload: Buffer.from('{"t":21.6}') },
  ]);
  const frame = encodeFrame(
    {
      device: "pi-1",
      stream: "sensors",
      epoch: 0x0123456789abcdefn,
      epochStart: 7,
      sequence: 42n,
      storedUs: 1_763_716_201_020_000,
      recordCount: 3,
      timeSource: "system",
    },
    batch,
  );
  assert.equal(frame.toString("hex"), documented.toString("hex"));
});

test("the documented frame is read as documented", () => {
  const frame = decodeFrame(documented);
  assert.deepEqual(
    [frame.device, frame.stream, frame.epochStart, frame.sequence],
    ["pi-1", "sensors", 7, 42n],
  );
  const records: string[] = [];
  for (const run of frame.runs) {
    forEachRecord(run, (payload, timeUs) => records.push(`${run.key} ${timeUs} ${payload}`));
  }
  assert.deepEqual(records, [
    'pi-1/barn 1763716200000000 {"t":21.5}',
    'pi-1/barn 1763716201000000 {"t":21.6}',
    'pi-1/silo 1763716200250000 {"t":9}',
  ]);
});

test("the documented envelope is opened as documented, and its head is what the code writes", () => {
  const envelope = vector("envelope");
  const frames = Buffer.concat([documented, documented]);
  assert.ok(openSync(readEnvelope(envelope)).equals(frames));
  assert.ok(sealSync(frames).subarray(0, 8).equals(envelope.subarray(0, 8)));
});
