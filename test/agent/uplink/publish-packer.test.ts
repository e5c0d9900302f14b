import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import test from "node:test";
import fc from "fast-check";
import { type Compression, PublishPacker } from "../../../agent/uplink/publish-packer.ts";
import { decodeFrame, decodeFrames, encodeFrame, type Frame } from "../../../protocol/frame.ts";
import { isEnvelope, openSync, readEnvelope } from "../../../protocol/publish-envelope.ts";
import { encodeBatch } from "../../../protocol/record-batch.ts";
import { Metrics } from "../../../runtime/metrics.ts";

const json = (bytes: number): Buffer => Buffer.from('{"temperature":21.5,"unit":"C"}'.repeat(bytes / 31 + 1));

function frame(payload: Buffer, stream = "sensors", sequence = 1n): Frame {
  const head = { device: "pi-1", stream, epoch: 1n, epochStart: 1, sequence, storedUs: 1, recordCount: 1 };
  const batch = encodeBatch([{ key: "k", timeUs: 1, payload }]);
  return decodeFrame(encodeFrame({ ...head, timeSource: "ntp" }, batch));
}

function packer(mode: Compression) {
  const metrics = new Metrics();
  const made = new PublishPacker(mode, metrics);
  return {
    lane: (accepts = true) => made.lane(() => accepts),
    async compressedBytes(): Promise<number> {
      const line = /^headwater_uplink_compressed_bytes_total (\d+)$/m.exec(await metrics.render());
      return Number(line?.[1]);
    },
  };
}

test("what is packed holds the frames in their order, and is never larger than they are", async () => {
  const frames = fc.array(fc.record({ bytes: fc.integer({ min: 1, max: 30_000 }), random: fc.boolean() }), {
    minLength: 1,
    maxLength: 6,
  });
  await fc.assert(
    fc.asyncProperty(
      frames,
      fc.constantFrom<Compression>("auto", "always", "never"),
      fc.boolean(),
      async (kinds, mode, accepts) => {
        const made = kinds.map(({ bytes, random }, i) =>
          frame(random ? randomBytes(bytes) : json(bytes), "sensors", BigInt(i + 1)),
        );
        const { payload, frameBytes } = await packer(mode).lane(accepts).pack(made);
        assert.equal(
          frameBytes,
          made.reduce((sum, { bytes }) => sum + bytes.length, 0),
        );
        assert.ok(payload.length <= frameBytes);
        assert.ok((accepts && mode !== "never") || !isEnvelope(payload));
        const plain = isEnvelope(payload) ? openSync(readEnvelope(payload)) : payload;
        assert.deepEqual(
          decodeFrames(plain).map(({ sequence }) => sequence),
          made.map(({ sequence }) => sequence),
        );
      },
    ),
    { numRuns: 60 },
  );
});

test("what was asked for first is done first, whatever takes longer", async () => {
  const lane = packer("always").lane();
  const done: number[] = [];
  const sizes = [1_000_000, 100, 300_000, 2_000, 100];
  await Promise.all(
    sizes.map(async (size, i) => {
      await lane.pack([frame(json(size))]);
      done.push(i);
    }),
  );
  assert.deepEqual(done, [0, 1, 2, 3, 4]);
});

test("JSON is compressed; a few bytes are not", async () => {
  const lane = packer("auto").lane();
  const { payload, frameBytes } = await lane.pack([frame(json(20_000))]);
  assert.ok(isEnvelope(payload) && payload.length < frameBytes / 5);
  const small = await lane.pack([frame(json(100))]);
  assert.equal(isEnvelope(small.payload), false);
});

test("what does not compress is tried ever more seldom, and does not keep another stream from it", async () => {
  const { lane, compressedBytes } = packer("auto");
  const { pack } = lane();
  const random = frame(randomBytes(5_000), "pictures");
  const readings = frame(json(5_000), "sensors");
  let compressed = 0;
  for (let i = 0; i < 1_000; i++) {
    assert.equal((await pack([random])).payload, random.bytes);
    if (isEnvelope((await pack([readings])).payload)) compressed++;
  }
  assert.equal(compressed, 1_000);
  const tries = ((await compressedBytes()) - 1_000 * readings.bytes.length) / random.bytes.length;
  assert.ok(tries > 5 && tries < 15, `${tries} tries`);
});

test("a stream that begins to compress is found out", async () => {
  const { pack } = packer("auto").lane();
  for (let i = 0; i < 300; i++) await pack([frame(randomBytes(1_000))]);
  let plain = 0;
  while (!isEnvelope((await pack([frame(json(1_000))])).payload)) plain++;
  assert.ok(plain <= 256, `${plain} publishes`);
  // And is not doubted after that.
  for (let i = 0; i < 10; i++) assert.ok(isEnvelope((await pack([frame(json(1_000))])).payload));
});
