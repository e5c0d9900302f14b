import assert from "node:assert/strict";
import test from "node:test";
import { crc32 } from "node:zlib";
import { EventStreamCodec } from "@smithy/eventstream-codec";
import fc from "fast-check";
import { encodeEvent, encodeEventHeaders, plainCrc32 } from "../../../../gateway/api/answers/event-stream.ts";

const codec = new EventStreamCodec(
  (bytes) => Buffer.from(bytes as Uint8Array).toString("utf8"),
  (text) => Buffer.from(text),
);

test("the SDK's own decoder reads back whatever is encoded", () => {
  const name = fc.string({ minLength: 1, maxLength: 60 }).filter((text) => text !== "__proto__");
  fc.assert(
    fc.property(
      fc.dictionary(name, fc.string({ maxLength: 200, unit: "grapheme" }), {
        maxKeys: 5,
        noNullPrototype: true,
      }),
      fc.oneof(fc.uint8Array({ maxLength: 2_000 }), fc.string({ unit: "binary-ascii", maxLength: 2_000 })),
      (headers, payload) => {
        const message = codec.decode(encodeEvent(encodeEventHeaders(headers), payload));
        assert.deepEqual(Buffer.from(message.body), Buffer.from(payload as string));
        const read = Object.entries(message.headers).map(([key, { value }]) => [key, value]);
        assert.deepEqual(read, Object.entries(headers));
      },
    ),
    { numRuns: 300, seed: 1 },
  );
});

test("the plain CRC-32 is that of zlib", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 500 }), (bytes) => {
      assert.equal(plainCrc32(bytes), crc32(bytes));
      assert.equal(plainCrc32(bytes, bytes.length >> 1), crc32(bytes.subarray(0, bytes.length >> 1)));
    }),
    { seed: 1 },
  );
});
