/** The scanner of PutRecords in CBOR against decodeCbor and checkShape: the same columns, or none. */
import assert from "node:assert/strict";
import test from "node:test";
import { encode } from "cbor-x";
import fc from "fast-check";
import { scanCborPutRecords } from "../../../../../gateway/api/kinesis/puts/cbor-put-scanner.ts";
import { cborHead, encodeCbor } from "../../../../../gateway/api/kinesis/wire/cbor.ts";
import { cborCodec } from "../../../../../gateway/api/kinesis/wire/codec.ts";
import { agrees } from "./scanned-puts.ts";

const decode = (body: Buffer): object => cborCodec.decode(body);

/** A map or an array, counted or up to a break, perhaps with its count in a longer form. */
function container(major: number, count: number, items: readonly Buffer[], form: number): Buffer {
  if (form === 1) return Buffer.concat([Buffer.of((major << 5) | 31), ...items, Buffer.of(0xff)]);
  const head = form === 2 ? Buffer.of((major << 5) | 25, count >> 8, count) : cborHead(major, count);
  return Buffer.concat([head, ...items]);
}

const form = fc.constantFrom(0, 0, 1, 2);
const payload = fc.oneof(
  { weight: 9, arbitrary: fc.uint8Array({ maxLength: 300 }).map((b) => encodeCbor(Buffer.from(b))) },
  fc.constantFrom("text", null, 5).map((other) => encodeCbor(other)),
);
const key = fc
  .oneof(
    { weight: 8, arbitrary: fc.constantFrom("k", "device-1", "device-22", "k".repeat(256), 'a"b', "a\\b") },
    fc.constantFrom("", "k".repeat(257), "käse", "\n"),
  )
  .map((text) => encodeCbor(text));
const hash = fc
  .constantFrom("0", "5", "01", "-1", String(2n ** 128n - 1n), String(2n ** 128n))
  .map((text) => encodeCbor(text));
const member = fc.oneof(
  { weight: 9, arbitrary: fc.tuple(fc.constant("Data"), payload) },
  { weight: 9, arbitrary: fc.tuple(fc.constant("PartitionKey"), key) },
  { weight: 2, arbitrary: fc.tuple(fc.constant("ExplicitHashKey"), hash) },
  { weight: 1, arbitrary: fc.tuple(fc.constant("Other"), key) },
);
const good = fc
  .tuple(payload, key, fc.option(hash, { freq: 4, nil: undefined }), fc.boolean())
  .map(([data, k, h, turned]) => {
    const members: [string, Buffer][] = [
      ["Data", data],
      ["PartitionKey", k],
    ];
    if (h !== undefined) members.push(["ExplicitHashKey", h]);
    return turned ? members.reverse() : members;
  });
const record = fc
  .tuple(fc.oneof({ weight: 9, arbitrary: good }, fc.array(member, { maxLength: 4 })), form)
  .map(([members, how]) =>
    container(
      5,
      members.length,
      members.map(([name, value]) => Buffer.concat([encodeCbor(name), value])),
      how,
    ),
  );
const body = fc
  .tuple(fc.array(record, { maxLength: 5 }), form, form, fc.constantFrom("StreamName", "StreamARN"))
  .map(([records, listForm, mapForm, name]) => {
    const text = name === "StreamName" ? "s" : "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    const list = Buffer.concat([encodeCbor("Records"), container(4, records.length, records, listForm)]);
    const named = Buffer.concat([encodeCbor(name), encodeCbor(text)]);
    return container(5, 2, mapForm === 1 ? [named, list] : [list, named], mapForm);
  });

test("what the scanner takes is what the plain way finds", () => {
  let taken = 0;
  fc.assert(
    fc.property(body, (bytes) => {
      if (agrees(bytes, scanCborPutRecords, decode)) taken++;
    }),
    { numRuns: 3_000 },
  );
  assert.ok(taken > 100, `it took ${taken}`);
});

test("nor does a body with a byte changed or cut off make a difference", () => {
  fc.assert(
    fc.property(body, fc.nat(), fc.nat(255), fc.boolean(), (bytes, at, byte, cut) => {
      const place = at % bytes.length;
      const changed = cut ? bytes.subarray(0, place) : Buffer.from(bytes);
      if (!cut) changed[place] = byte;
      agrees(changed, scanCborPutRecords, decode);
    }),
    { numRuns: 5_000 },
  );
});

test("500 records of any size are taken; 501 are not", () => {
  const of = (count: number, size: number, encoder: (value: object) => Uint8Array): Buffer =>
    Buffer.from(
      encoder({
        Records: Array.from({ length: count }, (_, i) => ({
          Data: Buffer.alloc(size, i),
          PartitionKey: `device-${i % 7}`,
        })),
        StreamName: "readings",
      }),
    );
  for (const encoder of [encode, encodeCbor]) {
    for (const size of [0, 20, 200, 3_000]) {
      assert.equal(agrees(of(500, size, encoder), scanCborPutRecords, decode), true);
    }
    assert.equal(agrees(of(501, 20, encoder), scanCborPutRecords, decode), false);
  }
  assert.equal(agrees(of(2, 600_000, encode), scanCborPutRecords, decode), true);
});
