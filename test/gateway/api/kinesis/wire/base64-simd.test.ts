/** Base64 sixteen characters a step against the plain way: the same bytes, the same end, the same refusals. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { Base64Reader } from "../../../../../gateway/api/kinesis/wire/base64-reader.ts";
import {
  decodedBytes,
  makeBase64Window,
  WINDOW_BYTES,
} from "../../../../../gateway/api/kinesis/wire/base64-simd.ts";

const fast = makeBase64Window();
const plain = makeBase64Window("plain");

/** What stands at `at` in `text`, in both ways. */
function agree(text: Buffer, at: number): void {
  const found = [fast, plain].map((window) => {
    text.copy(window.text);
    window.text[text.length] = 0;
    const end = window.decode(at, 5);
    const bytes = end < 0 ? 0 : decodedBytes(text, at, end);
    return { end, bytes: Buffer.from(window.bytes.subarray(5, 5 + bytes)) };
  });
  assert.deepEqual(found[0], found[1], text.toString("latin1"));
}

const encoded = fc
  .tuple(fc.uint8Array({ maxLength: 80 }), fc.constantFrom('"', '",', "=", "==", " ", "\0", "ä", "-", ""))
  .map(([bytes, behind]) => Buffer.from(Buffer.from(bytes).toString("base64") + behind, "latin1"));

test("what toString gave is read, to where it ends", () => {
  for (let size = 0; size < 100; size++) {
    const bytes = Buffer.from(Array.from({ length: size }, (_, i) => (i * 37 + size * 11) & 0xff));
    const text = Buffer.from(`xx${bytes.toString("base64")}"yy`);
    text.copy(fast.text);
    assert.equal(fast.decode(2, 0), text.length - 3);
    assert.equal(decodedBytes(text, 2, text.length - 3), size);
    assert.deepEqual(fast.bytes.subarray(0, size), bytes);
  }
});

test("it takes and refuses what the plain way does", () => {
  fc.assert(
    fc.property(encoded, fc.nat(3), (text, at) => agree(text, Math.min(at, text.length))),
    { numRuns: 2_000 },
  );
  fc.assert(
    fc.property(encoded, fc.nat(), fc.nat(255), (text, at, byte) => {
      const changed = Buffer.from(text);
      if (changed.length > 0) changed[at % changed.length] = byte;
      agree(changed, 0);
    }),
    { numRuns: 5_000 },
  );
});

test("each of the 256 bytes is told at each place of a step", () => {
  for (let at = 0; at < 36; at++) {
    for (let byte = 0; byte < 256; byte++) {
      const text = Buffer.alloc(36, "Zz09+/aA");
      text[at] = byte;
      agree(text, 0);
    }
  }
});

test("a reader gives the same of a body that fits the window and of one that goes through it in pieces", () => {
  const sizes = [0, 1, 200, 24_575, 24_576, 24_577, 49_152, 100_000, 1_000_000];
  const texts = sizes.map((size) => Buffer.alloc(size, (size % 250) + 1).toString("base64"));
  for (const taken of [texts.slice(0, 7), texts]) {
    const body = Buffer.from(`${taken.join('"')}"`);
    const reader = new Base64Reader(body);
    let at = 0;
    let dataAt = 0;
    for (const [i, text] of taken.entries()) {
      const end = reader.read(at);
      assert.equal(end, at + text.length);
      assert.equal(reader.dataEnd, dataAt + sizes[i]!);
      assert.ok(reader.data.subarray(dataAt, reader.dataEnd).every((byte) => byte === (sizes[i]! % 250) + 1));
      dataAt = reader.dataEnd;
      at = end + 1;
    }
  }
  assert.ok(texts.join().length > WINDOW_BYTES);
});

test("a fault in a text that goes through the window in pieces is found", () => {
  const good = Buffer.alloc(1_200_000, 7).toString("base64");
  for (const [at, put] of [
    [good.length - 3, "\u0001"],
    [32_767, "="],
    [32_766, "=="],
    [32_768, "="],
    [65_536 + 5, '"'],
  ] as const) {
    const text = good.slice(0, at) + put + good.slice(at + put.length);
    const end = new Base64Reader(Buffer.from(`${text}"`)).read(0);
    assert.notEqual(end, good.length, `${put} at ${at}`);
  }
});
