import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import test from "node:test";
import { brotliCompressSync, constants } from "node:zlib";
import fc from "fast-check";
import {
  ENVELOPE_HEAD_BYTES,
  isEnvelope,
  MAX_ENVELOPED_BYTES,
  MalformedEnvelopeError,
  open,
  openSync,
  readEnvelope,
  seal,
  sealSync,
} from "../../protocol/publish-envelope.ts";
import { crc32c } from "../../runtime/crc32c.ts";

const isRefusal = (error: unknown): boolean => error instanceof MalformedEnvelopeError;

/** Both ways of opening, which have to agree. */
async function opened(bytes: Uint8Array): Promise<Buffer> {
  const envelope = readEnvelope(bytes);
  let atOnce: Buffer | undefined;
  try {
    atOnce = openSync(envelope);
  } catch (error) {
    assert.ok(isRefusal(error), String(error));
  }
  const later = await open(envelope).catch((error: unknown) => {
    assert.ok(isRefusal(error), String(error));
    return undefined;
  });
  assert.deepEqual(later, atOnce);
  if (atOnce === undefined) throw new MalformedEnvelopeError("refused in both ways");
  return atOnce;
}

/** With a checksum that fits, so that what lies behind it is tried as well. */
function reseal(bytes: Buffer): Buffer {
  bytes.writeUInt32BE(crc32c(bytes, ENVELOPE_HEAD_BYTES, bytes.length, crc32c(bytes, 0, 8)), 8);
  return bytes;
}

function made(plainBytes: number, compressed: Uint8Array): Buffer {
  const head = sealSync(Buffer.from("x")).subarray(0, ENVELOPE_HEAD_BYTES);
  const bytes = Buffer.concat([head, compressed]);
  bytes.writeUInt32BE(plainBytes, 4);
  return reseal(bytes);
}

function zeros(bytes: number): Buffer {
  return brotliCompressSync(Buffer.alloc(bytes), { params: { [constants.BROTLI_PARAM_QUALITY]: 2 } });
}

/** Bytes that compress, and bytes that do not. */
const plain = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 5_000 }),
  fc
    .tuple(fc.string({ minLength: 1, maxLength: 40 }), fc.integer({ min: 1, max: 2_000 }))
    .map(([text, times]) => Buffer.from(text.repeat(times))),
);

test("what is sealed comes back as it was, in either way", async () => {
  await fc.assert(
    fc.asyncProperty(plain, async (bytes) => {
      const sealed = sealSync(bytes);
      assert.deepEqual(await seal(bytes), sealed);
      assert.equal(isEnvelope(sealed), true);
      assert.equal(readEnvelope(sealed).plainBytes, bytes.length);
      assert.deepEqual(await opened(sealed), Buffer.from(bytes));
    }),
  );
});

test("the largest publish fits, compressed or random", async () => {
  for (const bytes of [Buffer.alloc(MAX_ENVELOPED_BYTES, "{}"), randomBytes(MAX_ENVELOPED_BYTES)]) {
    assert.ok((await open(readEnvelope(await seal(bytes)))).equals(bytes));
  }
});

test("every changed bit is noticed before anything is opened", () => {
  fc.assert(
    fc.property(plain, fc.nat(), (bytes, at) => {
      const sealed = sealSync(bytes);
      sealed[at % sealed.length]! ^= 1 << (at % 8);
      assert.throws(() => readEnvelope(sealed), isRefusal);
    }),
  );
});

test("an envelope whose checksum fits but whose bytes do not is refused by name, never otherwise", async () => {
  const change = fc.record({ at: fc.nat(), value: fc.nat(255) });
  await fc.assert(
    fc.asyncProperty(
      plain,
      fc.array(change, { minLength: 1, maxLength: 4 }),
      fc.nat(20),
      async (bytes, changes, cut) => {
        const sealed = Buffer.from(sealSync(bytes));
        for (const { at, value } of changes) sealed[at % sealed.length] = value;
        const short = sealed.subarray(0, Math.max(ENVELOPE_HEAD_BYTES, sealed.length - cut));
        try {
          const { length } = await opened(reseal(short));
          assert.ok(length <= MAX_ENVELOPED_BYTES);
        } catch (error) {
          assert.ok(isRefusal(error), String(error));
        }
      },
    ),
    { numRuns: 500 },
  );
});

test("random bytes are refused", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      assert.throws(() => readEnvelope(bytes), isRefusal);
    }),
  );
});

test("what an envelope may not say", async () => {
  const sound = Buffer.from("{}".repeat(500));
  const data = brotliCompressSync(sound);
  assert.ok((await opened(made(sound.length, data))).equals(sound));
  const wrong: Array<[string, Buffer]> = [
    ["another version", reseal(Buffer.from(sealSync(sound)).fill(2, 2, 3))],
    ["another codec", reseal(Buffer.from(sealSync(sound)).fill(0, 3, 4))],
    ["nothing in it", made(0, data)],
    ["more than a publish may hold", made(MAX_ENVELOPED_BYTES + 1, data)],
    ["no data", made(sound.length, Buffer.alloc(0))],
    ["cut off", made(sound.length, data.subarray(0, data.length - 1))],
    ["more behind its end", made(sound.length, Buffer.concat([data, Buffer.from([0])]))],
    ["two streams", made(sound.length, Buffer.concat([data, data]))],
    ["less than it says", made(sound.length + 1, data)],
    ["more than it says", made(sound.length - 1, data)],
    ["a bomb", made(1_000, zeros(64 * 1_048_576))],
    ["no brotli", made(1_000, randomBytes(500))],
  ];
  for (const [what, bytes] of wrong) await assert.rejects(opened(bytes), isRefusal, what);
});

test("a bomb takes no more memory than it says that it holds", async () => {
  const bomb = made(MAX_ENVELOPED_BYTES, zeros(256 * 1_048_576));
  assert.ok(bomb.length < 16_384);
  const before = process.memoryUsage.rss();
  for (let i = 0; i < 5; i++) await assert.rejects(open(readEnvelope(bomb)), isRefusal);
  assert.ok(process.memoryUsage.rss() - before < 8 * MAX_ENVELOPED_BYTES);
});
