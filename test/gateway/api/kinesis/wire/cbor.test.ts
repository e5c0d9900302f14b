/** Our CBOR against cbor-x, and against bytes that are no CBOR. */
import assert from "node:assert/strict";
import test from "node:test";
import { Decoder, Encoder, Tag } from "cbor-x";
import fc from "fast-check";
import { CborError, decodeCbor, encodeCbor } from "../../../../../gateway/api/kinesis/wire/cbor.ts";
import { Timestamp } from "../../../../../gateway/api/kinesis/wire/codec.ts";

const encoder = new Encoder({ useRecords: false, mapsAsObjects: true, tagUint8Array: false });
// An option of cbor-x that its types leave out.
const options = { useRecords: false, mapsAsObjects: true, int64AsNumber: true };
const decoder = new Decoder(options);

const leaf = fc.oneof(
  fc.string({ unit: "grapheme" }),
  fc.maxSafeInteger(),
  fc.double({ noNaN: true }),
  fc.boolean(),
  fc.constant(null),
);
const name = fc.string({ maxLength: 40 }).filter((text) => text !== "__proto__");
const { tree } = fc.letrec((tie) => ({
  tree: fc.oneof(
    { maxDepth: 5 },
    leaf,
    fc.array(tie("tree"), { maxLength: 5 }),
    fc.dictionary(name, tie("tree"), { maxKeys: 5 }),
  ),
}));

/** Without prototypes, and with -0 as 0: what two decoders may differ in. */
const plain = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value, (_, member) => (member === undefined ? null : member)));

test("what cbor-x writes is read as cbor-x reads it, and the other way round", () => {
  fc.assert(
    fc.property(tree, (value) => {
      assert.deepEqual(plain(decodeCbor(encoder.encode(value))), plain(value));
      assert.deepEqual(plain(decoder.decode(encodeCbor(value))), plain(value));
      assert.deepEqual(plain(decodeCbor(encodeCbor(value))), plain(value));
    }),
    { numRuns: 300 },
  );
});

test("bytes are bytes, and a time is milliseconds under tag 1", () => {
  const bytes = Buffer.from([1, 2, 3]);
  assert.deepEqual((decodeCbor(encoder.encode({ Data: bytes })) as { Data: Buffer }).Data, bytes);
  assert.deepEqual(decoder.decode(encodeCbor({ Data: bytes })).Data, bytes);
  // As the SDK for Java writes 1,787,036,486,712 ms.
  const wire = Buffer.from("a16954696d657374616d70c11b000001a013accc38", "hex");
  assert.deepEqual({ ...(decodeCbor(wire) as object) }, { Timestamp: 1_787_036_486.712 });
  assert.deepEqual(encodeCbor({ Timestamp: new Timestamp(1_787_036_486_712) }), wire);
});

test("lengths may come at the end", () => {
  // {_ "a": [_ 1, (_ "x", "yz")], "b": (_ h'01', h'0203')} by RFC 8949 §3.2.
  const wire = Buffer.from("bf61619f017f617862797affff61625f4101420203ffff", "hex");
  const value = decodeCbor(wire) as { a: unknown; b: Buffer };
  assert.deepEqual(value.a, [1, "xyz"]);
  assert.deepEqual(value.b, Buffer.from([1, 2, 3]));
});

test("half and single floats are read", () => {
  const numbers: [string, number][] = [
    ["f93c00", 1],
    ["f9c400", -4],
    ["f90001", 2 ** -24],
    ["f97c00", Number.POSITIVE_INFINITY],
    ["fa47c35000", 100_000],
  ];
  for (const [hex, number] of numbers) assert.equal(decodeCbor(Buffer.from(hex, "hex")), number);
});

test("what no request of AWS has is refused, and nothing is allocated for it", () => {
  const wrong = [
    "", // nothing
    "ff", // a break
    "5b7fffffffffffffff", // a string of 2^63 bytes
    "9bffffffffffffffff", // a list of 2^64 values
    "bb00000000ffffffff", // a map of 2^32 members
    "c249010000000000000000", // a bignum
    "d9d9f700", // self-described CBOR
    "d81d00", // a shared reference
    "d9dfff8161610101", // a record of cbor-x
    "a10102", // a key that is no text
    "61ff", // a text that is not UTF-8
    "1c", // a reserved length
    "f8ff", // an unknown simple value
    "0000", // two values
    "bf6161ff", // a key without a value
    `${"81".repeat(100)}00`, // too deep
  ];
  for (const hex of wrong) assert.throws(() => decodeCbor(Buffer.from(hex, "hex")), CborError, hex);
  assert.throws(() => decodeCbor(Buffer.concat([Buffer.from([0x9f]), Buffer.alloc(1_000_000)])), /too many/);
  // The library's own form of it, as a sanity check that tags are what is refused.
  assert.throws(() => decodeCbor(encoder.encode(new Tag("2020-01-01", 0))), /tag 0/);
});

test("no bytes make it throw anything but its own error", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        decodeCbor(Buffer.from(bytes));
      } catch (error) {
        assert.ok(error instanceof CborError, String(error));
      }
    }),
    { numRuns: 5_000 },
  );
});
